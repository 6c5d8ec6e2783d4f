"""What the report says of steering: vectors, the layer picked, dose-response, matched doses and controls."""

from __future__ import annotations

from collections.abc import Iterator

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.number_format import NumberFormat, number
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.truncation import counted_dagger, dagger, dagger_note
from windowshift.core.measure.calibration import DosePoint
from windowshift.core.measure.steering_results import (
    DoseCurve,
    IsoKlDose,
    LayerSweep,
    MatchedDose,
    SteeringResults,
)
from windowshift.core.measure.vector_controls import FEWEST_DIRECTIONS, RandomDirections
from windowshift.core.report.page import Block, Heading, Item, Line, Table, shown, with_interval
from windowshift.core.settings.soundness import COHERENCE, REPETITION

NOTHING_ELSE = SteeringResults()
KL_NOTE = "KL: 95th percentile over tokens of KL(steered ‖ base), nats a token"
BETWEEN = f"{KL_NOTE}, interpolated between the alphas that a search measured"


def steering_blocks(found: SteeringResults, behaviour: Behaviour) -> Iterator[Block]:
    """Everything of one experiment; nothing where it does not steer."""
    if not found:
        return
    yield from vector_blocks(found)
    for sweep in found.sweeps:
        yield from sweep_blocks(sweep, behaviour)
    for curve in found.curves:
        yield from curve_blocks(curve, behaviour, found)
    if found.matches:
        yield from match_blocks(found.matches, behaviour, found)
    if found.iso_kl:
        yield from iso_kl_blocks(found.iso_kl, behaviour)
    if found.controls:
        yield from control_blocks(found, behaviour)
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


def sweep_blocks(sweep: LayerSweep, behaviour: Behaviour) -> Iterator[Block]:
    """The doses tried at every layer, and the layer picked."""
    yield Heading(f"Layer of {sweep.vector}{_on(sweep.tokens)}: {sweep.layer}")
    yield Line(f"Rule: {sweep.rule}.", "dim")
    doses = [point.dose for point in next(iter(sweep.curves.values()))]
    heads = ("layer", *(f"{number(dose or 0.0, 3)}" for dose in doses), "sound alphas", "why it ends there")
    rows = []
    for one in sweep.ranges:
        chosen = "bold" if one.layer == sweep.layer else ""
        means = [Item(_mean(point, behaviour.scale), chosen) for point in sweep.curves[one.layer]]
        ends = f"{number(one.alpha_low)} … {number(one.alpha_high)}"
        rows.append((Item(str(one.layer), chosen), *means, Item(ends, chosen), Item(one.why, "dim")))
    yield Table(heads, tuple(rows))
    n = sorted({point.n for curve in sweep.curves.values() for point in curve})
    counts = str(n[0]) if len(n) == 1 else f"{n[0]} to {n[-1]}"
    cut = any(point.truncated for curve in sweep.curves.values() for point in curve)
    yield Line(
        f"Columns: dose, alpha·‖v‖ / RMS of the residual stream; entries: {behaviour.mean_label} ± half the 95% "
        f"interval, n = {counts} a dose{f'; {_cut_note(behaviour)}' if cut else ''}.",
        "dim",
    )


def _mean(point: DosePoint, scale: Scale) -> str:
    form = scale.words.value_format
    if point.low is None or point.high is None:
        return f"{form.text(point.mean)} (no interval){counted_dagger(point.truncated)}"
    return f"{form.text(point.mean)} ±{form.text((point.high - point.low) / 2)}{counted_dagger(point.truncated)}"


def _cut_note(behaviour: Behaviour) -> str:
    return f"†k: k truncated at the token limit; {behaviour.scale.words.truncated}"


def curve_blocks(curve: DoseCurve, behaviour: Behaviour, found: SteeringResults = NOTHING_ELSE) -> Iterator[Block]:
    """The base model's mean, coherence and repetition under every alpha; its KL where `found` has a search of it."""
    yield Heading(f"Dose-response of the base model: {curve.vector} at layer {curve.layer}{_on(curve.tokens)}")
    rows = []
    kls = [found.kl_at(curve.vector, curve.tokens, point.alpha) for point in curve.points]
    measured = any(kls)
    for point, kl in zip(curve.points, kls, strict=True):
        mean = Estimate(point.mean, point.low, point.high, point.n)
        sound = "—" if point.coherence is None else COHERENCE.scale.words.spread_format.text(point.coherence)
        loops = "—" if point.repetition is None else REPETITION.scale.words.value_format.text(point.repetition)
        rows.append(
            (
                Item(number(point.alpha, 2)),
                Item("—" if point.dose is None else number(point.dose, 3)),
                *([Item(_kl(kl))] if measured else []),
                Item(behaviour.scale.words.value_format.whole(mean) + counted_dagger(point.truncated)),
                Item(str(point.n)),
                Item(sound + _count(point.coherence_n, point.n)),
                Item(loops + _count(point.repetition_n, point.n)),
            )
        )
    heads = ("alpha", "dose", *(["KL"] if measured else []), behaviour.mean_label, "n", "coherence", "repetition")
    yield Table(heads, tuple(rows))
    notes = [BETWEEN] if measured else []
    if any(point.truncated for point in curve.points):
        notes.append(_cut_note(behaviour))
    if any(other not in (None, point.n) for point in curve.points for other in (point.coherence_n, point.repetition_n)):
        notes.append("(k): over k completions only")
    if notes:
        yield Line("; ".join(notes) + ".", "dim")


