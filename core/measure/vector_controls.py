"""Controls of steering vectors: what they do beside the real one, to the base model and as fine-tunes under them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from windowshift.core.contract.confidence import prediction_interval
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import BASE
from windowshift.core.measure.arm import ArmAxes
from windowshift.core.measure.effect import shown_effect
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.row_measures import by_run
from windowshift.core.measure.sampled import Sampled, combined

SHARE_LIMIT = 0.25
"""A control whose effect is surely below this share of the real one's does next to nothing."""
FEWEST_DIRECTIONS = 10
RANDOM = ("random", "orthogonal")
SAME_DOSE = ("alphas", "span", "match", "iso_kl", "unit", "tokens", "ablate", "prefix")
"""What two conditions along different vectors have in common at the same dose."""

ControlVerdict = Literal["inert", "acts", "opposite", "open"]
NullVerdict = Literal["beyond", "within", "open", "few"]


@dataclass(frozen=True, slots=True)
class ControlEffect:
    """What a control vector does, beside the real one at the same dose.

    Of the base model against itself without a push; or, with `generate`, of a fine-tune under the control, against the
    base model, both without a push. Effects are as they are shown; `share` is the size of the control's over the size
    of the real one's, `difference` the control's minus the real one's. `truncated` counts completions behind either.

    The verdict goes by the ends of intervals. Of a flipped vector: `opposite` where both effects are surely on two
    sides of 0. Of the others: `inert` where the upper end of the share is below a quarter, `acts` where the lower end
    is above. Else it is `open`. None: there is no interval.
    """

    condition: str
    control: str
    real: str
    effect: Estimate | None
    real_effect: Estimate | None
    share: Estimate | None
    generate: str | None = None
    difference: Estimate | None = None
    truncated: int = 0
    verdict: ControlVerdict | None = None


@dataclass(frozen=True, slots=True)
class RandomDirections:
    """A real vector's effect among those of random directions at the same dose: their null distribution.

    `low` and `high` are where 95 of 100 further random directions would lie, in normal theory: mean ± t(k - 1) s
    sqrt(1 + 1/k) over the `directions`. `p` is the rank of the real effect by its distance from their mean, (1 +
    those that are as far) / (1 + k). The verdict goes by the end of the real effect's interval that is nearer to
    them: `beyond` where it lies outside of the range, `within` where the whole interval lies inside, else `open`;
    `few` below ten.
    """

    condition: str
    generate: str | None
    effect: Estimate
    directions: int
    mean: float
    low: float
    high: float
    p: float
    verdict: NullVerdict


def control_effects(controls: Mapping[str, tuple[str, str]], r: Resampled) -> Iterator[ControlEffect]:
    """The controls among an experiment's doses: on the base model, then as fine-tunes.

    Args:
        controls: the kind of each control vector, and the vector that it controls, by its name.
        r: the grid.
    """
    for entry, kind, real in _pairs(r, controls, ("evaluate", "base", "train")):
        own = _of_base(r, entry["name"])
        theirs = _of_base(r, real["name"]) if real else None
        yield _beside(entry, kind, real, controls, own, theirs, None)
    if "steering" not in r.arms:
        return
    arm = ArmAxes(r, "steering")
    for generate in arm.generates:
        for entry, kind, real in _pairs(r, controls, ("train",)):
            if (generate, entry["name"]) in arm.rows and real is not None and (generate, real["name"]) in arm.rows:
                own, theirs = (_of_tuned(arm, generate, one["name"]) for one in (entry, real))
                yield _beside(entry, kind, real, controls, own, theirs, generate)


def random_directions(effects: Sequence[ControlEffect]) -> Iterator[RandomDirections]:
    """The null distribution of every dose that has two random directions beside it or more."""
    groups: dict[tuple[str | None, str], list[ControlEffect]] = {}
    for one in effects:
        if one.control in RANDOM and one.effect is not None and one.real_effect is not None:
            groups.setdefault((one.generate, one.real), []).append(one)
    for (generate, real), group in groups.items():
        values = np.array([one.effect.value for one in group if one.effect is not None])
        effect = group[0].real_effect
        if len(values) > 1 and effect is not None:
            yield _among(real, generate, effect, values)


def _among(real: str, generate: str | None, effect: Estimate, values: Any) -> RandomDirections:
    k, mean, (low, high) = len(values), float(values.mean()), prediction_interval(values)
    as_far = int((np.abs(values - mean) >= abs(effect.value - mean)).sum())
    verdict: NullVerdict = "few" if k < FEWEST_DIRECTIONS else "open"
    if k >= FEWEST_DIRECTIONS and effect.low is not None and effect.high is not None:
        if effect.low > high or effect.high < low:
            verdict = "beyond"
        elif low <= effect.low and effect.high <= high:
            verdict = "within"
    return RandomDirections(real, generate, effect, k, mean, low, high, (1 + as_far) / (1 + k), verdict)


