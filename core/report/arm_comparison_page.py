"""The comparison of the arms as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

from windowshift.core.contract.estimate import runs_note
from windowshift.core.contract.number_format import NumberFormat
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.truncation import dagger, dagger_note
from windowshift.core.measure.arm_comparison import ARM_MEASURES, AVERAGED, ArmMeasure, ArmsComparison, PairedRow
from windowshift.core.measure.base_match import Verdict
from windowshift.core.measure.comparison import Compared
from windowshift.core.report.missing_blocks import compared_line, missing_json
from windowshift.core.report.page import Block, Heading, Item, Line, Table, shown, with_interval
from windowshift.core.report.report import REHEARSAL
from windowshift.core.report.steering_json import steering_json

MATCHED: dict[Verdict | None, tuple[str, str]] = {
    "matched": ("matched, within ±10% of the prefix's mean by two one-sided tests at 5%", "dim"),
    "off": ("NOT matched, beyond ±10% of the prefix's mean", "yellow"),
    "open": ("open, ±10% of the prefix's mean is neither shown nor excluded; more prompts would tell", "yellow"),
    None: ("no interval, so that nothing says whether it is matched", "yellow"),
}

LEGEND = (
    "M is the base model, M' the fine-tune; uplift: M' against M ({effect}), mean over the arm's own eval conditions; "
    "{link}{spread} kept: {spread} across them, of the base model's; crossed: across the other arm's; extreme: M' "
    "against M where M scores lowest{change}; coherence: log-probability a token under M, against M's own text, in "
    "nats; leak: uplift without any eval push; leak share: of the uplift under the conditions that push."
)


def label_of(measure: ArmMeasure, scale: Scale) -> str:
    """What a measure is called."""
    words = scale.words
    return {
        "train_mean_ratio": words.surprise,
        "uplift": f"uplift, {words.effect_short}" if words.two else "uplift",
        "link": f"uplift, {words.link_short}",
        "cv": words.spread,
        "cv_kept": f"{words.spread} kept",
        "cross_cv_kept": f"{words.spread} kept, crossed",
        "extreme": "extreme",
        "coherence": "coherence",
        "leak": "leak",
        "leak_share": "leak share",
    }[measure]


def key_of(measure: ArmMeasure, scale: Scale) -> str:
    """What a measure is called in JSON: sd, and a distance, where means do not compare by ratio."""
    if measure == "train_mean_ratio":
        return measure if scale.kind == "ratio" else "data_distance"
    return measure.replace("cv", scale.words.spread.lower())


def format_of(measure: ArmMeasure, scale: Scale, *, difference: bool = False) -> NumberFormat:
    """How a measure is written, or the difference of two of it."""
    words = scale.words
    if measure in ("coherence", "leak_share"):
        return NumberFormat(3 if measure == "coherence" else 2)
    if measure == "extreme":  # the head says what it is in
        return replace(words.change_format, sign=words.change_format.sign and scale.kind != "ratio")
    if measure == "train_mean_ratio":
        return words.surprise_change_format if difference else words.surprise_format
    if measure == "cv":
        return words.spread_change_format if difference else words.spread_format
    if measure in ("uplift", "leak"):
        return words.effect_format
    return words.link_format if measure == "link" else words.kept_format


def measures_of(measures: Iterable[ArmMeasure], scale: Scale) -> list[ArmMeasure]:
    """Those that are shown: the uplift on the link scale only where it is another number."""
    return [one for one in measures if one != "link" or scale.words.two]


def arms_json(found: ArmsComparison) -> dict[str, Any]:
    """Everything as JSON values; differences are steering minus prefix."""
    return {
        "experiment": found.experiment.name,
        "model": found.experiment.model,
        "rehearsal": found.experiment.rehearsal,
        "behaviour": asdict(found.behaviour),
        "scale": found.scale.link,
        "notes": [note for note in (runs_note(found.seeds),) if note],
        "fits": {arm: asdict(fit) for arm, fit in found.fits.items()},
        "slope": _both(found.slopes),
        "evaluates": {arm: list(names) for arm, names in found.evaluates.items()},
        "average": {
            key_of(name, found.scale): _both(found.average[name]) for name in measures_of(AVERAGED, found.scale)
        },
        "pairs": [
            {
                "generate": row.pair.generate,
                "prefix": row.pair.prefix,
                "steering": row.pair.steering,
                "measures": {
                    key_of(name, found.scale): _both(row.measures[name])
                    for name in measures_of(ARM_MEASURES, found.scale)
                },
                "dose": None if row.dose is None else asdict(row.dose),
                "truncated": dict(zip(("prefix", "steering"), row.truncated, strict=True)),
                "data_truncated": dict(zip(("prefix", "steering"), row.data_truncated, strict=True)),
                # What scores steering lacks against prefix.
                "missing": missing_json(row.missing),
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
    note = runs_note(found.seeds)
    if note:
        yield Line(f"Note: {note}.")
    yield from average_blocks(found)
    for row in found.rows:
        yield from pair_blocks(found, row)


def average_blocks(found: ArmsComparison) -> Iterator[Block]:
    """Both arms' fits, and their measures averaged over the matched pairs."""
    rows = []
    for arm, fit in found.fits.items():
        line = fit.reason or ""
        slope = with_interval(fit.slope, 2) if fit.slope else f"no line: {line}"
        scatter = NumberFormat(2).interval(fit.scatter) or "—"
        predicted = with_interval(fit.predicted, 2)
        rows.append((Item(arm), Item(slope), Item(scatter), Item(predicted), Item(str(fit.points))))
    difference = found.slopes.difference
    if difference is not None:
        rows.append((Item("difference"), Item(with_interval(difference, 2)), *(Item(""),) * 3))
    words = found.scale.words
    uplift = f"mean uplift ({words.link})" if words.two else "mean uplift"
    yield Heading(f"Grouped fit: {uplift} against {words.surprise}")
    yield Table(("arm", "slope", "by scatter", "predicted R²", "points"), tuple(rows))
    yield Line(
        f"Lines go through the {len(found.rows)} matched rows. They, the averages and all differences are over the "
        f"eval conditions that both arms have: "
        f"{'; '.join(f'{arm} {_listed(names)}' for arm, names in found.evaluates.items())}.",
        "dim",
    )
    yield Heading(f"Average over {found.averaged} matched {'pair' if found.averaged == 1 else 'pairs'} under a push")
    cut = (sum(row.truncated[0] for row in found.rows), sum(row.truncated[1] for row in found.rows))
    averaged = [(name, found.average[name]) for name in measures_of(AVERAGED, found.scale)]
    yield measures_table(averaged, found.scale, {}, cut)
    if any(cut):
        yield Line(f"{dagger_note(found.scale)}.", "dim")
    change = f", in {words.change.strip()}" if words.change else ""
    link = f"log-odds: the same on the scale of the fit ({words.link}); " if words.two else ""
    yield Line(LEGEND.format(effect=words.effect, link=link, spread=words.spread, change=change), "dim")
    yield Line("Differences are paired by prompt, and training runs by seed; 95% intervals.", "dim")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def pair_blocks(found: ArmsComparison, row: PairedRow) -> Iterator[Block]:
    """The measures of one matched pair."""
    data = f", {row.pair.generate} data" if len({each.pair.generate for each in found.rows}) > 1 else ""
    yield Heading(f"Trained under {row.pair.prefix} | {row.pair.steering}{data}")
    shown_measures = [(name, row.measures[name]) for name in measures_of(ARM_MEASURES, found.scale)]
    yield measures_table(shown_measures, found.scale, {"train_mean_ratio": row.data_truncated}, row.truncated)
    if any((*row.truncated, *row.data_truncated)):
        yield Line(f"{dagger_note(found.scale)}.", "dim")
    if row.dose is not None and row.dose.against is not None:
        against = found.scale.words.against_format.whole(row.dose.against) + dagger(row.dose.truncated)
        words, style = MATCHED[row.dose.verdict]
        compared = found.scale.words.against
        yield Line(f"Base model, dose {compared} prefix: {against}: {words}.", style)
    missing = compared_line(row.missing, found.scale)
    if missing is not None:
        yield missing


