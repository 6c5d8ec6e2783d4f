"""A selection: what a ranking of train conditions on development prompts came to, frozen before they are trained."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from windowshift.core.spec.section import Count, Section

By = Literal["uplift", "elicitation"]


class SelectionSection(Section):
    """What `windowshift select` found, which it writes here; nobody changes it by hand.

    `scores` are those of all candidates `by` the quantity that ranked them, `chosen` the ones that were kept, best
    first, and `marked` those under which the base model already writes D, so that little is left to learn. `hash` is
    of all of it.
    """

    by: By
    generate: str
    prompts: Count
    scores: Annotated[dict[str, Annotated[float, Field(strict=False)]], Field(min_length=2)]
    chosen: Annotated[list[str], Field(min_length=1)]
    marked: Annotated[list[str], Field(default_factory=list)]
    hash: str

    @model_validator(mode="after")
    def _as_it_was_frozen(self) -> SelectionSection:
        unknown = [name for name in (*self.chosen, *self.marked) if name not in self.scores]
        if unknown:
            raise ValueError(f"'{unknown[0]}' has no score")
        if self.hash != selection_hash(self.model_dump()):
            raise ValueError("it was changed after it was frozen: run  windowshift select  again, or leave it out")
        return self


def selection_hash(entry: dict[str, Any]) -> str:
    """Sixteen hex digits of a selection; its own hash is not in it."""
    hashed = {key: value for key, value in entry.items() if key != "hash"}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]
