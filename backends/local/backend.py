"""Backend `local`: any causal LM that transformers loads, on this machine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from windowshift.backends.local.accelerators import may_have_several, refuse_without_cuda
from windowshift.backends.local.architecture_limits import notes, unsupported
from windowshift.backends.local.given_up import GivenUp
from windowshift.backends.local.libraries import require_libraries
from windowshift.backends.local.model_folder import (
    Stamp,
    identify,
    locate,
    model_config,
    model_context,
    model_size,
    stamp,
    tiny,
)
from windowshift.backends.local.options import LocalOptions
from windowshift.backends.local.portions import portions
from windowshift.backends.local.run_memory import RunMemory
from windowshift.backends.local.turns import Turns
from windowshift.backends.shared.refusal import failed, library_reason
from windowshift.core.contract.assets import is_embedded
from windowshift.core.contract.backend import Capabilities, ModelIdentity, ModelSize, TemplateReport
from windowshift.core.contract.errors import BackendError, WindowshiftError
from windowshift.core.contract.generation import (
    Completion,
    GenerateRequest,
    Message,
    Model,
    TemplateInputs,
    WrittenPiece,
)
from windowshift.core.contract.inside import InsideEvent, InsideJob
from windowshift.core.contract.memory import MemoryAsked, MemoryForecast
from windowshift.core.contract.reading import Divergence, Reading, ReadRequest
from windowshift.core.contract.training import TrainEvent, TrainJob
from windowshift.core.contract.vector_job import VectorEvent, VectorFailed, VectorJob, VectorMade

if TYPE_CHECKING:
    from windowshift.backends.local.causal_lm import CausalLM
    from windowshift.backends.local.chat_format import ChatFormat
    from windowshift.backends.local.crew import Crew
    from windowshift.backends.local.post import Executor
    from windowshift.backends.local.shared_batch import SharedBatch
    from windowshift.backends.local.stack import Stack

_Workers = Literal["core", "gpu", "ray", "slurm"]
"""Where workers are: one a core or a GPU of this machine, on a cluster, or in jobs of a scheduler."""
T = TypeVar("T")


class LocalBackend:
    """Trains LoRA adapters and samples from them, in this process.

    A thread computes, one step of one stream at a time; streams take turns, so that adapters can be
    sampled from while another one trains. Nothing blocks the event loop. Torch is imported at the
    first use, not with this module.

    Requests that cannot be answered come back as ``failed`` completions and jobs that cannot be
    trained as `TrainFailed`, with the sentence that says why: the others go on.
    """

    capabilities = Capabilities(
        trains=True,
        generates=True,
        steers=True,
        system_channel=True,
        checkpoints=True,
        logprobs=True,
        seeds=True,
        leaves_peft=True,
        loads_peft=True,
        merges_peft=True,
        weighs=True,
        continues=True,
        watches=True,
    )

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._options = LocalOptions.parse(options or {})
        self._models: dict[tuple[str, str | None, str | None, Stamp], CausalLM] = {}
        self._formats: dict[tuple[str, str | None, Stamp], ChatFormat] = {}
        self._broken: dict[tuple[str, str | None, str | None, Stamp], BackendError] = {}
        self._turns = Turns()
        self._crews: dict[_Workers, Crew] = {}
        self._stack: Stack | None = None
        self._memory = RunMemory(self._options)
        self._given_up = GivenUp()
        self._batches: dict[CausalLM, dict[bool, SharedBatch]] = {}

    def identify(self, base: str, revision: str | None = None) -> ModelIdentity:
        """Name a model without loading its weights, or torch.

        Raises:
            BackendError: the model cannot be found, a folder is not a model, its configuration tells that it
                cannot be sampled here, or an option needs a device that is not there.
        """
        refuse_without_cuda(self._options)
        found = identify(base, revision)
        if self._options.quantise != "none":  # other weights give other results
            found = replace(found, fingerprint=f"{found.fingerprint}:{self._options.quantise}")
        if locate(base) is None and "commit" not in found.details:
            return found  # nobody can look at its configuration
        config = model_config(base, revision)
        reason = unsupported(config)
        if reason is not None:
            raise BackendError(f"'{base}' cannot be sampled by backend 'local': {reason}")
        return replace(found, details={**found.details, "notes": (*found.details.get("notes", ()), *notes(config))})

    def machine(self) -> tuple[str, ...]:
        """The GPUs, their memory and what is compiled, a line each."""
        from windowshift.backends.local.accelerators import machine

        return machine()

    def supports_system(self, base: str, revision: str | None = None) -> bool:
        """Whether the model's chat template passes on a system message; loads the tokenizer only.

        Raises:
            BackendError: the tokenizer cannot be loaded.
        """
        require_libraries()
        return self._chat(base, revision).supports_system

    def template(self, base: str, revision: str | None, inputs: TemplateInputs) -> TemplateReport:
        """Try the model's chat template on every role; loads the tokenizer only, and not the embedded model's.

        Raises:
            BackendError: the tokenizer cannot be loaded.
        """
        if is_embedded(base) and not inputs.switches:
            return TemplateReport({})  # this project's own, and its tests try it
        require_libraries()
        from windowshift.backends.local.template_check import check_template

        return check_template(self._chat(base, revision).reading(inputs), inputs)

    def context(self, base: str, revision: str | None = None) -> int | None:
        """Tokens of prompt and completion together, from the configuration alone; None where it names none.

        Raises:
            BackendError: the configuration cannot be found.
        """
        return model_context(base, revision)

    def count_tokens(
        self,
        base: str,
        revision: str | None,
        inputs: TemplateInputs | None,
        chats: Sequence[tuple[Sequence[Message], str]],
    ) -> list[int]:
        """The tokens of each chat, with its answer where that is not empty; loads the tokenizer only.

        Raises:
            BackendError: the tokenizer cannot be loaded, or the template refuses a chat.
        """
        require_libraries()
        return self._chat(base, revision).reading(inputs).counts(chats)

    def _chat(self, base: str, revision: str | None) -> ChatFormat:
        """The chat format, loaded once as long as the model's files stay as they are."""
        from windowshift.backends.local.tokenizer import load_chat_format

        key = (base, revision, stamp(base))
        if key not in self._formats:
            self._formats[key] = load_chat_format(base, revision)
        return self._formats[key]

    def size(self, base: str, revision: str | None = None) -> ModelSize:
        """Layers and width, from the configuration alone.

        Raises:
            BackendError: the configuration cannot be found, or does not say.
        """
        return model_size(base, revision)

    def memory(self, base: str, revision: str | None, asked: MemoryAsked) -> MemoryForecast | None:
        """What a run takes of the memory, from the model's configuration; None of a very small one: under a GiB.

        Raises:
            BackendError: the configuration cannot be had, or transformers knows no such model.
        """
        return self._memory.forecast(base, revision, asked)

    def expect(self, base: str, revision: str | None, asked: MemoryAsked) -> None:
        """A run is to ask for so much: `aclose` logs what it took beside what was predicted."""
        self._memory.expect(base, revision, asked)

    def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        """Answer all requests; rows of any adapters, doses and calls share the decode batch of a base."""
        crew = self._crew_for([request.model for request in requests])
        if crew is not None:
            return crew.stream("generate", portions(requests, crew.size))
        return self._turns.stream(lambda: _completions(self._answers(requests)), "generate")

    def stream(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion | WrittenPiece, None]:
        """As `generate`, with pieces of what is written while it is written; see `give_up`."""
        self._given_up.begin([request.key for request in requests])  # now: it may be given up before its first step
        return self._streamed(requests)

    async def _streamed(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion | WrittenPiece, None]:
        crew = self._crew_for([request.model for request in requests])
        found: AsyncGenerator[Completion | WrittenPiece, None]
        if crew is not None:
            found = crew.stream("stream", portions(requests, crew.size), self._given_up)
        else:
            found = self._turns.stream(lambda: self._answers(requests, self._given_up), "stream")
        try:
            async with aclosing(found):
                async for each in found:
                    yield each
        finally:
            self._given_up.end([request.key for request in requests])

    def give_up(self, keys: Sequence[str]) -> None:
        """End the work on requests of `stream` that nobody waits for any more."""
        known = self._given_up.add(keys)
        for crew in self._crews.values() if known else ():
            crew.give_up(known)

    def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        """Train all jobs on one copy of the base weights a process, in common passes."""
        crew = self._crew_for([job.model for job in jobs])
        if crew is not None:
            return crew.stream("train", [[job] for job in jobs])
        return self._turns.stream(lambda: self._trainings(jobs), "train")

    def make_vectors(self, jobs: Sequence[VectorJob]) -> AsyncGenerator[VectorEvent, None]:
        """Make all vectors, one after another."""
        crew = self._crew_for([job.model for job in jobs])
        if crew is not None:
            return crew.stream("make_vectors", [[job] for job in jobs])
        return self._turns.stream(lambda: self._vectors(jobs), "vectors")

    def look_inside(self, jobs: Sequence[InsideJob]) -> AsyncGenerator[InsideEvent, None]:
        """Read activations of the base model and of adapters, one job after another."""
        crew = self._crew_for([job.model for job in jobs])
        if crew is not None:
            return crew.stream("look_inside", [[job] for job in jobs])
        return self._turns.stream(lambda: self._inside(jobs), "vectors")

    def read(self, requests: Sequence[ReadRequest]) -> AsyncGenerator[Reading, None]:
        """Read all answers, those of one model together."""
        return self._turns.stream(lambda: self._readings(requests), "vectors")

    def diverge(self, requests: Sequence[ReadRequest]) -> AsyncGenerator[Divergence, None]:
        """Read all answers with and without their steering, those of one model together."""
        return self._turns.stream(lambda: self._divergences(requests), "vectors")

    async def aclose(self) -> None:
        """End all streams and release models, the thread and the workers."""
        for crew in self._crews.values():
            await crew.aclose()
        await self._turns.aclose()
        await asyncio.to_thread(self._memory.say)
        self._models.clear()
        if self._stack is not None:
            await asyncio.to_thread(self._stack.close)
        self._batches.clear()
        self._stack = None

    def _crew_for(self, models: Sequence[Model]) -> Crew | None:
        """The workers, where there are to be any: one a core for very small models, one a GPU, or on other machines."""
        kind = self._kind_of_workers(models)
        if kind is not None and kind not in self._crews:
            executor = self._executor(kind)
            if executor is None:
                return None
            from windowshift.backends.local.crew import Crew

            self._crews[kind] = Crew(executor)
        return None if kind is None else self._crews[kind]

    def _kind_of_workers(self, models: Sequence[Model]) -> _Workers | None:
        options = self._options
        if options.executor != "machine":
            return options.executor
        if options.device not in ("auto", "cpu", "cuda") or options.workers == 1:
            return None
        if options.device != "cuda" and all(tiny(model.base, model.revision) for model in models):
            return "core"  # processes serve such a model better than threads
        if options.device == "cpu" or options.device_map != "none":
            return None
        return "gpu"

    def _executor(self, kind: _Workers) -> Executor | None:
        """Who has posts for workers of a kind; None where there is room for one alone, which this process is."""
        # What a person chose holds in the workers too.
        options = {**self._options.model_dump(exclude={"executor", "ray", "slurm"}), "workers": 1}
        if kind == "ray":
            from windowshift.backends.local.cluster.ray_executor import RayExecutor

            return RayExecutor(self._options.ray, self._options.workers, options)
        if kind == "slurm":
            from windowshift.backends.local.cluster.slurm_executor import SlurmExecutor

            return SlurmExecutor(self._options.slurm, self._options.workers or 1, options)
        from windowshift.backends.local.process_executor import ProcessExecutor

        if kind == "core":
            size = self._options.workers or os.cpu_count() or 1
            return None if size < 2 else ProcessExecutor(size, {**options, "threads": 1})
        if not may_have_several():
            return None  # torch is imported in the thread that computes: here it would hold up the event loop
        require_libraries()
        import torch

        count = torch.cuda.device_count()
        size = min(self._options.workers or count, count)
        return None if size < 2 else ProcessExecutor(size, options, [f"cuda:{number}" for number in range(size)])

    def _answers(
        self, requests: Sequence[GenerateRequest], given_up: GivenUp | None = None
    ) -> Iterator[list[Completion | WrittenPiece]]:
        require_libraries(steering=any(request.steering for request in requests))
        groups: dict[Model, list[GenerateRequest]] = {}
        for request in requests:
            # What rows of one batch need not have in common.
            model = replace(request.model, adapter=None, template=None)
            groups.setdefault(model, []).append(request)
        for model, group in groups.items():
            yield from self._group(model, group, given_up)

    def _group(
        self, model: Model, group: Sequence[GenerateRequest], given_up: GivenUp | None
    ) -> Iterator[list[Completion | WrittenPiece]]:
        from windowshift.backends.local.answers import answers

        try:
            lm = self._model(model)
            yield []
            if lm.sampling_fault is not None:
                raise BackendError(lm.sampling_fault)
            yield from answers(lm, self._batch(lm, streams=given_up is not None), group, given_up)
        except WindowshiftError as error:
            yield [failed(request, str(error)) for request in group]
        except Exception as error:  # a library may raise anything before the first row is drawn
            yield [failed(request, f"'{model.base}' failed: {library_reason(error)}") for request in group]

    def _batch(self, lm: CausalLM, *, streams: bool) -> SharedBatch:
        """The decode batch of all calls of `generate`, or of all of `stream`, whose readers wait for each word."""
        from windowshift.backends.local.shared_batch import SharedBatch

        batches = self._batches.setdefault(lm, {})
        if streams not in batches:
            batches[streams] = SharedBatch(lm, self._options.batch_rows, fair=streams)
        return batches[streams]

    def _trainings(self, jobs: Sequence[TrainJob]) -> Iterator[list[TrainEvent]]:
        require_libraries(steering=any(example.steering for job in jobs for example in job.examples))
        from windowshift.backends.local.stack import Stack

        if self._stack is None:
            self._stack = Stack(self._model, self._options.state_seconds, self._options.progress_seconds)
        yield from self._stack.train(jobs)

    def _vectors(self, jobs: Sequence[VectorJob]) -> Iterator[list[VectorEvent]]:
        require_libraries(steering=True)
        from windowshift.backends.local.vector_maker import make_vector

        for job in jobs:
            try:
                lm = self._model(job.model)
                yield []
                make_vector(lm, job)
                yield [VectorMade(job.key)]
            except WindowshiftError as error:
                yield [VectorFailed(job.key, str(error))]
            except Exception as error:  # a library may raise anything, and the other jobs go on
                yield [VectorFailed(job.key, f"vector '{job.name}' could not be made: {library_reason(error)}")]

    def _inside(self, jobs: Sequence[InsideJob]) -> Iterator[list[InsideEvent]]:
        require_libraries(steering=True)
        from windowshift.backends.local.looking_inside import looked

        yield from looked(jobs, self._model)

    def _readings(self, requests: Sequence[ReadRequest]) -> Iterator[list[Reading]]:
        require_libraries(steering=any(request.steering for request in requests))
        from windowshift.backends.local.reading import readings

        return self._read(requests, readings, lambda request, error: Reading(request.key, None, error=error))

    def _divergences(self, requests: Sequence[ReadRequest]) -> Iterator[list[Divergence]]:
        require_libraries(steering=True)
        from windowshift.backends.local.reading import divergences_of

        return self._read(requests, divergences_of, lambda request, error: Divergence(request.key, None, error))

    def _read(
        self,
        requests: Sequence[ReadRequest],
        read: Callable[[CausalLM, Sequence[ReadRequest]], Iterator[list[T]]],
        unread: Callable[[ReadRequest, str], T],
    ) -> Iterator[list[T]]:
        groups: dict[Model, list[ReadRequest]] = {}
        for request in requests:
            groups.setdefault(request.model, []).append(request)
        for model, group in groups.items():
            try:
                lm = self._model(model)
            except WindowshiftError as error:
                yield [unread(request, str(error)) for request in group]
            else:
                yield from read(lm, group)

    def _model(self, model: Model) -> CausalLM:
        """The loaded model; what cannot be loaded is not tried again."""
        from windowshift.backends.local.causal_lm import load

        place = (model.base, model.revision, model.merged)
        key = (*place, stamp(model.base))  # a folder may hold another model by now
        if key in self._broken:
            raise self._broken[key]
        if key not in self._models:
            for other in [each for each in self._models if each[:3] == place]:
                self._batches.pop(self._models.pop(other), None)
            self._memory.loading()
            try:
                self._models[key] = load(model.base, model.revision, self._options, model.merged)
            except BackendError as error:
                self._broken[key] = error
                raise
            self._memory.loaded(self._models[key].device)
        return self._models[key]


def _completions(found: Iterator[list[Completion | WrittenPiece]]) -> Iterator[list[Completion]]:
    """Without pieces, of which there are none where nobody is told of them."""
    for some in found:
        yield [each for each in some if isinstance(each, Completion)]
