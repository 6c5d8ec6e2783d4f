"""The models that are served: the bases that the server was started with, and what was tuned from them."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from windowshift.backends.local.model_folder import model_context
from windowshift.backends.serve.api_error import ApiError, missing, shown
from windowshift.backends.serve.state import ServerState
from windowshift.core.contract.errors import BackendError, StoreError
from windowshift.core.contract.generation import Model, TemplateInputs

DEFAULT_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as the API shows it; `adapter` is None for a base model.

    `default_tokens` is how long an answer may be where a request does not say, `template` what its chat template
    reads besides the messages, `context` how many tokens prompt and answer may have together; None: nobody says.
    """

    name: str
    base: str
    adapter: str | None
    created_at: int
    default_tokens: int
    template: TemplateInputs
    context: int | None = None

    @property
    def model(self) -> Model:
        """As backends take it."""
        return Model(self.base, adapter=self.adapter, template=self.template)

    def to_api(self) -> dict[str, Any]:
        """As the API's model object."""
        owner = "windowshift" if self.adapter is None else "organization-owner"
        found = {"id": self.name, "object": "model", "created": self.created_at, "owned_by": owner}
        return found if self.context is None else {**found, "max_model_len": self.context}  # as vLLM calls it


class ServedModels:
    """Models by name. Adapters are folders inside the data folder, stored relative to it, so that it can be moved.

    Args:
        state: the data folder.
        bases: the base models' names.
        started: Unix seconds; a base model's `created`.
    """

    def __init__(self, state: ServerState, bases: Sequence[str], started: int) -> None:
        self._state = state
        self.template = TemplateInputs(state.day)
        self._bases: dict[str, ServedModel] = {}
        for name in bases:
            context = context_of(name)
            tokens = default_tokens(context)
            self._bases[name] = ServedModel(name, name, None, started, tokens, self.template, context)

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
        base = self._bases[row["base"]]
        return ServedModel(
            row["name"], base.name, adapter, row["created_at"], base.default_tokens, self.template, base.context
        )


def context_of(base: str) -> int | None:
    """Tokens of prompt and answer together; None where nobody says: a model that is not here yet, for one."""
    try:
        return model_context(base)
    except BackendError:
        return None  # whoever loads it says why


def default_tokens(context: int | None) -> int:
    """How long an answer may be where a request does not say: at most half of a small model's context."""
    return DEFAULT_TOKENS if context is None or context < 2 else min(DEFAULT_TOKENS, context // 2)
