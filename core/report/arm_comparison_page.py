"""The comparison of the arms as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from windowshift.core.measure.arm_comparison import ARM_MEASURES, AVERAGED, ArmMeasure, ArmsComparison, PairedRow
from windowshift.core.measure.comparison import Compared
from windowshift.core.report.fit_blocks import SCALES
from windowshift.core.report.page import Block, Heading, Item, Line, Table, with_interval
from windowshift.core.report.report import REHEARSAL
from windowshift.core.report.steering_json import steering_json

DECIMALS: dict[ArmMeasure, int | None] = {
    "train_mean_ratio": 2,
    "uplift": 2,
    "cv": 2,
    "cv_kept": 2,
    "cross_cv_kept": 2,
    "extreme": 1,
    "coherence": 3,
    "leak": 2,
    "leak_share": 2,
}
WORDS: dict[ArmMeasure, str] = {
    "train_mean_ratio": "train_mean_ratio",
    "uplift": "uplift",
    "cv": "CV",
    "cv_kept": "CV kept",
    "cross_cv_kept": "CV kept, crossed",
    "extreme": "extreme",
    "coherence": "coherence",
    "leak": "leak",
    "leak_share": "leak share",
}
LEGEND = (
    "M is the base model, M' the fine-tune; uplift: M' over M ({scale}), mean over the arm's own eval conditions; "
    "CV kept: CV across them, of the base model's; crossed: across the other arm's; extreme: M' against M where M "
    "scores lowest{percent}; coherence: log-probability a token under M, against M's own text, in nats; leak: uplift "
    "without any eval push; leak share: of the uplift under the conditions that push."
)


def arms_json(found: ArmsComparison) -> dict[str, Any]:
    """Everything as JSON values; differences are steering minus prefix."""
    return {
        "experiment": found.experiment.name,
        "model": found.experiment.model,
        "rehearsal": found.experiment.rehearsal,
        "behaviour": asdict(found.behaviour),
        "scale": found.scale,
        "fits": {arm: asdict(fit) for arm, fit in found.fits.items()},
        "average": {name: _both(one) for name, one in found.average.items()},
        "pairs": [
            {
                "generate": row.pair.generate,
                "prefix": row.pair.prefix,
                "steering": row.pair.steering,
                "measures": {name: _both(one) for name, one in row.measures.items()},
            }
            for row in found.rows
        ],
        "steering": steering_json(found.steering),
    }


def arms_blocks(found: ArmsComparison) -> Iterator[Block]:
    """The one table, with what is needed to read it."""
    experiment = found.experiment
    yield Heading(f"{experiment.name}: prefix and steering arm at matched dose, on {experiment.model}", 1)
    if experiment.rehearsal:
        yield Line(f"REHEARSAL MODEL: {REHEARSAL}.", "bold yellow")
    yield from average_blocks(found)
    for row in found.rows:
        yield from pair_blocks(found, row)


def average_blocks(found: ArmsComparison) -> Iterator[Block]:
    """Both arms' fits, and their measures averaged over the matched pairs."""
    rows = []
    for arm, fit in found.fits.items():
        line = fit.reason or ""
        slope = with_interval(fit.slope, 2) if fit.slope else f"no line: {line}"
        rows.append((Item(arm), Item(slope), Item(with_interval(fit.r2, 2)), Item(str(fit.points))))
    yield Heading("Grouped fit: mean uplift against train_mean_ratio")
    yield Table(("arm", "slope", "R²", "points"), tuple(rows))
    yield Heading(f"Average over {found.averaged} matched {'pair' if found.averaged == 1 else 'pairs'} under a push")
    yield measures_table([(name, found.average[name]) for name in AVERAGED])
    percent = ", in %" if found.scale == "log2" else ""
    yield Line(LEGEND.format(scale=SCALES[found.scale], percent=percent), "dim")
    yield Line("Differences are paired by prompt; 95% intervals, bootstrap clustered by prompt.", "dim")


def pair_blocks(found: ArmsComparison, row: PairedRow) -> Iterator[Block]:
    """The measures of one matched pair."""
    data = f", {row.pair.generate} data" if len({each.pair.generate for each in found.rows}) > 1 else ""
    yield Heading(f"Trained under {row.pair.prefix} | {row.pair.steering}{data}")
    yield measures_table([(name, row.measures[name]) for name in ARM_MEASURES])


def measures_table(rows: list[tuple[ArmMeasure, Compared]]) -> Table:
    """Measures of both arms, with the difference, paired by prompt."""
    return Table(
        ("measure", "prefix", "steering", "steering − prefix"),
        tuple(
            (
                Item(WORDS[name]),
                *(
                    Item(with_interval(value, DECIMALS[name]) if value else f"— ({reason})", "" if value else "dim")
                    for value, reason in zip(one.values, one.reasons, strict=True)
                ),
                Item(*_difference(name, one)),
            )
            for name, one in rows
        ),
    )


def _difference(name: ArmMeasure, one: Compared) -> tuple[str, str]:
    found = one.difference
    if found is None:
        return "—", "dim"
    sure = found.low is not None and found.high is not None and (found.low > 0 or found.high < 0)
    return with_interval(found, DECIMALS[name]), "bold" if sure else ""


def _both(one: Compared) -> dict[str, Any]:
    prefix, steering = (asdict(value) if value else None for value in one.values)
    reasons = {arm: reason for arm, reason in zip(("prefix", "steering"), one.reasons, strict=True) if reason}
    difference = asdict(one.difference) if one.difference else None
    return {"prefix": prefix, "steering": steering, "difference": difference, "missing": reasons}