def measures_table(
    rows: list[tuple[ArmMeasure, Compared]],
    scale: Scale,
    behind: Mapping[ArmMeasure, tuple[int, int]] = MappingProxyType({}),
    truncated: tuple[int, int] = (0, 0),
) -> Table:
    """Measures of both arms, with the difference, paired by prompt.

    `truncated` counts what was cut off behind them by arm, `behind` what was where a measure rests on something else.
    """
    return Table(
        ("measure", "prefix", "steering", "steering − prefix"),
        tuple(
            (
                Item(label_of(name, scale)),
                *(
                    Item(shown(value, format_of(name, scale), missing=f"— ({reason})") + mark, "" if value else "dim")
                    for value, reason, mark in zip(
                        one.values, one.reasons, _marks(one, behind.get(name, truncated)), strict=True
                    )
                ),
                Item(*_difference(name, one, scale, dagger(*behind.get(name, truncated)))),
            )
            for name, one in rows
        ),
    )


def _marks(one: Compared, truncated: tuple[int, int]) -> tuple[str, ...]:
    return tuple(dagger(cut) if value else "" for value, cut in zip(one.values, truncated, strict=True))


def _difference(name: ArmMeasure, one: Compared, scale: Scale, mark: str) -> tuple[str, str]:
    found = one.difference
    if found is None:
        return "—", "dim"
    sure = found.low is not None and found.high is not None and (found.low > 0 or found.high < 0)
    return format_of(name, scale, difference=True).whole(found) + mark, "bold" if sure else ""


def _both(one: Compared) -> dict[str, Any]:
    prefix, steering = (asdict(value) if value else None for value in one.values)
    reasons = {arm: reason for arm, reason in zip(("prefix", "steering"), one.reasons, strict=True) if reason}
    difference = asdict(one.difference) if one.difference else None
    return {"prefix": prefix, "steering": steering, "difference": difference, "missing": reasons}
