"""Vector work: extraction jobs as a backend takes them, and what sweeps, dose curves and matches come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from windowshift.core.contract.errors import SpecError, StoreError
from windowshift.core.contract.generation import Completion, Model, TemplateInputs
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.setting import BatchScorer, RowScorer, Sample, Scorer
from windowshift.core.contract.vector_file import read_header
from windowshift.core.contract.vector_job import (
    Answered,
    Combination,
    Control,
    Difference,
    Stored,
    VectorJob,
    VectorSource,
)
from windowshift.core.measure.trials import dose_points, matched, swept
from windowshift.core.plan.jobs import Job
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.requests import RequestMaker
from windowshift.core.run.scoring_workers import ScoringWorkers
from windowshift.core.store.reader import Reader

VECTOR_FILE = "vector.safetensors"


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of a difference: its chats, and the primary behaviour of each answer.

    `unanswered` are the places of those that the model thought about and did not answer.
    """

    answered: Sequence[Answered]
    scores: Sequence[float | None]
    label: str
    unanswered: frozenset[int] = frozenset()


class VectorJobMaker:
    """Turns the vector jobs of one run into those that a backend takes, and their rows into results."""

    def __init__(self, ledger: Ledger, reader: Reader, maker: RequestMaker) -> None:
        self._ledger, self._reader, self._maker = ledger, reader, maker
        self._plan = ledger.plan
        self._behaviour: Behaviour = self._plan.scorers[0].behaviours[0]

    async def vector_job(self, job: Job) -> VectorJob:
        """An extraction job as a backend takes it.

        Raises:
            SpecError: no pair differs as much as asked, or the sides cannot be paired.
            StoreError: completions that the vector is made of are missing.
        """
        named = job.inputs["model"]
        return VectorJob(
            key=job.id,
            name=str(job.inputs["name"]),
            model=Model(
                named["base"],
                named["revision"],
                merged=named.get("adapter"),
                template=TemplateInputs.of(named.get("template")),
            ),
            source=await self._source(job),
            output=self._ledger.artifacts.folder(job.id) / VECTOR_FILE,
        )

    def made(self, job: Job) -> dict[str, Any]:
        """The result of an extraction whose file is there."""
        path = self._ledger.artifacts.folder(job.id) / VECTOR_FILE
        header = read_header(path)
        place = self._ledger.artifacts.put(job.id, str(path))
        found = {"vector": place, "name": header.name, "layers": header.layers, "width": header.width}
        if job.inputs["how"] == "control":
            parent = self._ledger.job(job.inputs["of"])
            found |= {"control": job.inputs["control"], "of": parent.inputs["name"]}
        return found

    def calibrated(self, job: Job) -> dict[str, Any]:
        """The result of a sweep, or of a dose curve, whose rows are all there.

        Raises:
            SpecError: no layer moves the behaviour while the text stays sound.
        """
        trials, number = self._maker.trials(job), self._ledger.numbers[job.id]
        first, last = job.inputs["rows"]
        if job.kind == "sweep":
            vector = self._maker.header(job.inputs["vector"]).name
            on = {"tokens": job.inputs["tokens"]} if "tokens" in job.inputs else {}
            return {"vector": vector, **on, **swept(trials, self._reader, number, last - first, self._behaviour)}
        points = dose_points(trials, self._reader, number, last - first, self._behaviour)
        return {
            "behaviour": self._behaviour.name,
            "vector": self._maker.header(job.inputs["vector"]).name,
            "layer": trials[0].layer,
            "tokens": job.inputs["tokens"],
            "points": [asdict(point) for point in points],
        }

    def match(self, job: Job) -> tuple[dict[str, Any], str | None]:
        """The result of a match, and why it cannot be used: the target may be out of reach.

        Raises:
            SpecError: there is no curve to match on.
        """
        curve, target = (self._ledger.job(job.inputs[name]) for name in ("curve", "target"))
        trials, numbers = self._maker.trials(curve), self._ledger.numbers
        first_row, last = curve.inputs["rows"]
        found = matched(trials, self._reader, numbers[curve.id], last - first_row, numbers[target.id], self._behaviour)
        header, layer = self._maker.header(curve.inputs["vector"]), trials[0].layer
        condition = self._maker.condition(target.inputs["condition"]).name
        result = {
            **asdict(found),
            "vector": header.name,
            "layer": layer,
            "tokens": curve.inputs["tokens"],
            "group": condition,
            "behaviour": self._behaviour.name,
            "dose": None if found.alpha is None else header.dose_of(found.alpha, layer),
        }
        if "refines" in job.inputs:
            first = self._ledger.results[job.inputs["refines"]]
            result |= {"refined": True, "curve_alpha": first["alpha"], "prompts": last - first_row}
        if found.alpha is not None:
            return result, None
        if "refines" in job.inputs:
            return result, (
                f"the dose does not hold on the development prompts: the base model's mean under '{condition}' is "
                f"{found.target.value:.4g} {self._behaviour.unit} there, and the doses near alpha "
                f"{result['curve_alpha']:.4g} go from {found.curve_low:.4g} to {found.curve_high:.4g}; raise "
                "sampling.prompts or calibrate.development, or match by the curve alone (calibrate.matching)"
            )
        return result, (
            f"out of reach: the base model's mean under '{condition}' is {found.target.value:.4g} "
            f"{self._behaviour.unit}, and vector '{header.name}' at layer {layer} goes from {found.curve_low:.4g} to "
            f"{found.curve_high:.4g}; leave it out of match, or raise calibrate.reach"
        )

    async def _source(self, job: Job) -> VectorSource:
        inputs = job.inputs
        if inputs["how"] == "control":
            return Control(self._maker.vector(inputs["of"]), inputs["control"], inputs["seed"], inputs["source"])
        if inputs["how"] == "combination":
            return Combination(tuple((self._maker.vector(part), float(weight)) for part, weight in inputs["parts"]))
        if inputs["how"] == "file":
            return Stored(str(self._plan.vector_files[inputs["digest"]]))
        least, how = inputs["min_difference"], ""
        positive, negative = [
            await self._side(inputs[side], scored=least is not None) for side in ("positive", "negative")
        ]
        positive, negative = _without_unanswered(positive, negative)
        if least is not None:
            positive, negative, how = self._filtered(str(inputs["name"]), positive, negative, float(least))
        labels = (positive.label, negative.label)
        return Difference(positive.answered, negative.answered, inputs["tokens"], labels, how)

    async def _side(self, side: Mapping[str, Any], *, scored: bool) -> _Side:
        if "file" in side:
            rows = self._plan.answered[side["file"]].rows
            samples = [
                Sample(Prompt("", messages[-1].content, turns=tuple(messages[:-1])), Completion("", text, "stop", 0))
                for messages, text in rows
            ]
            return _Side(rows, await _scores(self._plan.scorers[0], samples) if scored else [], side["label"])
        if "data" not in side:
            prompts = self._maker.prompts(side["prompts"])
            first, last = side["rows"]
            pushed = [
                self._maker.push(side["condition"], prompts[at], at, side["channel"]) for at in range(first, last)
            ]
            return _Side([(each.messages, "") for each in pushed], [], side["label"])
        source = self._ledger.job(side["data"])
        prompts, (first, last) = self._maker.prompts(source.inputs["prompts"]), source.inputs["rows"]
        completions = self._reader.completions(self._ledger.numbers[source.id], self._behaviour.name)
        if len(completions) != last - first or any(
            row.finish == "failed" and not row.unanswered for row in completions
        ):
            raise StoreError(f"'{source.label}' has completions missing that a vector is made of; retry it")
        answered = []
        for row in completions:
            at = first + row.row
            condition, channel = source.inputs["condition"], source.inputs["channel"]
            answered.append((self._maker.push(condition, prompts[at], at, channel).messages, row.text))
        missing = frozenset(place for place, row in enumerate(completions) if row.unanswered)
        return _Side(answered, [row.score for row in completions], side["label"], missing)

    def _filtered(self, name: str, positive: _Side, negative: _Side, least: float) -> tuple[_Side, _Side, str]:
        """Keep the pairs whose completions really differ in the primary behaviour."""
        if len(positive.answered) != len(negative.answered):
            raise SpecError(
                f"vector '{name}': min_difference compares pairs, but there are {len(positive.answered)} positive "
                f"and {len(negative.answered)} negative completions"
            )
        kept = [
            index
            for index, (high, low) in enumerate(zip(positive.scores, negative.scores, strict=True))
            if high is not None and low is not None and high - low >= least
        ]
        if not kept:
            raise SpecError(f"vector '{name}': no pair differs by {least:g} {self._behaviour.unit}: lower it")
        how = f"{len(kept)} of {len(positive.answered)} pairs, whose {self._behaviour.name} differ by {least:g} or more"
        return _picked(positive, kept), _picked(negative, kept), how