_Found = tuple[Sampled, int]
"""An effect, and how many completions behind it were cut off."""


def _beside(
    entry: Mapping[str, Any],
    kind: str,
    real: Mapping[str, Any] | None,
    controls: Mapping[str, tuple[str, str]],
    own: _Found | None,
    theirs: _Found | None,
    generate: str | None,
) -> ControlEffect:
    share = difference = None
    if own and theirs:
        both = (own[0], theirs[0])
        if theirs[0].there and theirs[0].value:
            share = combined(both, lambda two: np.abs(two[0] / two[1]), n=own[0].n, floor=0.0).estimate
        difference = own[0].minus(theirs[0]).estimate
    effect, other = (one[0].estimate if one else None for one in (own, theirs))
    return ControlEffect(
        entry["name"],
        kind,
        real["name"] if real else f"no condition has '{controls[entry['vectors'][0]][1]}' at this dose",
        effect,
        other,
        share,
        generate,
        difference,
        sum(one[1] for one in (own, theirs) if one),
        _verdict(kind, effect, other, share),
    )


def _verdict(
    kind: str, effect: Estimate | None, other: Estimate | None, share: Estimate | None
) -> ControlVerdict | None:
    if kind == "flipped":
        sides = [_side(one) for one in (effect, other)]
        if None in sides:
            return None
        return "opposite" if sides[0] == -(sides[1] or 0) != 0 else "open"
    if share is None or share.low is None or share.high is None:
        return None
    return "inert" if share.high < SHARE_LIMIT else "acts" if share.low > SHARE_LIMIT else "open"


def _side(one: Estimate | None) -> int | None:
    """The side of 0 on which a number surely lies; 0: on neither, None: there is no interval."""
    if one is None or one.low is None or one.high is None:
        return None
    return 1 if one.low > 0 else -1 if one.high < 0 else 0


def _pairs(
    r: Resampled, controls: Mapping[str, tuple[str, str]], parts: Sequence[str]
) -> Iterator[tuple[Mapping[str, Any], str, Mapping[str, Any] | None]]:
    """The conditions along a control vector, its kind, and the condition along the real one at the same dose."""
    every = [entry for part in parts for entry in r.grid.experiment.conditions.get(part, [])]
    conditions = [entry for entry in every if entry.get("kind") == "steering"]
    for entry in {one["name"]: one for one in conditions}.values():
        known = controls.get(entry["vectors"][0]) if len(entry["vectors"]) == 1 else None
        if known is None:
            continue
        kind, of = known
        real = (
            other
            for other in conditions
            if other["vectors"] == [of] and all(other.get(key) == entry.get(key) for key in SAME_DOSE)
        )
        yield entry, kind, next(real, None)


def _of_base(r: Resampled, condition: str) -> _Found | None:
    """The base model under a condition against the base model without a push, as it is shown."""
    column, plain = r.base_as_trained("steering", condition), _plain(r)
    if column is None or plain is None or not r.done(column) or not r.done(plain):
        return None
    cut = r.tally(column).truncated + r.tally(plain).truncated
    return shown_effect(r.scale, r.compared(column, plain)), cut


def _of_tuned(arm: ArmAxes, generate: str, train: str) -> _Found | None:
    """A fine-tune against the base model, both without a push."""
    evaluate = next((one for one in arm.evaluates if one in arm.plain), None)
    if evaluate is None:
        return None
    plain: str = evaluate

    def of(seed: int | None) -> Sampled:
        column, base = arm.column(generate, train, plain, seed), arm.column("", BASE, plain, seed)
        if column is None or base is None:
            return Sampled(reason="not done yet")
        pair = arm.resampled.compared(column, base)
        return shown_effect(arm.resampled.scale, pair, trained=True) if pair.prompts > 1 else Sampled()

    columns = [arm.column(generate, train, plain, None), arm.column("", BASE, plain, None)]
    return by_run(arm, of), sum(arm.resampled.tally(one).truncated for one in columns if one is not None)


def _plain(r: Resampled) -> int | None:
    """The column of the base model without a push."""
    for entry in r.grid.experiment.conditions.get("evaluate", []):
        if entry.get("kind") == "none" and (found := r.base(entry["arm"], entry["name"], None)) is not None:
            return found
    return None