def _count(own: int | None, n: int) -> str:
    """The completions behind a number, where they are not those of the mean beside it."""
    return "" if own in (None, n) else f" ({own})"


_VERDICTS = {"matched": " =", "off": " x", "open": " ?", None: ""}


def match_blocks(
    matches: tuple[MatchedDose, ...], behaviour: Behaviour, found: SteeringResults = NOTHING_ELSE
) -> Iterator[Block]:
    """The alphas that show the prefix groups' base means; the KL there, where `found` has a search of it."""
    yield Heading("Matched doses: the alpha that shows a prefix group's base mean without the prefix")
    rows, words = [], behaviour.scale.words
    form = words.value_format
    kls = [None if one.alpha is None else found.kl_at(one.vector, one.tokens, one.alpha) for one in matches]
    measured = any(kls)
    for one, kl in zip(matches, kls, strict=True):
        label = f"{one.group}" + ("" if one.tokens == "all" else f" ({one.tokens} tokens)")
        if one.alpha is None:
            reach = f"out of reach: {form.text(one.curve_low)} … {form.text(one.curve_high)}"
            rows.append((Item(label), Item(form.whole(one.target)), Item(reach, "red"), *(Item("—"),) * (4 + measured)))
            continue
        low, high = ("beyond the curve" if end is None else number(end, 2) for end in (one.alpha_low, one.alpha_high))
        rows.append(
            (
                Item(label),
                Item(form.whole(one.target)),
                Item(f"{number(one.alpha, 2)} [{low}, {high}]"),
                Item("—" if one.dose is None else number(one.dose, 3)),
                *([Item(_kl(kl))] if measured else []),
                Item(form.whole(one.reached) + counted_dagger(one.truncated) if one.reached else "not evaluated"),
                Item(words.against_format.whole(one.ratio) + _VERDICTS[one.verdict] if one.ratio else "—"),
                Item("—" if one.reached is None else str(one.reached.n)),
            )
        )
    compared = f"dose {words.against} prefix" + (f",{words.change}" if words.against_format.unit else "")
    dose = ("alpha", "dose", *(["KL"] if measured else []))
    yield Table(("group", f"base {behaviour.mean_label}", *dose, "mean under the dose", compared, "n"), tuple(rows))
    refined = sorted({one.refined_on for one in matches if one.refined_on is not None})
    if refined:
        yield Line(
            f"Alphas are solved anew, near what the curve came to, on {' and '.join(map(str, refined))} prompts that "
            "neither D nor the evaluation has.",
            "dim",
        )
    if measured:
        yield Line(f"{BETWEEN}.", "dim")
    if any(one.verdict for one in matches):
        yield Line(
            "= within ±10% of the prefix's mean (two one-sided tests, 5%); x beyond; ? open, more prompts would tell.",
            "dim",
        )
    if any(one.truncated for one in matches):
        yield Line(f"{_cut_note(behaviour)}.", "dim")


def iso_kl_blocks(doses: tuple[IsoKlDose, ...], behaviour: Behaviour) -> Iterator[Block]:
    """The alphas that take the model's predictions equally far."""
    yield Heading("Doses of equal KL: how far a push takes the base model's predictions, whatever it makes of them")
    rows, form = [], behaviour.scale.words.value_format
    for one in doses:
        label = one.vector + ("" if one.tokens == "all" else f" ({one.tokens} tokens)")
        start = (Item(label), Item(f"{one.nats:+g}".replace("-", "−")))
        if one.alpha is None:
            rows.append((*start, Item(one.problem or "not found", "red"), *(Item("—"),) * 4))
            continue
        low, high = ("not measured" if end is None else number(end, 2) for end in (one.alpha_low, one.alpha_high))
        rows.append(
            (
                *start,
                Item(f"{number(one.alpha, 2)} [{low}, {high}]"),
                Item("—" if one.dose is None else number(one.dose, 3)),
                Item(with_interval(one.kl, 2) if one.kl else "—"),
                Item(form.whole(one.reached) + counted_dagger(one.truncated) if one.reached else "not evaluated"),
                Item(f"{one.prompts}, {one.kl.n:,}" if one.kl else "—"),
            )
        )
    heads = ("vector", "asked", "alpha", "dose", "KL", "mean under the dose", "prompts, tokens")
    yield Table(heads, tuple(rows))
    yield Line(
        f"{KL_NOTE}, on completions that the base model wrote itself; asked: so many nats, with the sign of the push. "
        "Intervals are over prompts.",
        "dim",
    )
    if any(one.truncated for one in doses):
        yield Line(f"{_cut_note(behaviour)}.", "dim")


