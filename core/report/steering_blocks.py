"""What the report says of steering: vectors, the layer picked, dose-response, matched doses and controls."""

from __future__ import annotations

from collections.abc import Iterator

from windowshift.core.contract.stats import Estimate
from windowshift.core.measure.calibration import DosePoint
from windowshift.core.measure.steering_results import ControlEffect, DoseCurve, LayerSweep, MatchedDose, SteeringResults
from windowshift.core.report.page import Block, Heading, Item, Line, Table, number, with_interval

CONTROL_LIMIT = 0.25


def steering_blocks(found: SteeringResults, unit: str, scale: str) -> Iterator[Block]:
    """Everything of one experiment; nothing where it does not steer."""
    if not found:
        return
    yield from vector_blocks(found)
    for sweep in found.sweeps:
        yield from sweep_blocks(sweep, unit)
    for curve in found.curves:
        yield from curve_blocks(curve, unit)
    if found.matches:
        yield from match_blocks(found.matches, unit)
    if found.controls:
        yield from control_blocks(found.controls, scale)
    yield from fired_blocks(found)


def vector_blocks(found: SteeringResults) -> Iterator[Block]:
    """Where the vectors come from, with their norms."""
    yield Heading("Steering vectors")
    rows = []
    for one in found.vectors:
        header = one.header
        if header is None:
            rows.append((Item(one.name), Item(one.problem or "not made yet", "red"), Item(""), Item(""), Item("")))
            continue
        origin = header.provenance
        sides = f"{origin.positive} − {origin.negative}, {origin.tokens} tokens" if origin.positive else ""
        counts = f"{origin.positive_count} + {origin.negative_count}" if origin.positive_count else "—"
        norms = " ".join(number(norm, 2) for norm in header.norms)
        made = origin.how if one.of is None else f"{origin.how} (control of {one.of})"
        rows.append((Item(one.name), Item(made), Item(sides or "—"), Item(counts), Item(norms)))
    yield Table(("vector", "made as", "of", "rows", "norm at each layer"), tuple(rows))


def sweep_blocks(sweep: LayerSweep, unit: str) -> Iterator[Block]:
    """The doses tried at every layer, and the layer picked."""
    yield Heading(f"Layer of {sweep.vector}: {sweep.layer}")
    yield Line(f"Rule: {sweep.rule}.", "dim")
    doses = [point.dose for point in next(iter(sweep.curves.values()))]
    heads = ("layer", *(f"{number(dose or 0.0, 3)}" for dose in doses), "sound alphas", "why it ends there")
    rows = []
    for one in sweep.ranges:
        chosen = "bold" if one.layer == sweep.layer else ""
        means = [Item(_mean(point), chosen) for point in sweep.curves[one.layer]]
        ends = f"{number(one.alpha_low)} … {number(one.alpha_high)}"
        rows.append((Item(str(one.layer), chosen), *means, Item(ends, chosen), Item(one.why, "dim")))
    yield Table(heads, tuple(rows))
    n = next(iter(sweep.curves.values()))[0].n
    yield Line(
        f"Columns: dose, alpha·‖v‖ / RMS of the residual stream; entries: mean {unit} ± half the 95% interval, "
        f"n = {n} a dose.",
        "dim",
    )


def _mean(point: DosePoint) -> str:
    if point.low is None or point.high is None:
        return f"{number(point.mean)} (no interval)"
    return f"{number(point.mean)} ±{number((point.high - point.low) / 2)}"


def curve_blocks(curve: DoseCurve, unit: str) -> Iterator[Block]:
    """The base model's mean, coherence and repetition under every alpha."""
    on = "" if curve.tokens == "all" else f", {curve.tokens} tokens"
    yield Heading(f"Dose-response of the base model: {curve.vector} at layer {curve.layer}{on}")
    rows = []
    for point in curve.points:
        mean = Estimate(point.mean, point.low, point.high, point.n)
        sound = "—" if point.coherence is None else number(point.coherence, 2)
        loops = "—" if point.repetition is None else number(point.repetition, 2)
        rows.append(
            (
                Item(number(point.alpha, 2)),
                Item("—" if point.dose is None else number(point.dose, 3)),
                Item(with_interval(mean)),
                Item(str(point.n)),
                Item(sound),
                Item(loops),
            )
        )
    yield Table(("alpha", "dose", f"mean {unit}", "n", "coherence", "repetition"), tuple(rows))


def match_blocks(matches: tuple[MatchedDose, ...], unit: str) -> Iterator[Block]:
    """The alphas that show the prefix groups' base means."""
    yield Heading("Matched doses: the alpha that shows a prefix group's base mean without the prefix")
    rows = []
    for one in matches:
        label = f"{one.group}" + ("" if one.tokens == "all" else f" ({one.tokens} tokens)")
        if one.alpha is None:
            reach = f"out of reach: {number(one.curve_low)} … {number(one.curve_high)}"
            rows.append((Item(label), Item(with_interval(one.target)), Item(reach, "red"), *(Item("—"),) * 4))
            continue
        low, high = ("beyond the curve" if end is None else number(end, 2) for end in (one.alpha_low, one.alpha_high))
        rows.append(
            (
                Item(label),
                Item(with_interval(one.target)),
                Item(f"{number(one.alpha, 2)} [{low}, {high}]"),
                Item("—" if one.dose is None else number(one.dose, 3)),
                Item(with_interval(one.reached) if one.reached else "not evaluated"),
                Item(with_interval(one.ratio, 2) if one.ratio else "—"),
                Item("—" if one.reached is None else str(one.reached.n)),
            )
        )
    heads = ("group", f"base mean {unit}", "alpha", "dose", "mean under the dose", "dose / prefix", "n")
    yield Table(heads, tuple(rows))


def control_blocks(controls: tuple[ControlEffect, ...], scale: str) -> Iterator[Block]:
    """What control vectors do beside the real one."""
    yield Heading("Controls on the base model, beside the real vector at the same dose")
    rows = []
    for one in controls:
        kept = one.share is not None and one.share.value < CONTROL_LIMIT
        rows.append(
            (
                Item(one.condition),
                Item(one.control),
                Item(with_interval(one.effect, 2) if one.effect else "—"),
                Item(f"{with_interval(one.real_effect, 2)}" if one.real_effect else f"— ({one.real})"),
                Item(with_interval(one.share, 2) if one.share else "—", "" if kept else "yellow"),
            )
        )
    yield Table(("condition", "control", f"effect ({scale})", "the real one's", "share"), tuple(rows))
    yield Line("Share: size of the control's effect over the size of the real one's; a good control stays below ¼.",
               "dim")  # fmt: skip


def fired_blocks(found: SteeringResults) -> Iterator[Block]:
    """The proof that every push fired."""
    if not found.fired:
        return
    calls = sum(one.calls for _, one in found.fired)
    tokens = sum(one.tokens for _, one in found.fired)
    asked = sum(one.tokens_asked for _, one in found.fired)
    jobs = len({label for label, _ in found.fired})
    worst = max((abs(one.change / one.change_asked - 1) for _, one in found.fired if one.change_asked), default=0.0)
    yield Line(
        f"Proof of steering: in {jobs} jobs, {calls:,} hook calls changed {tokens:,} of {asked:,} tokens asked for; "
        f"the mean change differs from what was asked by at most {100 * worst:.2g}%.",
        "dim",
    )
