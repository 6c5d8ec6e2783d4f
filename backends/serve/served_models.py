"""The models that are served: the bases that the server was started with, and what was tuned from them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from windowshift.backends.local.model_folder import locate
from windowshift.backends.serve.api_error import ApiError, missing, shown
from windowshift.backends.serve.state import State
from windowshift.core.contract.errors import StoreError
from windowshift.core.contract.generation import Model, TemplateInputs

DEFAULT_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as the API shows it; `adapter` is None for a base model.

    `default_tokens` is how long an answer may be where a request does not say, `template` what its chat template
    reads besides the messages.
    """

    name: str
    base: str
    adapter: str | None
    created_at: int
    default_tokens: int
    template: TemplateInputs

    @property
    def model(self) -> Model:
        """As backends take it."""
        return Model(self.base, adapter=self.adapter, template=self.template)

    def to_api(self) -> dict[str, Any]:
        """As the API's model object."""
        owner = "windowshift" if self.adapter is None else "organization-owner"
        return {"id": self.name, "object": "model", "created": self.created_at, "owned_by": owner}


class ServedModels:
    """Models by name. Adapters are folders inside the data folder, stored relative to it, so that it can be moved.

    Args:
        state: the data folder.
        bases: the base models' names.
        started: Unix seconds; a base model's `created`.
    """

    def __init__(self, state: State, bases: Sequence[str], started: int) -> None:
        self._state = state
        self.template = TemplateInputs(state.day)
        self._bases = {
            name: ServedModel(name, name, None, started, default_tokens(name), self.template) for name in bases
        }

    @property
    def bases(self) -> list[str]:
        """The base models' names."""
        return list(self._bases)

    def get(self, name: str, *, status: int = 404) -> ServedModel:
        """Find a model.

        Raises:
            ApiError: there is none of that name.
        """
        if name in self._bases:
            return self._bases[name]
        row = self._state.connection.execute("SELECT * FROM models WHERE name = ?", (name,)).fetchone()
        if row is None or row["base"] not in self._bases:
            raise missing("model", name, param="model", status=status)
        return self._tuned(row)

    def all(self) -> list[ServedModel]:
        """Every model that can be asked, the bases first."""
        rows = self._state.connection.execute("SELECT * FROM models ORDER BY n DESC")
        found = list(self._bases.values())
        for row in rows:
            if row["base"] in self._bases:
                with suppress(ApiError):  # whoever asks for it is told
                    found.append(self._tuned(row))
        return found

    def trainable(self, name: str) -> str:
        """The base model of a fine-tuning job.

        Raises:
            ApiError: there is no such model, or it is a fine-tuned one.
        """
        model = self.get(name, status=400)
        if model.adapter is not None:
            raise ApiError(
                400,
                f"'{name}' is a fine-tuned model, and this server trains base models only: {', '.join(self._bases)}",
                param="model",
            )
        return model.base

    def delete(self, name: str) -> None:
        """Remove a fine-tuned model and its weights.

        Raises:
            ApiError: there is no such model, or it is a base model.
        """
        model = self.get(name)
        if model.adapter is None:
            raise ApiError(403, f"'{name}' is a base model of this server and cannot be deleted", param="model")
        self._state.connection.execute("DELETE FROM models WHERE name = ?", (name,))
        shutil.rmtree(model.adapter, ignore_errors=True)

    def _tuned(self, row: sqlite3.Row) -> ServedModel:
        parts = row["adapter"].split("/")
        try:
            if parts[0] != "jobs" or len(parts) < 3:  # a job's own folder is none
                raise StoreError("it is outside of the jobs")
            adapter = str(self._state.place(*parts))
        except StoreError as error:
            raise ApiError(500, f"the weights of '{shown(row['name'])}' are not in the data folder: {error}") from error
        tokens = self._bases[row["base"]].default_tokens
        return ServedModel(row["name"], row["base"], adapter, row["created_at"], tokens, self.template)


def default_tokens(base: str) -> int:
    """How long an answer may be where a request does not say: at most half of a small model's context.

    Raises:
        BackendError: there is no such model folder.
    """
    folder = locate(base)
    if folder is None or not (folder / "config.json").is_file():
        return DEFAULT_TOKENS
    context = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings")
    return min(DEFAULT_TOKENS, context // 2) if isinstance(context, int) and context > 1 else DEFAULT_TOKENS
