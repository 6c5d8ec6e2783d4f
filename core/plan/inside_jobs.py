"""The plan of what is read inside the model: the base model, and every fine-tune at the end of its training."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from windowshift.core.contract.conditions import Condition
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Message
from windowshift.core.contract.prompts import Prompt, set_digest
from windowshift.core.contract.records import BASE
from windowshift.core.plan.job_maker import JobMaker
from windowshift.core.plan.jobs import Job
from windowshift.core.plan.vector_jobs import VectorPlanner
from windowshift.core.settings.prompt_source import DrawnPrompts, Prepare, read_prompts
from windowshift.core.settings.table_file import find_file
from windowshift.core.spec.answered_file import read_answered
from windowshift.core.spec.grid_spec import TrainRow
from windowshift.core.spec.inside_section import (
    DriftSection,
    InsidePrompts,
    InsideSection,
    WatchedEntry,
    WatchSection,
)
from windowshift.core.spec.sections import PromptFile
from windowshift.core.spec.spec_errors import did_you_mean

_OF_TRAINING = ("model", "parts", "sft", "seed", "weights", "start")
"""What a training and the gradients of its D have in common."""
MOST_READINGS = 1000
"""How often the texts may be read in one training."""
MOST_TEXTS = 1000
"""Each of them is read each time."""


class InsidePlanner:
    """Makes the jobs of `inside`; they wait for the grid's, and nothing of the grid waits for them.

    Args:
        maker: makes the jobs.
        section: what is to be read.
        backend: the name of the backend that reads along vectors.
        vectors: plans the vectors; None: the spec has none.
        folder: where files of texts are looked for first.
        prompts: that drift is read on; empty: those of the evaluation.

    Attributes:
        watched: the texts to watch, as prompts whose payload has the `completion`, and its `group`.
        prompts: as given.

    Raises:
        SpecError: a vector, a condition or a file that is not there.
    """

    def __init__(
        self,
        maker: JobMaker,
        section: InsideSection,
        backend: str,
        vectors: VectorPlanner | None,
        folder: Path,
        prompts: tuple[Prompt, ...] = (),
    ) -> None:
        self._maker, self._section, self._backend, self.prompts = maker, section, backend, prompts
        self._drift, self._watch = section.drift, section.watch
        self._vectors = self._along(section, vectors) if section.along else {}
        self._layers = {} if vectors is None or section.gradient is None else self._in_use(section, vectors)
        if self._drift is not None:
            self._check_drift(self._drift)
        self.watched = () if self._watch is None else _texts(self._watch, folder)

    def _along(self, section: InsideSection, vectors: VectorPlanner | None) -> dict[str, Job]:
        known = self._maker.spec.vectors
        if vectors is None:
            raise SpecError("inside: there is no vector to read along: add  vectors:  to the spec")
        for name in section.vectors or ():
            if name not in known:
                raise SpecError(f"inside.vectors: there is no vector '{name}'{did_you_mean(name, known)}")
        return {name: vectors.vector(name) for name in section.vectors or known}

    def _in_use(self, section: InsideSection, vectors: VectorPlanner) -> dict[str, int | Job]:
        """The layer of each vector whose gradient is taken along: of controls only where they are named."""
        spec = self._maker.spec
        names = [name for name in self._vectors if section.vectors or spec.vectors[name].of is None]
        return {name: vectors.layer_in_use(name) for name in names}

    def watching(self, total: int) -> dict[str, Any]:
        """What a training of so many examples watches, as its inputs have it.

        Raises:
            SpecError: texts would be read once at most, or too often.
        """
        assert self._watch is not None
        every = self._watch.every
        if every is not None and every >= total:
            raise SpecError(f"inside.watch.every is {every}, but training ends after {total} examples: lower it")
        if every is not None and total // every > MOST_READINGS:
            raise SpecError(f"inside.watch.every {every} comes to more than {MOST_READINGS:,}: take a larger one")
        return {"set": set_digest(self.watched), "at": self._watch.steps(total, self._maker.spec.sft.batch_size)}

    def _check_drift(self, drift: DriftSection) -> None:
        there = {one.name: one for one in self._maker.grid.evaluate}
        for name in drift.conditions:
            if name not in there:
                raise SpecError(
                    f"inside.drift.conditions: '{name}' is not among conditions.evaluate{did_you_mean(name, there)}"
                )
        most = self._maker.spec.sampling.prompts
        if drift.prompts > most and "prompts" in drift.model_fields_set:
            raise SpecError(
                f"inside.drift.prompts is {drift.prompts}, but sampling.prompts is {most}: lower the one, or raise the "
                "other"
            )

    def base(self, seed: int) -> None:
        """What is read in the base model."""
        for condition in self._maker.grid.evaluate:
            self._project(condition, seed, None, f"inside {BASE}, under {condition.name}")

    def tuned(self, row: TrainRow, seed: int, trained: Job, evaluated: Sequence[Condition]) -> None:
        """What is read in the fine-tune of a row, under the eval conditions that it has."""
        for condition in evaluated:
            label = f"inside {row.generate}: {row.train}, under {condition.name}"
            self._project(condition, seed, trained, label)
        for name, layer in self._layers.items():
            self._differentiate(name, layer, row, trained)

    def _differentiate(self, name: str, layer: int | Job, row: TrainRow, trained: Job) -> None:
        """The gradients of the D of a row, or of its last stage, along a vector."""
        assert self._section.gradient is not None
        vector, wanted = self._vectors[name], self._section.gradient
        count = min(wanted.examples, trained.total // trained.inputs["sft"]["epochs"])
        inputs: dict[str, Any] = {
            "backend": self._backend,
            "vector": vector.id,
            "layer": {"sweep": layer.id} if isinstance(layer, Job) else layer,
            "random": wanted.random,
            **{key: trained.inputs[key] for key in _OF_TRAINING if key in trained.inputs},
            "examples": count,
        }
        parents = [*trained.parents, vector.id, *([layer.id] if isinstance(layer, Job) else [])]
        label = f"gradient of {row.generate}: {row.train}, along {name}"
        self._maker.add(Job("gradient", label, inputs, tuple(dict.fromkeys(parents)), count))

    def _project(self, condition: Condition, seed: int, trained: Job | None, label: str) -> None:
        drift = self._drift
        if drift is None or condition.name not in drift.conditions:
            return
        answers = self._answers(condition, seed, trained, label)
        asked = answers.inputs
        count = len(self.prompts) or min(drift.prompts, self._maker.spec.sampling.prompts)
        inputs: dict[str, Any] = {
            "backend": self._backend,
            "model": self._maker.model,
            "vectors": [job.id for job in self._vectors.values()],
            "tokens": drift.tokens,
            "rows": [0, count],
            **{key: asked[key] for key in ("condition", "channel", "prompts", "samples") if key in asked},
            **({"for": "inside"} if self.prompts else {}),
        }
        parents = [job.id for job in self._vectors.values()]
        # Whoever is parent of the answers makes vectors, doses, prompts and the adapter.
        parents += answers.parents
        if drift.tokens == "response":
            inputs["answers"] = self._maker.add(answers).id
            parents.append(answers.id)
        if trained is not None:
            inputs["trained"] = trained.id
        self._maker.add(Job("project", label, inputs, tuple(dict.fromkeys(parents)), count))

    def _answers(self, condition: Condition, seed: int, trained: Job | None, label: str) -> Job:
        """The job that answers the prompts that are read; of prompts of its own it is no part of the plan by itself."""
        maker, step = self._maker, trained.total if trained else 0
        channel = maker.spec.channel.evaluate
        if not self.prompts:
            return maker.evaluate(condition, seed, maker.chosen(seed), channel, label="", parent=trained, step=step)
        place = {"set": set_digest(self.prompts), "last": len(self.prompts)}
        inputs, parents = maker.sampled("inside", condition, seed, channel, place)
        inputs["rows"] = [0, len(self.prompts)]
        if trained is not None:
            inputs["step"] = step
            parents = (*parents, trained.id)
        return Job("evaluate", f"{label}: answers that are read", inputs, parents, len(self.prompts))


def drift_prompts(
    wanted: InsidePrompts, folder: Path, prepare: Prepare, drawn: DrawnPrompts, taken: Collection[Prompt]
) -> tuple[Prompt, ...]:
    """The prompts that drift is read on.

    Args:
        wanted: what the spec says of them.
        folder: where a file is looked for first.
        prepare: what the setting makes of a prompt.
        drawn: the spec's own prompts, of which the last of `development` are for this where there is no file.
        taken: prompts of D and of the evaluation, which a file's are not to be.

    Raises:
        SpecError: the file cannot be read, or has too few others.
    """
    if wanted.file is None:
        return drawn.development[len(drawn.development) - wanted.drawn :]
    path = find_file(wanted.file, folder)
    try:
        read = {(one.turns, one.text): one for one in read_prompts(path, PromptFile(file=wanted.file), prepare)}
    except SpecError as error:
        raise SpecError(f"inside.prompts: {error}") from error
    known = {(one.turns, one.text) for one in (*taken, *drawn.data, *drawn.evaluation, *drawn.development)}
    others = tuple(one for key, one in read.items() if key not in known)
    if len(others) < (wanted.n or 1):
        raise SpecError(
            f"inside.prompts: {path} has {len(others)} distinct prompts besides those of D and of the evaluation "
            f"({len(read) - len(others)}), and drift is to be read on {wanted.n or 'one or more'}: give it others"
        )
    return others[: wanted.n]


def _texts(watch: WatchSection, folder: Path) -> tuple[Prompt, ...]:
    """The texts to watch, in their order.

    Raises:
        SpecError: a file cannot be read, or an answer in it follows no user's message.
    """
    found = [
        one for place, entry in enumerate(watch.texts) for one in _entry(entry, f"inside.watch.texts[{place}]", folder)
    ]
    if len(found) > MOST_TEXTS:
        raise SpecError(f"inside.watch has {len(found):,} texts: at most {MOST_TEXTS:,} are read")
    return tuple(Prompt(f"watched-{number}", *one) for number, one in enumerate(found, 1))


def _entry(entry: WatchedEntry, where: str, folder: Path) -> Iterator[tuple[str, dict[str, str], tuple[Message, ...]]]:
    group = {"group": entry.group} if entry.group else {}
    if entry.file is None:
        yield entry.prompt or "", {"completion": entry.completion or "", **group}, ()
        return
    path = find_file(entry.file, folder)
    try:
        rows = read_answered(path).rows
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error
    for number, (messages, completion) in enumerate(rows, 1):
        if messages[-1].role != "user":
            raise SpecError(f"{where}: text {number} of {path.name} follows no user's message: let it end with one")
        if not completion:
            raise SpecError(f"{where}: text {number} of {path.name} is empty: there is nothing to read")
        yield messages[-1].content, {"completion": completion, **group}, messages[:-1]
