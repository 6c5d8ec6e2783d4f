"""What the report says of what was read inside the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from windowshift.core.contract.number_format import NumberFormat, number
from windowshift.core.measure.alignment import Alignment
from windowshift.core.measure.drift import Drift
from windowshift.core.measure.inside_results import InsideResults
from windowshift.core.measure.watched import WatchedCourse, WatchedPoint
from windowshift.core.report.page import Block, Heading, Item, Line, Table, compared, matrix

MOST_LAYERS = 8
"""Layers in a table; a figure and the JSON have all of them."""
MOST_POINTS = 6
"""Moments of a training in a table; likewise."""
CHANGE = NumberFormat(3, sign=True)
RELATIVE = NumberFormat(2, sign=True, factor=100)
COSINE = NumberFormat(3, sign=True)
OfRow = Drift | Alignment | WatchedCourse
TOKENS = {
    "last_prompt": "at the last token of the prompt",
    "prompt": "over the tokens of the prompt",
    "response": "over the tokens of the response that each model gave itself",
}


def inside_blocks(found: InsideResults, width: int | None) -> Iterator[Block]:
    """Everything of one experiment; nothing where it reads nothing inside the model."""
    for key in dict.fromkeys((one.vector, one.evaluate) for one in found.drifts):
        yield from drift_blocks([one for one in found.drifts if (one.vector, one.evaluate) == key], width)
    for vector in dict.fromkeys(one.vector for one in found.alignments):
        yield from alignment_blocks([one for one in found.alignments if one.vector == vector])
    for group in dict.fromkeys(one.group for one in found.courses):
        yield from watched_blocks([one for one in found.courses if one.group == group], width)


def alignment_blocks(found: Sequence[Alignment]) -> Iterator[Block]:
    """The alignments of all rows with one vector."""
    first = next((one for one in found if one.layer is not None), found[0])
    at = "" if first.layer is None else f" at layer {first.layer}"
    yield Heading(f"Inside the model: does the gradient of D point along {first.vector}{at}?")
    rows = []
    for one in found:
        if one.cosine is None or one.null is None or one.p is None:
            continue
        low, high = one.null
        outside = "bold" if not low <= one.cosine.value <= high else ""
        rows.append(
            (
                Item(row_name(one, found)),
                Item(COSINE.whole(one.cosine), outside),
                Item(f"{number(low, 3)} … {number(high, 3)}"),
                Item(number(one.p, 3)),
                Item(str(one.cosine.n)),
            )
        )
    if rows:
        yield Table(("trained under", "cos(−gradient, v)", "95% of random ones", "p", "examples"), tuple(rows))
        yield Line(
            "Cosine of the vector with the steepest fall of D's loss on the residual stream, summed over the positions "
            "that write completions, before the first step; above 0, moving along the vector lowers the loss. "
            "Brackets: 95% interval over examples. p: the share, of the vector and "
            f"{max(one.directions for one in found)} random unit directions, that lies as far from 0.",
            "dim",
        )
    for one in found:
        if one.reason:
            yield Line(f"{row_name(one, found)}: no cosine: {one.reason}", "red")
        elif one.unread:
            yield Line(f"{row_name(one, found)}: {_left_out(one.unread, 'example')} had no gradient.", "yellow")


def watched_blocks(found: Sequence[WatchedCourse], width: int | None) -> Iterator[Block]:
    """The courses of one group of texts in all trainings."""
    first = found[0]
    group = f": {first.group}" if first.group else ""
    yield Heading(f"Inside the model: watched texts{group}, in nats a token, while each row trains")
    there = [one for one in found if one.points]
    if there:
        steps = few([point.examples for point in there[0].points], MOST_POINTS)
        rows = []
        for one in there:
            points = {point.examples: point for point in one.points}
            changes = [compared(points[step].change if step in points else None, CHANGE) for step in steps[1:]]
            items = [_begun(points.get(0)), *changes]
            rows.append((f"{row_name(one, found)} ({one.texts - one.unread})", items))
        heads = ["before", *(f"after {step}" for step in steps[1:])]
        table, way = matrix("trained under (texts)", rows, heads, width)
        yield table
        brackets = (
            "Brackets: 95% interval over texts",
            "± half the width of the 95% interval over texts",
            "* the 95% interval over texts leaves out 0",
        )[way]
        yield Line(
            "Log-probability over the tokens of the text, averaged over texts: before the first example, and the "
            f"change since then after so many, paired by text. {brackets}.",
            "dim",
        )
    for one in found:
        if not one.points:
            yield Line(f"{row_name(one, found)}: no log-probability: {one.reason}", "red")
        elif one.unread:
            count = f"{one.unread} of {one.texts} texts"
            yield Line(f"{row_name(one, found)}: {count} could not be read: {one.reason}.", "yellow")


def _begun(point: WatchedPoint | None) -> tuple[Item, ...]:
    if point is None or point.mean is None:
        return (Item("·", "dim"),) * 3
    plain = replace(CHANGE, sign=False)
    text = plain.text(point.mean.value)
    if point.mean.interval is None:
        return (Item(text),) * 3
    half = (point.mean.interval[1] - point.mean.interval[0]) / 2
    return Item(plain.whole(point.mean)), Item(f"{text} ±{plain.text(half)}"), Item(text)


def few(places: Sequence[int], most: int) -> list[int]:
    """At most so many of some places, evenly spaced, the first and the last among them."""
    if len(places) <= most:
        return list(places)
    return sorted({places[round(place * (len(places) - 1) / (most - 1))] for place in range(most)})


def drift_blocks(found: Sequence[Drift], width: int | None) -> Iterator[Block]:
    """The drifts of all fine-tunes along one vector, under one eval condition."""
    first = found[0]
    yield Heading(f"Inside the model: drift along {first.vector}, under {first.evaluate}")
    there = [one for one in found if one.layers]
    if there:
        layers = shown_layers(there[0])
        rows = []
        for one in there:
            items = []
            for layer in layers:
                at = one.at(layer)
                items.append(compared(at.relative if at else None, RELATIVE))
            rows.append((f"{row_name(one, found)} ({one.prompts})", items))
        heads = [f"layer {layer}{' (in use)' if layer == first.layer else ''}" for layer in layers]
        table, way = matrix("trained under (prompts)", rows, heads, width)
        yield table
        brackets = (
            "Brackets: 95% interval, paired by prompt",
            "± half the width of the 95% interval, paired by prompt",
            "* the 95% interval, paired by prompt, leaves out 0",
        )[way]
        apart = ", on prompts of its own" if first.apart else ""
        sizes = " ".join(number(one.rms, 1) for one in there[0].layers)
        yield Line(
            "Fine-tune minus base model, in % of the residual stream: its projection onto the unit vector, "
            f"{TOKENS[first.tokens]}{apart}, over the RMS norm of the base model's stream at the layer. {brackets}. "
            f"RMS norms by layer: {sizes}.",
            "dim",
        )
    for one in found:
        if one.reason:
            yield Line(f"{row_name(one, found)}: no drift: {one.reason}", "red")
        elif one.unread:
            yield Line(f"{row_name(one, found)}: {_left_out(one.unread, 'prompt')} could not be read.", "yellow")


def shown_layers(drift: Drift) -> list[int]:
    """A few layers, evenly spaced, with the one in use among them."""
    there = [one.layer for one in drift.layers if one.shift is not None]
    return sorted({*few(there, MOST_LAYERS)} | {layer for layer in there if layer == drift.layer})


def _left_out(count: int, what: str) -> str:
    return f"{count} {what}{' is' if count == 1 else 's are'} left out, which"


def inside_lines(found: InsideResults) -> Iterator[str]:
    """Everything of one experiment in a sentence each, with n and interval; of drifts, those at the layer in use."""
    for one in found.drifts:
        at = one.at(one.layer) or (one.layers[-1] if one.layers else None)
        name = f"drift of {row_name(one, found.drifts)} along {one.vector}, under {one.evaluate}"
        if at is None or at.relative is None:
            yield f"{name}: none: {one.reason or 'the vector has no direction at its layer'}"
        else:
            value = RELATIVE.whole(at.relative)
            yield f"{name}, at layer {at.layer}: {value} % of the stream's RMS norm (n {one.prompts} prompts)"
    for each in found.alignments:
        name = f"cosine of the gradient of D with {each.vector}, {row_name(each, found.alignments)}"
        if each.cosine is None or each.null is None:
            yield f"{name}: none: {each.reason}"
        else:
            ends = " to ".join(number(end, 3) for end in each.null)
            yield f"{name}: {COSINE.whole(each.cosine)} (n {each.cosine.n} examples; 95 % of random ones: {ends})"
    for course in found.courses:
        group = f" {course.group}" if course.group else ""
        name = f"watched texts{group}, {row_name(course, found.courses)}"
        last = course.points[-1] if course.points else None
        if last is None or last.change is None:
            yield f"{name}: none: {course.reason or 'no text could be read'}"
        else:
            texts = course.texts - course.unread
            yield f"{name}: {CHANGE.whole(last.change)} nats a token after {last.examples} examples (n {texts} texts)"


def row_name(one: OfRow, others: Sequence[OfRow]) -> str:
    """A row of the grid, with its arm and D where they are not the same for all."""
    arm = [one.arm] if len({each.arm for each in others}) > 1 else []
    data = [one.generate] if len({each.generate for each in others}) > 1 else []
    return ": ".join([*arm, *data, one.train])
