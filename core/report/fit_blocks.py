"""What the report says of fits: slopes, their points, and the published ones beside them."""

from __future__ import annotations

from collections.abc import Iterator

from windowshift.core.contract.number_format import NumberFormat, number
from windowshift.core.contract.truncation import DAGGER, dagger, dagger_note
from windowshift.core.measure.measures import ArmMeasures, Fit
from windowshift.core.report.page import Block, Heading, Item, Line, Table, shown, with_interval
from windowshift.core.report.report import Report
from windowshift.core.report.truncated_rows import row_dagger
from windowshift.core.settings.published import Published

FIT_LEGEND = (
    "By sampling: other prompts, phrases and training runs; by scatter: other train conditions (Student's t over the "
    "points, never narrower than by sampling); without attenuation: corrected for the noise in x (SIMEX); predicted "
    "R²: each row from the line through the others."
)


def fit_blocks(report: Report, arm: ArmMeasures) -> Iterator[Block]:
    """The lines through an arm's points: of all rows, by data, by seed, by eval condition; beside published ones."""
    words = arm.scale.words
    uplift = f"average uplift ({words.link})" if words.two else "average uplift"
    yield Heading(f"Grouped fit, {arm.arm} arm: {uplift} against {words.surprise_axis}")
    yield Line(fit_line(arm.whole.grouped), "bold")
    if len(arm.by_generate) > 1:
        for generate, group in arm.by_generate.items():
            yield Line(f"{generate} data: {fit_line(group.grouped)}")
    for seed, group in arm.by_seed.items():
        yield Line(f"seed {seed}: {fit_line(group.grouped)}")
    rows = []
    for point in arm.whole.points:
        place = point.ratio or point.x
        y = words.link_format.whole(point.y) if point.y else (point.reason or "—")
        label = row_label(arm, point.generate, point.train)
        label += row_dagger(arm, point.generate, point.train)
        rows.append(
            (
                Item(label),
                Item(shown(place, words.surprise_format) + (dagger(point.truncated) if place else "")),
                Item(y),
            )
        )
    yield Table((row_label(arm, "data", "train"), words.surprise, uplift), tuple(rows))
    cut = any(DAGGER in item.text for row in rows for item in row)
    yield Line(f"{FIT_LEGEND} {dagger_note(arm.scale)}." if cut else FIT_LEGEND, "dim")
    yield Heading(f"Fit for each eval condition, {arm.arm} arm")
    yield Table(
        ("evaluate", "slope", "by scatter", "predicted R²", "points"),
        tuple((Item(evaluate), *_fit_items(fit)) for evaluate, fit in arm.whole.by_evaluate.items()),
    )
    if report.published and arm.arm == "prefix":
        yield from _published(report.published, report.experiment.model, arm)


def row_label(arm: ArmMeasures, generate: str, train: str) -> str:
    """A row's name, with its data where there are several generation conditions."""
    return f"{generate} → {train}" if len(arm.generates) > 1 else train


def fit_line(fit: Fit) -> str:
    """The slope with what it rests on, the interval of sampling first and that of the points' scatter beside it."""
    if fit.slope is None:
        return f"no line: {fit.reason}"
    some = "" if fit.points == fit.rows else f" of {fit.rows}"
    slope, intercept, corrected, predicted = (
        with_interval(one, 2) for one in (fit.slope, fit.intercept, fit.corrected, fit.predicted)
    )
    scatter = NumberFormat(2).interval(fit.scatter) or "[no interval]"
    return (
        f"slope {slope} by sampling, {scatter} by the scatter of {fit.points}{some} points; without attenuation "
        f"{corrected}; intercept {intercept}; predicted R² {predicted}"
    )


def _fit_items(fit: Fit) -> tuple[Item, ...]:
    if fit.slope is None:
        return *(Item("·", "dim"),) * 3, Item(str(fit.points))
    scatter = NumberFormat(2).interval(fit.scatter) or "—"
    return (
        Item(with_interval(fit.slope, 2)),
        Item(scatter),
        Item(with_interval(fit.predicted, 2)),
        Item(str(fit.points)),
    )


def _published(published: Published, model: str, arm: ArmMeasures) -> Iterator[Block]:
    yield Heading("Beside the published numbers (each of the model it names)")
    fit = arm.whole.grouped
    extreme = next((one for one in arm.whole.extremes if one.direction == "low"), None)
    base, plain = (extreme.vs_base, extreme.vs_no_prefix) if extreme else (None, None)
    own = (
        Item(f"{model} (this run)", "bold"),
        *(Item(number(one.value, 2) if one else "·", "bold") for one in (fit.slope, fit.r2)),
        *(Item(number(one.value, 1) if one else "·", "bold") for one in (base, plain)),
    )
    rows = [
        (
            Item(f"{row.model} (published)"),
            Item(number(row.slope, 2)),
            Item(number(row.r2, 2)),
            Item(number(row.vs_base_pct, 1)),
            Item(number(row.vs_no_prefix_pct, 1)),
        )
        for row in published.grouped
    ]
    yield Table(("model", "slope", "R²", "min % vs\nbase", "min % vs\nno prefix"), (own, *rows))
