"""Contrasts: the comparisons that an experiment is run for, named in its spec before there is any result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import BASE
from windowshift.core.spec.section import Section
from windowshift.core.spec.spec_errors import did_you_mean


class Contrast(Section):
    """One train condition against another one, or against the base model (`base`).

    `evaluate` names eval conditions (the mean over several); left out, all of the arm's own. `generate` says which D
    where there are several, and `behaviour` what is compared; left out, the primary one. `margin` says how small a
    difference is as good as none, in the unit of the effect (log2 of ratios; rates run from 0 to 1): the contrast is
    then also tested for equivalence.
    """

    of: Annotated[str, Field(min_length=1)]
    against: Annotated[str, Field(min_length=1)]
    evaluate: str | Annotated[list[str], Field(min_length=1)] | None = None
    generate: str | None = None
    behaviour: str | None = None
    margin: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)] | None = None
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    @field_validator("evaluate")
    @classmethod
    def _distinct(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and len(set(value)) != len(value):
            raise ValueError("every eval condition may stand there once only")
        return value


def resolve_contrasts(
    contrasts: Sequence[Contrast],
    rows: Collection[tuple[str, str, str]],
    evaluates: Sequence[str],
    behaviours: Sequence[str],
) -> list[dict[str, Any]]:
    """What contrasts compare, with everything that was left out of them but the eval conditions of the arm.

    Args:
        contrasts: of the spec.
        rows: the grid's (arm, generation condition, train condition).
        evaluates: its eval conditions.
        behaviours: what is measured, the primary one first.

    Raises:
        SpecError: a contrast names what the grid does not have, or the same as another one.
    """
    found: list[dict[str, Any]] = []
    for index, one in enumerate(contrasts):
        where = f"contrasts[{index}]"
        trains = list(dict.fromkeys(train for _, _, train in rows))
        _known(one.of, trains, f"{where}.of", "train condition")
        _known(one.against, [*trains, BASE], f"{where}.against", "train condition")
        if one.of == one.against:
            raise SpecError(f"{where}: '{one.of}' is compared with itself")
        under = [one.evaluate] if isinstance(one.evaluate, str) else one.evaluate
        for name in under or ():
            _known(name, evaluates, f"{where}.evaluate", "eval condition")
        generates = list(dict.fromkeys(source for _, source, train in rows if train == one.of))
        if one.generate is None and len(generates) > 1:
            raise SpecError(f"{where}: '{one.of}' is trained on {' and on '.join(generates)}: add  generate: NAME")
        generate = one.generate or generates[0]
        _known(generate, generates, f"{where}.generate", f"D of '{one.of}'")
        arm = next(arm for arm, source, train in rows if (source, train) == (generate, one.of))
        if one.against != BASE and (arm, generate, one.against) not in rows:
            raise SpecError(
                f"{where}: '{one.against}' is not trained on {generate} data in the {arm} arm: compare others"
            )
        behaviour = one.behaviour or (behaviours[0] if behaviours else "")
        _known(behaviour, behaviours, f"{where}.behaviour", "behaviour")
        entry: dict[str, Any] = {
            "arm": arm, "generate": generate, "of": one.of, "against": one.against, "evaluate": under,
            "behaviour": behaviour,
        }  # fmt: skip
        if one.margin is not None:
            entry["margin"] = one.margin
        entry = {"name": one.name or _said(entry), **entry, "hash": digest(entry)}
        for other in found:
            if other["hash"] == entry["hash"] or other["name"] == entry["name"]:
                raise SpecError(f"{where}: '{entry['name']}' stands there twice; every contrast may stand there once")
        found.append(entry)
    return found


def digest(entry: dict[str, Any]) -> str:
    """Eight hex digits of what is compared; the contrast's name is not in it."""
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:8]


def _said(entry: dict[str, Any]) -> str:
    under = f" under {', '.join(entry['evaluate'])}" if entry["evaluate"] else ""
    within = f", the same within {entry['margin']:g}" if "margin" in entry else ""
    return f"{entry['of']} against {entry['against']}{under}{within}"


def _known(name: str, names: Sequence[str], where: str, what: str) -> None:
    if name not in names:
        raise SpecError(f"{where}: the grid has no {what} '{name}'{did_you_mean(name, names)}")
