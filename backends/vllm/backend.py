"""Backend `vllm`: samples from a model and many adapters on it at serving speed, steered or not."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from windowshift.backends.local.model_folder import identify, model_context, model_size
from windowshift.backends.local.template_check import check_template
from windowshift.backends.shared.refusal import failed
from windowshift.backends.vllm.adapters import Shelf
from windowshift.backends.vllm.answers import Answers
from windowshift.backends.vllm.engine import CacheCounts, Engine, EngineError
from windowshift.backends.vllm.in_process import InProcessEngine, require_vllm
from windowshift.backends.vllm.options import VllmOptions
from windowshift.backends.vllm.prompts import TokenPrompts
from windowshift.backends.vllm.served_model import find_served
from windowshift.backends.vllm.server import ServerEngine
from windowshift.backends.vllm.steering import PushMaker
from windowshift.backends.vllm.turnstile import Turnstile
from windowshift.core.contract.assets import is_embedded
from windowshift.core.contract.backend import Capabilities, ModelIdentity, TemplateReport
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.errors import BackendError, WindowshiftError
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, TemplateInputs
from windowshift.core.contract.prices import FREE, Price
from windowshift.core.contract.service import Limits, Queue, Reached
from windowshift.core.contract.training import Sft, TrainEvent, TrainFailed, TrainJob

log = logging.getLogger("windowshift.vllm")
_TRAINS = "backend 'vllm' does not train: write  backend: {train: local, generate: vllm}"
Base = tuple[str, str | None]


class VllmBackend:
    """Samples through a vLLM server at `base_url`, or vLLM in this process.

    Prompts go as token ids, rendered as backend `local` renders them, so that the two read the same tokens.
    Requests that cannot be answered come back as ``failed`` completions with the sentence that says why.
    Neither vLLM nor an HTTP client is imported with this module.
    """

    capabilities = Capabilities(
        trains=False, generates=True, steers=True, system_channel=True, logprobs=True, seeds=True, loads_peft=True
    )

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._options = VllmOptions.parse(options or {})
        self._server = None if self._options.base_url is None else ServerEngine(self._options)
        self._engines: dict[Base, Engine] = {}
        self._shelves: dict[int, Shelf] = {}
        self._answers: dict[Base, Answers] = {}
        self._starting = asyncio.Lock()
        self._places = asyncio.Semaphore(self._options.concurrency)  # of all calls together
        self._prompts: dict[Base, TokenPrompts] = {}
        self._asked, self._left = 0, 0
        self._began: float | None = None
        self._cached = CacheCounts(0.0, 0.0)

    # -- who is there ---------------------------------------------------------------------------

    def identify(self, base: str, revision: str | None = None) -> ModelIdentity:
        """Name a model as backend `local` does, and ask the server whether it has that very one.

        Raises:
            BackendError: the model cannot be found, the server is not there, or it serves another model.
        """
        found = identify(base, revision)
        if self._server is not None:
            find_served(base, self._server.look(), self._where)
        return found

    def supports_system(self, base: str, revision: str | None = None) -> bool:
        """Whether the model's chat template passes on a system message; loads the tokenizer only.

        Raises:
            BackendError: the tokenizer cannot be loaded.
        """
        return self._prompt_maker((base, revision)).chat.supports_system

    def template(self, base: str, revision: str | None, inputs: TemplateInputs) -> TemplateReport:
        """Try the model's chat template on every role; loads the tokenizer only, and not the embedded model's.

        Raises:
            BackendError: the tokenizer cannot be loaded.
        """
        if is_embedded(base) and not inputs.switches:
            return TemplateReport({})
        return check_template(self._prompt_maker((base, revision)).chat.reading(inputs), inputs)

    def context(self, base: str, revision: str | None = None) -> int | None:
        """Tokens of prompt and completion together: what the server was started with, else what the model knows.

        Raises:
            BackendError: the configuration cannot be found, or the server cannot be asked.
        """
        if self._server is not None:
            return find_served(base, self._server.look(), self._where).max_model_len
        engine = self._options.engine.get("max_model_len")
        return engine if isinstance(engine, int) and engine > 0 else model_context(base, revision)

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
        return self._prompt_maker((base, revision)).chat.reading(inputs).counts(chats)

    def reach(self) -> Reached:
        """Ask the server what it serves."""
        if self._server is None:
            try:
                require_vllm()
            except BackendError as error:
                return Reached("vLLM in this process", "none needed", False, str(error), ())
            return Reached("vLLM in this process", "none needed", True, None, ())
        try:
            models = tuple(one.name for one in self._server.look())
            source = self._server.key_source
            return Reached(self._where, "environment" if source == "environment" else "none needed", True, None, models)
        except EngineError as error:
            key = "missing" if error.status in (401, 403) else "none needed"
            return Reached(self._where, key, error.status is not None, str(error), ())  # type: ignore[arg-type]
        except BackendError as error:
            return Reached(self._where, "missing", False, str(error), ())

    def price(self, base: str) -> Price | None:  # noqa: ARG002 - the protocol's
        """Nothing: it is your own machine."""
        return FREE

    def batched(self) -> bool:
        """There is no Batch API here."""
        return False

    def check(self, base: str, sft: Sft | None, *, steered: bool = False) -> Sequence[str]:  # noqa: ARG002 - the protocol's
        """Whether vLLM can do what is asked: that it is there at all, and can steer where something is steered.

        Raises:
            BackendError: it cannot; the sentence says how it is to be started.
        """
        if self._server is None:
            require_vllm()
        else:
            self._server.look_ready(steered=steered)
        return ()

    # -- a run ----------------------------------------------------------------------------------

    def begin(self, limits: Limits, budget: Budget, folder: Path) -> None:
        """A run starts; nothing is limited, and nothing is to be remembered."""

    def queue(self) -> Queue:
        """How many requests wait, how fast they go, and how often the prefix cache was hit, or what is waited for."""
        seconds = 0.0 if self._began is None else time.monotonic() - self._began
        done = self._asked - self._left
        per_minute = done / seconds * 60 if seconds > 0 else 0.0
        in_flight = min(self._left, self._options.concurrency)
        left = self._left / per_minute * 60 if per_minute else None
        rate = self.cache_hit_rate
        note = "" if rate is None else f"prefix cache hit rate {rate:.0%}"
        if self._server is not None and self._server.away:
            note = f"waiting for {self._where}"
        return Queue(self._left - in_flight, in_flight, per_minute, None, left, note)

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        """Answer all requests, those of one base model together, each as it comes."""
        if not self._left:
            self._asked, self._began = 0, time.monotonic()
        self._asked += len(requests)
        self._left += len(requests)
        left = len(requests)
        groups: dict[Base, list[GenerateRequest]] = {}
        for request in requests:
            groups.setdefault((request.model.base, request.model.revision), []).append(request)
        try:
            for base, group in groups.items():
                async with aclosing(self._group(base, group)) as stream:
                    async for completion in stream:
                        left -= 1
                        self._left -= 1
                        yield completion
        finally:
            self._left -= left

    async def _group(self, base: Base, group: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        try:
            answers = await self._ready(base)
        except WindowshiftError as error:
            for request in group:
                yield failed(request, str(error))
            return
        before = await answers.engine.cache_counts()
        start = time.monotonic()
        async with aclosing(answers.stream(group)) as stream:
            async for completion in stream:
                yield completion
        self._report(len(group), time.monotonic() - start, before, await answers.engine.cache_counts())

    def _report(self, count: int, seconds: float, before: CacheCounts | None, after: CacheCounts | None) -> None:
        hits = ""
        if before is not None and after is not None:
            here = after.since(before)
            self._cached = self._cached.plus(here)
            hits = "" if here.rate is None else f", prefix cache hit rate {here.rate:.0%}"
        speed = count / seconds if seconds else 0.0
        log.info("vLLM answered %d requests in %.1f s, %.1f a second%s", count, seconds, speed, hits)

    @property
    def cache_hit_rate(self) -> float | None:
        """The share of prompt tokens that the prefix cache had, in all calls so far; None: not known."""
        return self._cached.rate

    async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        """No job can be trained here."""
        for job in jobs:
            yield TrainFailed(job.key, _TRAINS)

    async def cancel(self, key: str, output: Path) -> None:
        """Nothing trains here."""

    async def aclose(self) -> None:
        """Unload adapters, close connections, end an engine in this process."""
        for shelf in self._shelves.values():
            await shelf.aclose()
        for engine in {id(one): one for one in self._engines.values()}.values():
            await engine.aclose()
        self._shelves.clear()
        self._engines.clear()
        self._answers.clear()

    @property
    def _where(self) -> str:
        return "vLLM in this process" if self._server is None else f"the vLLM server at {self._options.base_url}"

    def _prompt_maker(self, base: Base) -> TokenPrompts:
        if base not in self._prompts:
            self._prompts[base] = TokenPrompts.load(*base)
        return self._prompts[base]

    async def _ready(self, base: Base) -> Answers:
        """What answers requests to a base model.

        Raises:
            BackendError: the model cannot be found, or vLLM does not serve it.
        """
        async with self._starting:  # two calls at once must not start two engines
            return await self._started(base)

    async def _started(self, base: Base) -> Answers:
        if base not in self._answers:
            fingerprint = identify(*base).fingerprint
            prompts = await asyncio.to_thread(self._prompt_maker, base)  # imports a large library
            engine = self._engine(base)
            served = find_served(base[0], await engine.served(), self._where)
            shelf = self._shelves.setdefault(id(engine), Shelf(engine, self._options.adapters))
            pushes = PushMaker(fingerprint, model_size(*base))
            turnstile = Turnstile(shut=not await engine.extended())
            most = self._options.concurrency
            self._answers[base] = Answers(engine, served, prompts, pushes, shelf, turnstile, most, self._places)
            self._engines[base] = engine
        return self._answers[base]

    def _engine(self, base: Base) -> Engine:
        if self._server is not None:
            return self._server
        if self._engines:
            (other, _), *_ = self._engines
            raise BackendError(
                f"vLLM in this process holds '{other}', and one model at a time: start a server for '{base[0]}' and "
                "write  base_url:  under backend_options"
            )
        return InProcessEngine(self._options, *base)
