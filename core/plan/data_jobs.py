"""The plan of D: jobs that write it, take it as it is given or keep a part of it, and who is trained on which rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

from windowshift.core.contract.conditions import Channel, Condition
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.prompts import Prompt, set_digest
from windowshift.core.contract.selective import Selective
from windowshift.core.plan.job_maker import Chosen, JobMaker
from windowshift.core.plan.jobs import Job
from windowshift.core.settings.given_rows import GivenRows
from windowshift.core.spec.given import Given, GivenData, KeptData, KnownAnswers
from windowshift.core.spec.grid_spec import TrainRow


class DataPlanner:
    """Plans the data sets that grid rows are trained on.

    Args:
        maker: makes the jobs.
        given: the rows of every D that is given.
    """

    def __init__(self, maker: JobMaker, given: Mapping[Given, GivenRows]) -> None:
        self._maker, self.given = maker, given

    def make(self, seed: int, chosen: Chosen) -> dict[str, Job]:
        """One job a generation condition, over the part of D's prompts that some row needs."""
        wanted: dict[str, tuple[Condition, set[tuple[int, int]]]] = {}
        for row in chain.from_iterable(row.stages for row in self._maker.grid.rows):
            for part, (first, last) in zip(row.parts, self.slices(row), strict=True):
                wanted.setdefault(part.generate.name, (part.generate, set()))[1].add((first, last))
        jobs = {}
        channel = self._maker.spec.channel.generate or self._maker.spec.channel.train
        for name, (condition, spans) in wanted.items():
            first, last = min(span[0] for span in spans), max(span[1] for span in spans)
            if isinstance(condition, KeptData):
                source = self._data(condition.source, (0, self._candidates(condition)), seed, channel, chosen)
                jobs[name] = self._kept(condition, source)
            else:
                jobs[name] = self._data(condition, (first, last), seed, channel, chosen)
        return jobs

    def _data(self, condition: Condition, rows: tuple[int, int], seed: int, channel: Channel, chosen: Chosen) -> Job:
        """The job that has completions of D: those of the base model under a condition, or given ones."""
        if isinstance(condition, GivenData | KnownAnswers):
            given = self.given[condition]
            identity = {**condition.identity(), "given": given.digest}
            identity.pop("data", None)  # where the rows lie changes nothing
            self._maker.know(condition, identity)
            place = {"set": set_digest(given.prompts), "last": len(given.prompts)}
            rows = (0, len(given.prompts))  # all of them, whatever part a mix takes: there is nothing to save
            inputs: dict[str, Any] = {"given": given.digest, "condition": identity, "prompts": place}
            parents: tuple[str, ...] = ()
        else:
            inputs, parents = self._maker.sampled("data", condition, seed, channel, chosen.data)
        inputs["rows"] = list(rows)
        job = self._maker.add(Job("generate", f"data {condition.name}", inputs, parents, rows[1] - rows[0]))
        self._maker.score(job, job.total)
        return job

    def _kept(self, condition: KeptData, source: Job) -> Job:
        """The job that copies the completions of another one that have certain scores."""
        scores = [
            self._maker.score_job(scorer, source, source.total)
            for scorer in self._maker.scorers
            if any(behaviour.name in condition.ranges for behaviour in scorer.behaviours)
        ]
        inputs = {
            "kept": {name: list(ends) for name, ends in condition.ranges.items()},
            "condition": source.inputs["condition"],
            "prompts": source.inputs["prompts"],
            "rows": [0, source.total],
        }
        parents = (source.id, *(job.id for job in scores))
        job = self._maker.add(Job("generate", f"data {condition.name}: what is kept", inputs, parents, source.total))
        self._maker.score(job, job.total)
        return job

    def _candidates(self, condition: Condition) -> int:
        """How many completions a generation condition has at most."""
        if isinstance(condition, KeptData):
            return self._candidates(condition.source)
        given = self.given.get(condition) if isinstance(condition, GivenData | KnownAnswers) else None
        return self._maker.spec.data.size if given is None else len(given.prompts)

    def size(self, row: TrainRow) -> int:
        """How many examples a row is trained on, those that are kept at most."""
        return self._candidates(row.parts[0].generate) if len(row.parts) == 1 else self._maker.spec.data.size

    def slices(self, row: TrainRow) -> list[tuple[int, int]]:
        """The rows of its data that every part of a grid row takes.

        Parts of generated D take the places that they have in the whole; one that is given or kept has places of
        its own, from the first on, and no row is in two parts.
        """
        slices = _cut(row, self.size(row))
        taken: dict[str, int] = {}
        for number, (part, (first, last)) in enumerate(zip(row.parts, slices, strict=True)):
            if not isinstance(part.generate, GivenData | KeptData | KnownAnswers):
                continue
            name, there = part.generate.name, self._candidates(part.generate)
            start = taken.get(name, 0)
            taken[name] = end = start + last - first
            if end > there:
                raise SpecError(
                    f"conditions.train: mix '{row.train}' needs {end} rows of '{name}', which has {there} at most: "
                    "lower data.size, or its fraction"
                )
            slices[number] = (start, end)
        return slices

    def trained_under(self, condition: Condition, data: Job, first: int, last: int) -> list[tuple[Condition, float]]:
        """The conditions that a part of D is trained under, with the share of each.

        A selective one is two, by the labels of the rows at hand; of rows that are kept later, those of all candidates.

        Raises:
            SpecError: no row has a label that it asks for.
        """
        if not isinstance(condition, Selective):
            return [(condition, 1.0)]
        prompts = self._prompts_of(data.inputs["prompts"])
        if "kept" not in data.inputs and "filter" not in data.inputs["prompts"]:
            prompts = prompts[:last]
        else:
            first = 0
        rows = [(place, prompt) for place, prompt in enumerate(prompts) if place >= first]
        for key in condition.where:
            if not any(key in prompt.payload for _, prompt in rows):
                there = ", ".join(dict.fromkeys(key for _, prompt in rows for key in prompt.payload)) or "none"
                raise SpecError(
                    f"conditions.train: '{condition.name}' asks for '{key}', which no row of '{data.label}' has "
                    f"(the labels there are: {there})"
                )
        if not any(condition.matches(prompt) for _, prompt in rows):
            raise SpecError(
                f"conditions.train: '{condition.name}' applies to no row of '{data.label}': "
                + "; ".join(_values(key, [prompt for _, prompt in rows]) for key in condition.where)
            )
        share = sum(condition.applies(prompt, place) for place, prompt in rows) / len(rows)
        found = [(condition.then, share), (condition.otherwise, 1 - share)]
        return [(one, part) for one, part in found if part]

    def _prompts_of(self, place: Mapping[str, Any]) -> Sequence[Prompt]:
        while "filter" in place:
            place = self._maker.jobs[place["filter"]].inputs["prompts"]
        sets = [self._maker.drawn.data, self._maker.drawn.evaluation, *(one.prompts for one in self.given.values())]
        return next(one for one in sets if set_digest(one) == place["set"])


def _values(key: str, prompts: Sequence[Prompt]) -> str:
    """The values that a label has, a few of them."""
    values = list(dict.fromkeys(repr(prompt.payload.get(key)) for prompt in prompts))
    return f"'{key}' is {', '.join(values[:6])}{', ...' if len(values) > 6 else ''}"


def _cut(row: TrainRow, size: int) -> list[tuple[int, int]]:
    """Cut 0 .. size into the row's parts by cumulated fractions, without gap or overlap."""
    edges = [0]
    total = sum(part.fraction for part in row.parts)
    cumulated = 0.0
    for part in row.parts:
        cumulated += part.fraction / total
        edges.append(round(size * cumulated))
    if len(set(edges)) != len(edges):
        raise SpecError(f"conditions.train: mix '{row.train}' has a part of no example at data.size {size}")
    return list(pairwise(edges))