def _kl(value: float | None) -> str:
    return "—" if value is None else f"{value:.2g}" if value < 1 else f"{value:.2f}"


def _on(tokens: str) -> str:
    return "" if tokens == "all" else f", {tokens} tokens"


_CONTROL_VERDICTS = {
    "inert": ("inert", ""),
    "acts": ("ACTS", "yellow"),
    "opposite": ("opposite", ""),
    "open": ("open", "yellow"),
    None: ("—", "dim"),
}
_NULL_VERDICTS = {
    "beyond": ("beyond them", ""),
    "within": ("NOT beyond", "yellow"),
    "open": ("open", "yellow"),
    "few": (f"fewer than {FEWEST_DIRECTIONS}", "dim"),
}


def control_blocks(found: SteeringResults, behaviour: Behaviour) -> Iterator[Block]:
    """What control vectors do beside the real one: to the base model, as fine-tunes, and random ones all together."""
    words = behaviour.scale.words
    for tuned in (False, True):
        own = [one for one in found.controls if (one.generate is not None) == tuned]
        if not own:
            continue
        several = len({one.generate for one in own}) > 1
        yield Heading(
            "Fine-tunes under controls, without a push, beside those under the real vector at the same dose"
            if tuned
            else "Controls on the base model, beside the real vector at the same dose"
        )
        rows = []
        for one in own:
            word, style = _CONTROL_VERDICTS[one.verdict]
            mark = dagger(one.truncated)
            third = one.difference if tuned else one.share
            rows.append(
                (
                    Item(f"{one.generate}: {one.condition}" if several else one.condition),
                    Item(one.control),
                    Item(shown(one.effect, words.effect_format) + (mark if one.effect else "")),
                    Item(
                        shown(one.real_effect, words.effect_format, missing=f"— ({one.real})")
                        + (mark if one.real_effect else "")
                    ),
                    Item(shown(third, words.effect_format if tuned else NumberFormat(2)) + (mark if third else "")),
                    Item(word, style),
                    Item("—" if one.effect is None else str(one.effect.n)),
                )
            )
        third_head = "control − real" if tuned else "share"
        heads = ("condition", "control", f"effect ({words.effect})", "the real one's", third_head, "verdict", "n")
        yield Table(heads, tuple(rows))
        note = (
            "Effect: the fine-tune against the base model, both without a push; the verdict is of its size over the "
            "real one's, as above."
            if tuned
            else "Share: size of the control's effect over the size of the real one's. The verdict goes by the ends of "
            "its interval: inert where the upper one is below ¼, acts where the lower one is above; a flipped vector "
            "is opposite where both effects are surely on two sides of 0."
        )
        yield Line(note, "dim")
        if any(one.truncated for one in own):
            yield Line(f"{dagger_note(behaviour.scale)}.", "dim")
    yield from random_blocks(found.random, behaviour)


def random_blocks(found: tuple[RandomDirections, ...], behaviour: Behaviour) -> Iterator[Block]:
    """Each real effect among those of random directions."""
    if not found:
        return
    form = behaviour.scale.words.effect_format
    yield Heading("Among random directions at the same dose")
    rows = []
    for one in found:
        word, style = _NULL_VERDICTS[one.verdict]
        label = one.condition if one.generate is None else f"{one.condition}, fine-tune on {one.generate}"
        rows.append(
            (
                Item(label),
                Item(shown(one.effect, form)),
                Item(f"{form.text(one.mean)} ({form.text(one.low)} … {form.text(one.high)})"),
                Item(str(one.directions)),
                Item(f"{one.p:.2g}"),
                Item(word, style),
            )
        )
    yield Table(("condition", "effect", "random: mean (range)", "directions", "rank p", "verdict"), tuple(rows))
    yield Line(
        "Range: where 95 of 100 further random directions would lie (t, over directions). The verdict goes by the end "
        "of the effect's interval that is nearer to it: beyond where it is outside. Rank p: (1 + directions as far "
        "from their mean) / (1 + directions).",
        "dim",
    )


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
