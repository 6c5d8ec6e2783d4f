"""Backend `local`: any causal LM that transformers loads, on this machine."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from windowshift.backends.local_options import LocalOptions
from windowshift.backends.model_folder import TINY_BYTES, identify, weight_bytes
from windowshift.backends.turns import Turns
from windowshift.core.backend import (
    Capabilities,
    Completion,
    GenerateRequest,
    Model,
    ModelIdentity,
    TrainEvent,
    TrainFailed,
    TrainJob,
)
from windowshift.core.errors import BackendError, MissingExtraError, WindowshiftError

if TYPE_CHECKING:
    from windowshift.backends.causal_lm import CausalLM
    from windowshift.backends.crew import Crew
    from windowshift.backends.sampler import Decoded, Row

PORTION_ROWS = 400
_LIBRARIES = ("torch", "transformers", "peft", "safetensors")


class LocalBackend:
    """Trains LoRA adapters and samples from them, in this process.

    A thread computes, one step of one stream at a time; streams take turns, so that adapters can be
    sampled from while another one trains. Nothing blocks the event loop. Torch is imported at the
    first use, not with this module.

    Requests that cannot be answered come back as ``failed`` completions and jobs that cannot be
    trained as `TrainFailed`, with the sentence that says why: the others go on.
    """

    capabilities = Capabilities(trains=True, generates=True, checkpoints=True, system_channel=True, seeds=True)

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._options = LocalOptions.parse(options or {})
        self._models: dict[tuple[str, str | None], CausalLM] = {}
        self._broken: dict[tuple[str, str | None], BackendError] = {}
        self._turns = Turns()
        self._crew: Crew | None = None

    def identify(self, base: str, revision: str | None = None) -> ModelIdentity:
        """Name a model without loading its weights, or torch.

        Raises:
            BackendError: the model cannot be found, or a folder is not a model.
        """
        return identify(base, revision)

    def supports_system(self, base: str, revision: str | None = None) -> bool:
        """Whether the model's chat template passes on a system message; loads the tokenizer only.

        Raises:
            BackendError: the tokenizer cannot be loaded.
        """
        _require_libraries()
        from windowshift.backends.causal_lm import load_chat_format

        return load_chat_format(base, revision).supports_system

    def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        """Answer all requests, those of one model and adapter together, in order of appearance."""
        crew = self._crew_for([request.model for request in requests])
        if crew is not None:
            return crew.stream("generate", portions(requests, crew.size))
        return self._turns.stream(lambda: self._answers(requests))

    def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        """Train all jobs on one copy of the base weights a process."""
        crew = self._crew_for([job.model for job in jobs])
        if crew is not None:
            return crew.stream("train", [[job] for job in jobs])
        return self._turns.stream(lambda: self._trainings(jobs))

    async def aclose(self) -> None:
        """End all streams and release models, the thread and the workers."""
        if self._crew is not None:
            await self._crew.aclose()
        await self._turns.aclose()
        self._models.clear()

    def _crew_for(self, models: Sequence[Model]) -> Crew | None:
        """The workers, where every model is so small that processes serve it better than threads."""
        size = self._options.workers or os.cpu_count() or 1
        if size < 2 or self._options.device not in ("auto", "cpu") or not all(_tiny(model) for model in models):
            return None
        if self._options.device == "auto" and _cuda():
            return None
        if self._crew is None:
            from windowshift.backends.crew import Crew

            # asdict: what a person chose holds in the workers too.
            self._crew = Crew(size, {**asdict(self._options), "workers": 1, "threads": 1})
        return self._crew

    def _answers(self, requests: Sequence[GenerateRequest]) -> Iterator[list[Completion]]:
        _require_libraries()
        groups: dict[Model, list[GenerateRequest]] = {}
        for request in requests:
            groups.setdefault(request.model, []).append(request)
        for model, group in groups.items():
            yield from self._group(model, group)

    def _group(self, model: Model, group: Sequence[GenerateRequest]) -> Iterator[list[Completion]]:
        from windowshift.backends.sampler import decode

        try:
            lm = self._model(model.base, model.revision)
            yield []
            forward = lm.sampling_forward(model.adapter)
        except WindowshiftError as error:
            yield [_failed(request, str(error)) for request in group]
            return
        refused: list[Completion] = []
        # A key may come twice: rows are told apart by their place in the group.
        rows = _rows(lm, group, refused)
        decoded = decode(
            forward,
            rows,
            end_ids=lm.end_ids,
            cache_layers=lm.cache_layers,
            batch_rows=self._batch_rows(lm),
            device=lm.device,
        )
        left = set(range(len(group)))
        try:
            for found in decoded:
                ready = list(refused)
                refused.clear()
                for each in found:
                    left.discard(each.row.index)
                    ready.append(_completion(lm, group[each.row.index], each))
                yield ready
        except (RuntimeError, MemoryError) as error:
            refused.clear()
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            sentence = f"'{lm.label}' failed while decoding: {reason}"
            if "memory" in reason.lower():
                sentence += "; lower the option batch_rows of backend 'local'"
            yield [_failed(group[index], sentence) for index in sorted(left)]
            return
        yield list(refused)

    def _batch_rows(self, lm: CausalLM) -> int:
        if self._options.batch_rows:
            return self._options.batch_rows
        if lm.device.type == "cuda":
            return 64
        return 128 if lm.exact else 16

    def _trainings(self, jobs: Sequence[TrainJob]) -> Iterator[list[TrainEvent]]:
        _require_libraries()
        from windowshift.backends.sft import train

        for job in jobs:
            try:
                lm = self._model(job.model.base, job.model.revision)
                yield []
                yield from train(lm, job, self._options.state_seconds, self._options.progress_seconds)
            except WindowshiftError as error:
                yield [TrainFailed(job.key, str(error))]
            except (RuntimeError, MemoryError, OSError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                yield [TrainFailed(job.key, f"training of '{job.model.base}' failed: {reason}")]

    def _model(self, base: str, revision: str | None) -> CausalLM:
        """The loaded model; what cannot be loaded is not tried again."""
        from windowshift.backends.causal_lm import load

        key = (base, revision)
        if key in self._broken:
            raise self._broken[key]
        if key not in self._models:
            try:
                self._models[key] = load(base, revision, self._options)
            except BackendError as error:
                self._broken[key] = error
                raise
        return self._models[key]


def portions(requests: Sequence[GenerateRequest], workers: int) -> list[list[GenerateRequest]]:
    """Cut requests into portions for workers: one model each, in order of appearance."""
    groups: dict[Model, list[GenerateRequest]] = {}
    for request in requests:
        groups.setdefault(request.model, []).append(request)
    found: list[list[GenerateRequest]] = []
    for group in groups.values():
        # Small enough that all workers have something, large enough that the last rows of a portion,
        # which decode in a thin batch, are few beside the others.
        size = min(PORTION_ROWS, max(PORTION_ROWS // 4, -(-len(group) // workers)))
        found.extend(group[at : at + size] for at in range(0, len(group), size))
    return found


def _tiny(model: Model) -> bool:
    try:
        size = weight_bytes(model.base)
    except BackendError:
        return False  # said by whoever loads it
    return size is not None and size <= TINY_BYTES


def _cuda() -> bool:
    _require_libraries()
    if version("torch").endswith("+cpu"):
        return False  # known without importing it: only the workers need it
    import torch

    return torch.cuda.is_available()


def _require_libraries() -> None:
    """Say which library is missing, without importing any: with a crew only the workers need them."""
    for name in _LIBRARIES:
        try:
            there = importlib.util.find_spec(name) is not None
        except ValueError:  # marked in sys.modules as not to be had
            there = False
        if not there:
            raise MissingExtraError("backend 'local'", "local", name)


def _rows(lm: CausalLM, group: Sequence[GenerateRequest], refused: list[Completion]) -> Iterator[Row]:
    """Requests as rows of token ids; those that cannot be answered go to `refused` instead."""
    from windowshift.backends.sampler import Row

    for index, request in enumerate(group):
        sampling = request.sampling
        problem = _problem(request)
        prompt: list[int] = []
        if problem is None:
            try:
                prompt = lm.chat.prompt_ids(request.messages)
            except BackendError as error:
                problem = str(error)
        if problem is None and not prompt:
            problem = "the prompt has no tokens"
        if problem is None and lm.context is not None and len(prompt) + sampling.max_tokens > lm.context:
            problem = (
                f"a prompt of {len(prompt)} tokens and max_tokens {sampling.max_tokens} do not fit the "
                f"{lm.context} tokens of '{lm.label}': lower max_tokens or shorten the prompt"
            )
        if problem is not None:
            refused.append(_failed(request, problem, len(prompt)))
            continue
        yield Row(
            index,
            prompt,
            request.seed,
            sampling.temperature,
            sampling.top_p,
            sampling.max_tokens,
            logprobs=request.logprobs,
        )


def _problem(request: GenerateRequest) -> str | None:
    sampling = request.sampling
    if request.steering:
        return "backend 'local' cannot steer yet"
    if not request.messages:
        return "the request has no messages"
    if sampling.max_tokens < 1:
        return f"max_tokens must be at least 1, got {sampling.max_tokens}"
    if not 0 <= sampling.temperature < float("inf"):
        return f"temperature must be a number of at least 0, got {sampling.temperature}"
    if not 0 < sampling.top_p <= 1:
        return f"top_p must be above 0 and at most 1, got {sampling.top_p}"
    return None


def _failed(request: GenerateRequest, error: str, prompt_tokens: int = 0) -> Completion:
    return Completion(request.key, "", "failed", 0, prompt_tokens=prompt_tokens, error=error)


def _completion(lm: CausalLM, request: GenerateRequest, decoded: Decoded) -> Completion:
    prompt_tokens = len(decoded.row.prompt)
    if decoded.finish == "failed":
        return _failed(request, f"'{lm.label}' gave logits that are not finite numbers", prompt_tokens)
    return Completion(
        key=request.key,
        text=lm.chat.text(decoded.ids),
        finish=decoded.finish,
        tokens=len(decoded.ids),
        prompt_tokens=prompt_tokens,
        token_logprobs=None if request.logprobs is None else lm.chat.token_logprobs(decoded.drawn),
    )