def _without_unanswered(positive: _Side, negative: _Side) -> tuple[_Side, _Side]:
    """Leave out what has no answer; of two sides that are pairs, the partner too."""
    lacking = [positive.unanswered, negative.unanswered]
    if not any(lacking):
        return positive, negative
    if len(positive.answered) == len(negative.answered):
        lacking = [positive.unanswered | negative.unanswered] * 2
    first, second = (
        _picked(side, [place for place in range(len(side.answered)) if place not in without])
        for side, without in zip((positive, negative), lacking, strict=True)
    )
    return first, second


def _picked(side: _Side, kept: Sequence[int]) -> _Side:
    return _Side(
        [side.answered[index] for index in kept],
        [side.scores[index] for index in kept] if side.scores else [],
        side.label,
    )


async def _scores(scorer: Scorer, samples: Sequence[Sample]) -> list[float | None]:
    """The primary behaviour of answers that nobody sampled here.

    Raises:
        SpecError: a model would have to be asked.
    """
    if not isinstance(scorer, BatchScorer | RowScorer):
        raise SpecError(f"min_difference cannot score a file by '{scorer.name}', which asks a model: leave it out")
    workers = ScoringWorkers(scorer)
    try:
        found = [
            score
            for at in range(0, len(samples), workers.batch_size)
            for score in await workers.score(samples[at : at + workers.batch_size])
        ]
    finally:
        workers.close()
    return [scores[scorer.behaviours[0].name].value for scores in found]
