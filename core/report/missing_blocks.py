"""What the report says of scores that are missing unequally: who lacks how many, and what that can do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.number_format import NumberFormat
from windowshift.core.contract.scale import Scale
from windowshift.core.measure.measures import ArmMeasures, Measures
from windowshift.core.measure.missing_scores import MissingScores
from windowshift.core.report.page import Block, Heading, Item, Line, Table, shown

SHARE = NumberFormat(1, sign=True, factor=100.0)
"""How a difference of shares is written, in percentage points."""
NOTE = (
    "Scored: completions with a score, of those of prompts that both were asked; the difference of the shares is in "
    "percentage points and paired by prompt. Its interval leaves out 0: one side lacks more, and the prompts that both "
    "have a score of may be others than were asked"
)
WORST = (
    "Worst case: the difference where every missing score is 0 on one side and 1 on the other, either way (Manski); "
    "in brackets the outer ends of the 95% intervals of both"
)


def missing_notes(measures: Measures) -> list[str]:
    """One sentence an arm in which cells lack other shares of their scores than the base model does."""
    found = []
    for arm in measures.arms.values():
        unequal = sum(one.differs for one in arm.missing.values())
        if unequal:
            many = "1 cell lacks" if unequal == 1 else f"{unequal} cells lack"
            found.append(
                f"scores are missing unequally in the {arm.arm} arm: {many} another share of them than the base model "
                "beside, by more than chance"
            )
    return found


def missing_blocks(arm: ArmMeasures, generate: str) -> Iterator[Block]:
    """The cells of a table that lack another share of their scores than the base model does."""
    rows = []
    effects = {cell.key: cell.effect for cell in arm.cells}
    for key, one in arm.missing.items():
        if key.generate == generate and one.differs:
            label = f"{key.train} evaluated under {key.evaluate}"
            rows.append((Item(label), *map(Item, missing_texts(one, arm.scale, effects.get(key)))))
    if not rows:
        return
    rate = arm.scale.kind == "rate"
    heads = ["cell", "scored", "of the base model", "difference", arm.scale.words.effect]
    heads += ["worst case"] if rate else []
    yield Heading(f"Scores missing unequally, {arm.arm} arm, trained on {generate} data")
    yield Table(tuple(heads), tuple(rows))
    yield Line(f"{NOTE}. {f'{WORST}.' if rate else ''}".rstrip(), "dim")


def compared_line(one: MissingScores | None, scale: Scale) -> Line | None:
    """What is missing of the second of two rows against the first, in a sentence; None where nothing is."""
    if one is None:
        return None
    counts = [f"{scored:,} of {asked:,}" for scored, asked in zip(one.scored, one.asked, strict=True)]
    said = "missing unequally" if one.differs else "no more unequally than by chance"
    text = f"Scored: prefix {counts[1]}, steering {counts[0]}, {said}: {SHARE.whole(one.difference)} percentage points."
    if one.worst is not None:
        worst = worst_text(one, scale.words.effect_format)
        text += f" Worst case of the fine-tunes' difference of means, whatever the missing scores are: {worst}."
    return Line(text, "yellow" if one.differs else "dim")


def missing_texts(one: MissingScores, scale: Scale, effect: Estimate | None) -> list[str]:
    """Both counts, the difference of shares, what is compared, and for rates its bounds."""
    form = scale.words.effect_format
    counts = [f"{scored:,} of {asked:,}" for scored, asked in zip(one.scored, one.asked, strict=True)]
    found = [*counts, SHARE.whole(one.difference), shown(effect, form)]
    return [*found, worst_text(one, form)] if scale.kind == "rate" else found


def worst_text(one: MissingScores, form: NumberFormat) -> str:
    """The bounds, and the interval around both."""
    if one.worst is None:
        return "—"
    both = f"{form.text(one.worst.least)} … {form.text(one.worst.greatest)}"
    if one.worst.interval is None:
        return both
    low, high = (form.text(end) for end in one.worst.interval)
    return f"{both} [{low}, {high}]"


def missing_json(one: MissingScores | None) -> dict[str, Any] | None:
    """As JSON values; None where nothing is missing."""
    if one is None:
        return None
    worst = one.worst
    return {
        "scored": list(one.scored),
        "asked": list(one.asked),
        "difference": one.difference.value,
        "difference_ci95": None if one.difference.interval is None else list(one.difference.interval),
        "differs": one.differs,
        "effect_bounds": None if worst is None else [worst.least, worst.greatest],
        "effect_bounds_ci95": None if worst is None or worst.interval is None else list(worst.interval),
    }
