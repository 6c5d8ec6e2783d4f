"""The plan of a spec's vectors: jobs that make them, choose their layer, measure their doses and solve for alphas."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from windowshift.core.contract.backend import ModelSize
from windowshift.core.contract.conditions import Channel, Condition, NoPrefix
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Tokens, pushed_order
from windowshift.core.contract.prompts import Prompt, set_digest
from windowshift.core.contract.reading import KL_QUANTILE, KL_TOLERANCE
from windowshift.core.contract.records import BASE
from windowshift.core.contract.selective import Selective
from windowshift.core.contract.vector_file import VectorHeader, digest_of, read_header, read_vector
from windowshift.core.plan.grid_checks import pushing
from windowshift.core.plan.job_maker import ConditionIdentity, JobMaker
from windowshift.core.plan.jobs import Job
from windowshift.core.settings.table_file import find_file
from windowshift.core.spec.answered_file import AnsweredFile, read_answered
from windowshift.core.spec.dose import SteeringDose
from windowshift.core.spec.given import GivenData, KeptData, KnownAnswers
from windowshift.core.spec.grid_spec import named
from windowshift.core.spec.spec import Spec
from windowshift.core.spec.spec_errors import did_you_mean
from windowshift.core.spec.vector_spec import CompletionsFile, VectorSpec, control_vector

SWEPT_LAYERS = 8
REFINED_POINTS = 7


class VectorPlanner:
    """Plans the vectors that conditions use; the same vector asked for twice is the same job.

    Args:
        maker: makes the jobs.
        backend: the name of the backend that makes vectors.
        size: the model's.
        folder: where relative files are looked for.

    Attributes:
        files: those that vectors are read from, by digest.
        answered: files of completions, likewise.
        prompts: sets that jobs name besides those of the grid.
        diverging: the backend that measures KL; None: there is none.
    """

    def __init__(self, maker: JobMaker, backend: str, size: ModelSize, folder: Path) -> None:
        self._maker, self._spec, self._backend = maker, maker.spec, backend
        self._layers, self._width, self._folder = size.layers, size.width, folder
        self.files: dict[str, Path] = {}
        self.prompts: list[tuple[Prompt, ...]] = []
        self.diverging: str | None = None
        self.answered: dict[str, AnsweredFile] = {}
        self._made: dict[str, Job] = {}
        self._open: list[str] = []

    def identity(self, condition: SteeringDose, channel: Channel) -> ConditionIdentity:
        """A dose as job inputs have it.

        Raises:
            SpecError: a vector, a layer or a group that is not there, or a file that does not fit.
        """
        vectors: list[dict[str, Any]] = []
        parents: list[str] = []
        for name in condition.vectors:
            made, layer = self.vector(name), self._layer(name, condition.tokens)
            if isinstance(layer, int):
                self._check_direction(name, layer, doses=condition.unit == "dose")
            vectors.append({"vector": made.id, "layer": {"sweep": layer.id} if isinstance(layer, Job) else layer})
            parents += [made.id, *([layer.id] if isinstance(layer, Job) else [])]
        match = None
        if condition.match is not None:
            match = self._match(condition.vectors[0], condition.match, condition.tokens, channel)
            parents.append(match.id)
        found = {**condition.identity(), "vectors": vectors, "match": match.id if match else None}
        if condition.iso_kl is not None:
            solved = self._iso_kl(condition.vectors[0], condition.iso_kl, condition.tokens)
            parents.append(solved.id)
            found["iso_kl"] = solved.id
        return found, tuple(dict.fromkeys(parents))

    def vector(self, name: str) -> Job:
        """The job that makes a vector.

        Raises:
            SpecError: see `identity`.
        """
        if name not in self._made:
            if name in self._open:
                raise SpecError(f"vectors.{name} is made of itself: {' → '.join([*self._open, name])}")
            self._open.append(name)
            self._made[name] = self._make(name, self._entry(name))
            self._open.pop()
        return self._made[name]

    def _entry(self, name: str) -> VectorSpec:
        if name not in self._spec.vectors:
            derived = control_vector(name)
            if derived is not None and derived.of is not None:
                self._entry(derived.of)  # says so where there is no such vector
                return derived
            known = did_you_mean(name, self._spec.vectors) if self._spec.vectors else ": the spec has no 'vectors'"
            raise SpecError(f"there is no vector '{name}'{known}")
        return self._spec.vectors[name]

    # -- making ---------------------------------------------------------------------------------

    def _make(self, name: str, entry: VectorSpec) -> Job:
        inputs: dict[str, Any] = {"backend": self._backend, "model": self._maker.model, "name": name}
        parents: tuple[str, ...]
        if entry.control is not None and entry.of is not None:
            parent = self.vector(entry.of)
            if entry.source is not None:
                self._check_layer(f"vectors.{name}.source", entry.source)
            inputs |= {"how": "control", "control": entry.control, "of": parent.id}
            inputs |= {"seed": entry.seed, "source": entry.source or 0}
            parents = (parent.id,)
        elif entry.combine is not None:
            parts = [(self.vector(part).id, weight) for part, weight in entry.combine.items()]
            inputs |= {"how": "combination", "parts": [list(part) for part in parts]}
            parents = tuple(part for part, _ in parts)
        elif entry.file is not None:
            inputs |= {"how": "file", "digest": self._file(name, entry)}
            parents = ()
        else:
            sides = {side: self._side(name, entry, side) for side in ("positive", "negative")}
            inputs |= {"how": "difference", "tokens": entry.tokens, "min_difference": entry.min_difference, **sides}
            if entry.min_difference is not None:
                inputs |= self._maker.read_scores
            parents = tuple(side["data"] for side in sides.values() if "data" in side)
        return self._maker.add(Job("extract", f"vector {name}", inputs, parents, 1))

    def _side(self, name: str, entry: VectorSpec, side: str) -> dict[str, Any]:
        value = getattr(entry, side)
        where = f"vectors.{name}.{side}"
        if isinstance(value, CompletionsFile):
            found = read_answered(find_file(value.file, self._folder))
            self.answered[found.digest] = found
            return {"file": found.digest, "label": found.name}
        condition = named(value, self._maker.grid.names, where)
        if isinstance(condition, GivenData | KeptData | KnownAnswers | Selective):
            raise SpecError(f"{where}: '{value}' is no condition of its own: name a file of completions, or a prefix")
        if isinstance(condition, SteeringDose):
            raise SpecError(f"{where}: '{value}' is a steering dose; a vector is made of prompts or files")
        prompts = self._maker.drawn.data
        count = min(entry.prompts, len(prompts))
        if count < entry.prompts and "prompts" in entry.model_fields_set:
            raise SpecError(f"vectors.{name}.prompts is {entry.prompts}, but D has {len(prompts)} prompts: lower it")
        place = {"set": set_digest(prompts), "last": len(prompts)}
        channel = "user" if isinstance(condition, NoPrefix) else entry.channel or self._spec.channel.train
        if entry.tokens != "response" and entry.min_difference is None:
            # Prompt tokens need no answers.
            asked = {"condition": condition.identity(), "channel": channel, "prompts": place, "rows": [0, count]}
            self._maker.know(condition)
            return {**asked, "label": condition.name}
        inputs, parents = self._maker.sampled("data", condition, self._spec.seeds[0], channel, place)
        inputs["rows"] = [0, count]
        job = self._maker.add(Job("generate", f"vector {name}: {side}, under {condition.name}", inputs, parents, count))
        self._maker.score(job, count)
        return {"data": job.id, "label": condition.name}

    def _file(self, name: str, entry: VectorSpec) -> str:
        path = find_file(entry.file or "", self._folder)
        if path.suffix in (".pt", ".gguf"):
            raise SpecError(
                f"vectors.{name}.file: {path.name} is another tool's format: make a windowshift vector of it with  "
                f"windowshift vectors import {path} --model {self._spec.model} --out {path.stem}.safetensors"
            )
        try:
            header, numbers = read_vector(path)
            some = next((layer for layer, norm in enumerate(header.norms) if norm > 0), 0)
            layer = entry.layer if isinstance(entry.layer, int) else header.layer
            fingerprint = self._maker.model["fingerprint"]
            header.check(
                fingerprint=fingerprint,
                width=self._width,
                layers=self._layers,
                layer=some if layer is None else layer,
            )
        except SpecError as error:
            raise SpecError(f"vectors.{name}.file: {error}") from error
        # The residual norms say which alpha a dose is: measured anew, they make another vector of the same numbers.
        norms = hashlib.sha256(repr(header.rms).encode()).hexdigest()[:8]
        digest = f"{digest_of(header, numbers)}-{norms}"
        self.files[digest] = path.resolve()
        return digest

    def layer_in_use(self, name: str) -> int | Job:
        """The layer that a vector is used at: a number, or the sweep that chooses it.

        Conditions that push it, or what it has its layer of, on certain tokens alone choose it with these tokens: of
        several kinds the first of `Tokens`. Where no condition does, all are pushed.

        Raises:
            SpecError: there is no such layer, or no direction there.
        """
        grid = self._maker.grid
        conditions = (*grid.generate, *grid.evaluate, *grid.base, *(part.train for part in grid.parts))
        doses = [dose for one in conditions for dose in pushing(one) if isinstance(dose, SteeringDose)]
        root = self._root_name(name)
        asked = {dose.tokens for dose in doses if root in map(self._root_name, dose.vectors)}
        layer = self._layer(name, min(asked, key=pushed_order, default="all"))
        if isinstance(layer, int):
            self._check_direction(name, layer, doses=False)
        return layer

    # -- layer and dose -------------------------------------------------------------------------

    def _layer(self, name: str, tokens: Tokens) -> int | Job:
        """The layer in use: a number, or the sweep that chooses it."""
        entry = self._entry(name)
        if isinstance(entry.layer, int):
            self._check_layer(f"vectors.{name}.layer", entry.layer)
            return entry.layer
        if entry.layer is None and entry.of is not None:
            return self._layer(entry.of, tokens)
        if entry.layer is None and entry.file is not None:
            header = self._header(name)
            if header is not None and header.layer is not None:
                return header.layer
        return self._sweep(name, None, tokens)

    def _check_layer(self, where: str, layer: int) -> None:
        if layer >= self._layers:
            raise SpecError(f"{where} is {layer}, but the model's layers are 0 to {self._layers - 1}")

    def _check_direction(self, name: str, layer: int, *, doses: bool) -> None:
        """Refuse a file's vector, or a control of one, where it has no direction, or no unit to give doses in."""
        header = self._header(name)
        if header is None:
            return
        try:
            header.layer_in_use(layer)
            if doses:
                header.dose_of(1.0, layer)
        except SpecError as error:
            raise SpecError(f"vectors.{name}: {error}") from error

    def _header(self, name: str) -> VectorHeader | None:
        """The header of a vector's file, which its controls share norms with; None where it is yet to be made."""
        entry = self._entry(name)
        if entry.of is not None:
            return self._header(entry.of)
        return None if entry.file is None else read_header(self.files[self.vector(name).inputs["digest"]])

    def _sweep(self, name: str, layer: int | None, tokens: Tokens) -> Job:
        """Tries doses at several layers, or at the one that is set."""
        tried = self._entry(name).calibrate
        # Matching by the curve alone sweeps on all tokens, whatever the condition pushes: such jobs keep their ids.
        tokens = tokens if tried.matching == "refined" else "all"
        layers = [layer] if layer is not None else tried.layers
        if layers is None:
            header = self._header(name)
            there = [one for one in range(self._layers) if header is None or header.norms[one] > 0]
            count = min(SWEPT_LAYERS, len(there))
            layers = [there[round((index + 0.5) * len(there) / count - 0.5)] for index in range(count)]
        for one in layers:
            self._check_layer(f"vectors.{name}.calibrate.layers", one)
            self._check_direction(name, one, doses=True)
        prompts = min(tried.prompts, self._spec.sampling.prompts)
        inputs, parents = self._base_rows(prompts)
        inputs |= {"vector": self.vector(name).id, "layers": layers, "doses": list(tried.doses), "for": "sweep"}
        inputs |= self._maker.read_scores if tokens == "all" else {"tokens": tokens, **self._maker.read_scores}
        total = (1 + len(layers) * len(tried.doses)) * prompts
        job = self._maker.add(
            Job("sweep", f"layers and doses of {name}{_on(tokens)}", inputs, (*parents, self.vector(name).id), total)
        )
        self._maker.score(job, total)
        return job

    def _curve(self, name: str, tokens: Tokens) -> Job:
        """The dose curve at the layer in use."""
        tried = self._entry(name).calibrate
        layer = self._layer(name, tokens)
        sweep = layer if isinstance(layer, Job) else self._sweep(name, layer, tokens)
        prompts = self._spec.sampling.prompts
        inputs, parents = self._base_rows(prompts)
        inputs |= {"vector": self.vector(name).id, "sweep": sweep.id, "tokens": tokens, "for": "dose"}
        inputs |= {"points": tried.points, "reach": tried.reach, **self._maker.read_scores}
        total = (2 * tried.points + 1) * prompts
        parents = (*parents, self.vector(name).id, sweep.id)
        job = self._maker.add(Job("dose", f"dose curve of {name}{_on(tokens)}", inputs, parents, total))
        self._maker.score(job, total)
        return job

    def _base_rows(self, prompts: int) -> ConditionIdentity:
        """Inputs of rows on the base model with the bare prompt."""
        place = self._maker.chosen(self._spec.seeds[0]).evaluation
        inputs, parents = self._maker.sampled("evaluation", NoPrefix(), self._spec.seeds[0], "user", place)
        return {**inputs, "rows": [0, prompts]}, parents

    def _match(self, name: str, group: str, tokens: Tokens, channel: Channel) -> Job:
        """Solves for the alpha whose base mean is a group's; a control takes the alpha of what it controls."""
        real, entry = name, self._entry(name)
        while entry.of is not None:
            real, entry = entry.of, self._entry(entry.of)
        target = named(group, self._maker.grid.names, f"match of vector '{name}'")
        if isinstance(target, SteeringDose):
            raise SpecError(f"match of vector '{name}': '{group}' is a steering dose itself; match a prefix group")
        curve = self._curve(real, tokens)
        seed = self._spec.seeds[0]
        chosen = self._maker.chosen(seed)
        reached = self._maker.evaluate(target, seed, chosen, channel, label=f"{BASE} → {group}, to be matched")
        inputs = {"curve": curve.id, "target": reached.id}
        label = f"alpha of {real} that matches {group}{_on(tokens)}"
        job = self._maker.add(Job("match", label, inputs, (curve.id, reached.id), 1))
        return job if entry.calibrate.matching == "curve" else self._refined(real, target, tokens, channel, job)

    def _refined(self, name: str, target: Condition, tokens: Tokens, channel: Channel, first: Job) -> Job:
        """Solves a matched dose anew: alphas near the first solution, and the target, on development prompts."""
        count = self._entry(name).calibrate.development
        reached = self._undosed(target, count, channel, f"{BASE} → {target.name} on development prompts, to be matched")
        inputs, parents = self._developed(NoPrefix(), count, "user")
        inputs |= {"vector": self.vector(name).id, "match": first.id, "tokens": tokens, "for": "refine"}
        inputs |= {"points": REFINED_POINTS, **self._maker.read_scores}
        total = REFINED_POINTS * count
        parents = (*parents, self.vector(name).id, first.id)
        label = f"doses of {name} near {target.name}{_on(tokens)}"
        near = self._maker.add(Job("dose", label, inputs, parents, total))
        self._maker.score(near, total)
        inputs = {"curve": near.id, "target": reached.id, "refines": first.id}
        return self._maker.add(Job("match", f"{first.label}, refined", inputs, (near.id, reached.id, first.id), 1))

    def _iso_kl(self, name: str, nats: float, tokens: Tokens) -> Job:
        """Solves for the alpha of a KL; a control has one of its own, at the layer of what it controls."""
        if self.diverging is None:
            raise SpecError(
                f"iso_kl of vector '{name}': backend '{self._spec.generate_backend}' does not tell how far a push "
                "takes the model's predictions: write  backend: local,  or  backend: {train: local, generate: ...}"
            )
        made, layer = self.vector(name), self._layer(name, tokens)
        label = f"{BASE} on development prompts, to measure KL on"
        own = self._undosed(NoPrefix(), self._root(name).calibrate.development, "user", label)
        inputs: dict[str, Any] = {"backend": self.diverging, "model": self._maker.model, "vector": made.id}
        inputs |= {"layer": {"sweep": layer.id} if isinstance(layer, Job) else layer, "tokens": tokens, "nats": nats}
        inputs |= {"quantile": KL_QUANTILE, "tolerance": KL_TOLERANCE, "completions": own.id}
        parents = (made.id, *([layer.id] if isinstance(layer, Job) else []), own.id)
        return self._maker.add(Job("iso_kl", f"alpha of {name} with KL {nats:+g}{_on(tokens)}", inputs, parents, 1))

    def _undosed(self, condition: Condition, count: int, channel: Channel, label: str) -> Job:
        """The base model under a condition on development prompts."""
        inputs, parents = self._developed(condition, count, channel)
        job = self._maker.add(Job("evaluate", label, inputs, parents, count))
        self._maker.score(job, count)
        return job

    def _developed(self, condition: Condition, count: int, channel: Channel) -> ConditionIdentity:
        """Inputs of rows of the base model on development prompts."""
        chosen = self._maker.drawn.development[:count]
        if chosen not in self.prompts:
            self.prompts.append(chosen)
        place = {"set": set_digest(chosen), "last": count}
        inputs, parents = self._maker.sampled("development", condition, self._spec.seeds[0], channel, place)
        return {**inputs, "rows": [0, count]}, parents

    def _root(self, name: str) -> VectorSpec:
        """The vector that is no control: itself, or what it controls at last."""
        return self._entry(self._root_name(name))

    def _root_name(self, name: str) -> str:
        of = self._entry(name).of
        return name if of is None else self._root_name(of)


def development_wanted(spec: Spec, conditions: Iterable[Condition]) -> int:
    """How many development prompts solving for the alphas of some conditions takes; 0: none.

    A vector that is not there is no matter here: it is refused where it is planned.
    """
    wanted = [0]
    for condition in conditions:
        if not isinstance(condition, SteeringDose) or (condition.match is None and condition.iso_kl is None):
            continue
        name: str | None = condition.vectors[0]
        entry: VectorSpec | None = None
        seen: set[str] = set()
        while name is not None and name not in seen:
            seen.add(name)
            entry = spec.vectors.get(name) or control_vector(name)
            name = entry.of if entry else None
        tried = entry.calibrate if entry else None
        if tried and (condition.iso_kl is not None or tried.matching == "refined"):
            wanted.append(tried.development)
    return max(wanted)


def _on(tokens: Tokens) -> str:
    return "" if tokens == "all" else f" on {tokens} tokens"
