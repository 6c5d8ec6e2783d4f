"""Choosing the prompts that allow a range of lengths, from what a filter job sampled."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from windowshift.core.contract.errors import SpecError

_WORD = re.compile(r"[a-z]+")
JUDGE_QUESTION = (
    "Here is an instruction that somebody gave to an assistant.\n\n<instruction>\n{prompt}\n</instruction>\n\n"
    "Could a good answer be very short as well as very long? Answer with one word, yes or no."
)


@dataclass(frozen=True, slots=True)
class KeptPrompts:
    """Positions of the prompts kept, in their drawn order, and what could not be judged."""

    positions: tuple[int, ...]
    refused: int
    missing: int


def choose_by_variance(lengths: Mapping[int, float], prompts: int, conditions: int, keep: int) -> KeptPrompts:
    """Keep the prompts whose log-lengths vary most across conditions.

    Args:
        lengths: characters by row number; row = prompt * conditions + condition; failed rows are missing.
        prompts: how many prompts were asked.
        conditions: how many conditions each was asked under.
        keep: how many to keep.

    Raises:
        SpecError: fewer than `keep` prompts have all their completions.
    """
    spread: list[tuple[float, int]] = []
    for position in range(prompts):
        values = [lengths.get(position * conditions + column) for column in range(conditions)]
        known = [math.log1p(value) for value in values if value is not None]
        if len(known) == conditions:
            mean = sum(known) / conditions
            spread.append((sum((value - mean) ** 2 for value in known) / conditions, position))
    missing = prompts - len(spread)
    _enough(len(spread), keep, missing)
    kept = sorted(position for _, position in sorted(spread, key=lambda item: (-item[0], item[1]))[:keep])
    return KeptPrompts(tuple(kept), len(spread) - keep, missing)


def choose_by_judge(answers: Sequence[str | None], keep: int) -> KeptPrompts:
    """Keep the first prompts that the judge said yes to.

    Args:
        answers: the judge's text by prompt; None: it did not answer.
        keep: how many to keep.

    Raises:
        SpecError: it said yes to fewer than `keep`.
    """
    verdicts = [None if answer is None else verdict(answer) for answer in answers]
    yes = [position for position, said in enumerate(verdicts) if said]
    missing = sum(said is None for said in verdicts)
    _enough(len(yes), keep, missing)
    return KeptPrompts(tuple(yes[:keep]), sum(said is False for said in verdicts), missing)


def verdict(answer: str) -> bool | None:
    """Read yes or no from a judge's answer; None: it is neither, or both."""
    words = set(_WORD.findall(answer.lower()))
    said = words & {"yes", "no"}
    return None if len(said) != 1 else said == {"yes"}


def _enough(found: int, keep: int, missing: int) -> None:
    if found < keep:
        raise SpecError(
            f"the prompt filter left {found} prompts ({missing} could not be judged), but {keep} are needed: "
            "raise data.filter.candidates, or lower data.size or sampling.prompts"
        )
