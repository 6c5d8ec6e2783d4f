"""Trials: what the rows of a sweep and of a dose curve try on the base model, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.vector_file import VectorHeader
from windowshift.core.measure.calibration import DosePoint, pick_layer
from windowshift.core.measure.grid import PromptScores, arrays
from windowshift.core.measure.matching import Match, match
from windowshift.core.measure.summarise import summary_of
from windowshift.core.settings.soundness import COHERENCE, REPETITION
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class Trial:
    """One alpha at one layer, tried on every prompt; alpha 0 stands for all layers."""

    layer: int
    alpha: float
    dose: float


def sweep_trials(inputs: Mapping[str, Any], header: VectorHeader) -> list[Trial]:
    """What a sweep of these job inputs tries, unsteered first; row r of the job is trial r // n on prompt r mod n.

    Raises:
        SpecError: the vector has no direction at a layer.
    """
    layers, doses = inputs["layers"], inputs["doses"]
    tried = [Trial(layer, header.alpha_of(dose, layer), dose) for layer in layers for dose in doses]
    return [Trial(layers[0], 0.0, 0.0), *tried]


def curve_trials(inputs: Mapping[str, Any], header: VectorHeader, swept: Mapping[str, Any]) -> list[Trial]:
    """What a dose curve tries, in ascending order: evenly over `reach` times the sound range of the sweep."""
    layer, count, reach = int(swept["layer"]), int(inputs["points"]), float(inputs["reach"])
    low, high = reach * float(swept["alpha_low"]), reach * float(swept["alpha_high"])
    alphas = [low * (count - k) / count for k in range(count)] + [high * k / count for k in range(count + 1)]
    return [Trial(layer, alpha, header.dose_of(alpha, layer)) for alpha in alphas]


def refined_trials(inputs: Mapping[str, Any], header: VectorHeader, first: Mapping[str, Any]) -> list[Trial]:
    """What a refinement tries, in ascending order: evenly around the alpha that a curve came to.

    As far as half of it on either side, or twice as far as its interval reaches where that is more: so the target is
    hardly ever missed.
    """
    layer, count, alpha = int(first["layer"]), int(inputs["points"]), float(first["alpha"])
    ends = [end for end in (first["alpha_low"], first["alpha_high"]) if end is not None]
    width = max([abs(alpha) / 2, *(2 * abs(end - alpha) for end in ends)])
    alphas = [alpha + width * (2 * k / (count - 1) - 1) for k in range(count)]
    return [Trial(layer, one, header.dose_of(one, layer)) for one in alphas]


def swept(trials: Sequence[Trial], reader: Reader, job: int, prompts: int, behaviour: Behaviour) -> dict[str, Any]:
    """Choose the layer of a sweep whose rows are all there; the result that the store keeps.

    Raises:
        SpecError: no layer moves the behaviour while the text stays sound.
    """
    points = dose_points(trials, reader, job, prompts, behaviour)
    curves: dict[int, list[DosePoint]] = {}
    for trial, point in zip(trials[1:], points[1:], strict=True):
        curves.setdefault(trial.layer, [points[0]]).append(point)
    choice = pick_layer({layer: sorted(curve, key=_alpha) for layer, curve in curves.items()}, scale=behaviour.scale)
    own = next(one for one in choice.ranges if one.layer == choice.layer)
    # A side on which the first step already breaks the text is still worth half that step.
    first = {side: min(abs(p.alpha) for p in curves[choice.layer] if side * p.alpha > 0) for side in (-1, 1)}
    return {
        "behaviour": behaviour.name,
        "layer": choice.layer,
        "rule": choice.rule,
        "alpha_low": own.alpha_low or -first[-1] / 2,
        "alpha_high": own.alpha_high or first[1] / 2,
        "ranges": [asdict(one) for one in choice.ranges],
        "curves": {str(layer): [asdict(point) for point in sorted(curves[layer], key=_alpha)] for layer in curves},
    }


def dose_points(
    trials: Sequence[Trial], reader: Reader, job: int, prompts: int, behaviour: Behaviour
) -> list[DosePoint]:
    """Means of every trial, with intervals clustered by prompt."""
    # A judge may measure under the name of a soundness score: what the experiment measures comes first.
    measured = {one.name: one for one in (COHERENCE, REPETITION, behaviour)}
    scores = {name: reader.scores(job, name) for name in measured}
    found = []
    for number, trial in enumerate(trials):
        means = {}
        for name, one in measured.items():
            own = scores[name][number * prompts : (number + 1) * prompts]
            means[name] = summary_of(one.scale, own)
        main = means[behaviour.name]
        if main.mean is None:
            raise SpecError(f"no completion under dose {trial.dose:g} at layer {trial.layer} has a score")
        coherence, repetition = means[COHERENCE.name], means[REPETITION.name]
        found.append(
            DosePoint(
                trial.alpha,
                main.mean,
                main.low,
                main.high,
                coherence.mean,
                repetition.mean,
                dose=trial.dose,
                n=main.n,
                truncated=main.truncated,
                coherence_n=coherence.n,
                repetition_n=repetition.n,
            )
        )
    return found


def matched(
    trials: Sequence[Trial], reader: Reader, job: int, prompts: int, target: int, behaviour: Behaviour
) -> Match:
    """Solve the doses of a job for the mean of another job's completions.

    Raises:
        SpecError: the curve cannot be solved at all.
    """
    scores = reader.scores(job, behaviour.name)
    scale = behaviour.scale
    points: list[PromptScores] = [
        arrays(scores[number * prompts : (number + 1) * prompts], scale)[0] for number in range(len(trials))
    ]
    wanted = arrays(reader.scores(target, behaviour.name), scale)[0]
    alphas = [trial.alpha for trial in trials]
    return match(alphas, points, wanted, scale=scale)


def _alpha(point: DosePoint) -> float:
    return point.alpha
