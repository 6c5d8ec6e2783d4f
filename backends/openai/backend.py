"""Backend `openai`: any server that speaks the OpenAI API, hosted, vLLM, `windowshift serve` or another."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from windowshift.backends.openai.batches import BatchSampler
from windowshift.backends.openai.chat import ChatSampler
from windowshift.backends.openai.connection import OpenAIConnection
from windowshift.backends.openai.finetuning import FineTuning
from windowshift.backends.openai.options import HOSTED, OpenAIOptions
from windowshift.backends.openai.pacer import Pacer
from windowshift.backends.shared.pool import pooled
from windowshift.backends.shared.reach import reach
from windowshift.core.contract.assets import is_embedded
from windowshift.core.contract.backend import Capabilities, ModelIdentity
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.contexts import context_of
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Completion, GenerateRequest
from windowshift.core.contract.prices import FREE, Price, listed
from windowshift.core.contract.service import Limits, Queue, Reached
from windowshift.core.contract.training import Sft, TrainEvent, TrainJob

FINE_TUNING_ENDS = (
    "OpenAI has announced the end of its hosted self-serve fine-tuning (no new jobs from 2027-01-06; fine-tunes of "
    "gpt-4.1 and gpt-4o stop answering on 2027-01-14): 'windowshift serve' speaks the same API on your own GPU"
)


class OpenAIBackend:
    """Samples from and fine-tunes models behind an OpenAI-style API.

    Requests go out many at once, at the pace that the spec and the server allow. Requests that cannot
    be answered come back as ``failed`` completions and jobs that cannot be trained as `TrainFailed`,
    with the sentence that says why. The SDK is imported at the first use, not with this module.
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._options = OpenAIOptions.parse(options or {})
        self.capabilities = Capabilities(
            trains=self._options.trains,
            generates=True,
            system_channel=self._options.system,
            checkpoints=False,
            epoch_checkpoints=self._options.trains,
            logprobs=self._options.logprobs,
            seeds=self._options.seeds,
            priced=True,
        )
        self._connection = OpenAIConnection(self._options)
        self._pacer = Pacer(self._options.concurrency)
        self._budget = Budget()
        self._places: asyncio.Semaphore | None = None  # of all calls together
        self._folder: Path | None = None
        self._gathered: BatchSampler | None = None  # of all calls together
        self._left = 0

    # -- who is there ---------------------------------------------------------------------------

    def identify(self, base: str, revision: str | None = None) -> ModelIdentity:
        """Ask the server for a model. Its fingerprint is what the server says it is, or host and name.

        Raises:
            BackendError: the server is not there, refuses the key, or has no such model.
        """
        if revision is not None:
            raise BackendError(f"backend 'openai' takes no revision: '{base}' is whatever the server calls so")
        said = self._connection.model(base)
        name = f"openai:{self._options.host}:{base}"
        fingerprint = said.fingerprint or hashlib.sha256(name.encode()).hexdigest()[:20]
        rehearsal = is_embedded(base) and self._connection.is_own(base)
        return ModelIdentity(base, fingerprint, rehearsal)

    def supports_system(self, base: str, revision: str | None = None) -> bool:  # noqa: ARG002 - the protocol's
        """Whether the model passes a system message on, as far as the server or the options say.

        Raises:
            BackendError: the server has no such model.
        """
        said = self._connection.model(base).supports_system
        return self._options.system if said is None else said

    def context(self, base: str, revision: str | None = None) -> int | None:  # noqa: ARG002 - the protocol's
        """Tokens of prompt and completion together: as the server says, or as its host does elsewhere.

        Raises:
            BackendError: the server cannot be asked, or has no such model.
        """
        return context_of(self._options.host, base) or self._connection.model(base).context

    def size(self, base: str, revision: str | None = None) -> Any:  # noqa: ARG002 - the protocol's
        """No server says it.

        Raises:
            BackendError: always.
        """
        raise BackendError("backend 'openai' does not reach activations: name one that steers, e.g. local")

    def make_vectors(self, jobs: Sequence[Any]) -> AsyncGenerator[Any, None]:  # noqa: ARG002 - the protocol's
        """Not asked for, as `capabilities` do not say that it steers.

        Raises:
            BackendError: always.
        """
        raise BackendError("backend 'openai' does not reach activations: name one that steers, e.g. local")

    def price(self, base: str) -> Price | None:
        """What a model costs: as the spec says, as the table says, nothing at all at `windowshift serve`."""
        if base in self._options.prices:
            return self._options.prices[base]
        found = listed(self._options.host, base)
        if found is None and self._options.host != _host(HOSTED):
            with suppress(BackendError):
                if self._connection.is_own(base):
                    return FREE
        return found

    def batched(self) -> bool:
        """Whether completions go through the Batch API."""
        return self._options.batch

    def check(self, base: str, sft: Sft | None, *, steered: bool = False) -> Sequence[str]:  # noqa: ARG002 - the protocol's
        """What a person must know before money is spent.

        Raises:
            BackendError: the server has no fine-tuning API, and something is to be trained.
        """
        notes = []
        if sft is not None:
            if not self._connection.speaks("/fine_tuning/jobs?limit=1"):
                raise BackendError(
                    f"the server at {self._options.base_url} has no fine-tuning API: "
                    "write  backend: {train: local, generate: vllm}"
                )
            if self._options.host == _host(HOSTED):
                notes.append(FINE_TUNING_ENDS)
            known = self._options.server_learning_rate is not None
            if known or not self._connection.is_own(base):
                taken = "batch_size, epochs and learning_rate" if known else "batch_size and epochs"
                notes.append(f"of sft, the server takes {taken}; all else of how it trains is its own")
        if self._options.batch:
            notes.append("completions go through the Batch API: at its price, and within a day")
        return notes

    def reach(self) -> Reached:
        """Ask the server who it is."""
        return reach(self._options.base_url, self._connection)

    # -- a run ----------------------------------------------------------------------------------

    def begin(self, limits: Limits, budget: Budget, folder: Path) -> None:
        """Obey a run's limits, and remember batches in `folder`."""
        self._budget, self._folder = budget, folder
        self._pacer = Pacer(self._options.concurrency, limits.rpm, limits.tpm)
        self._places = asyncio.Semaphore(limits.jobs) if limits.jobs else None
        self._gathered = None

    def queue(self) -> Queue:
        """How many requests wait and are under way, how fast they go, and for how long."""
        pacer = self._pacer
        seconds = self._left / pacer.per_minute * 60 if pacer.per_minute else None
        return Queue(max(0, self._left - pacer.in_flight), pacer.in_flight, pacer.per_minute, pacer.limit, seconds)

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        """Answer all requests, many at once, each as it comes."""
        self._left += len(requests)
        left = len(requests)
        stream = self._batches(requests) if self._options.batch else self._chats(requests)
        try:
            async for completion in stream:
                self._left -= 1
                left -= 1
                yield completion
        finally:
            self._left -= left
            await stream.aclose()

    def _chats(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        chat = ChatSampler(self._connection, self._pacer, self._budget, self._price_of)
        return pooled(requests, self._options.concurrency, chat.complete)

    def _batches(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        if self._gathered is None:
            self._gathered = BatchSampler(self._connection, self._budget, self._price_of, self._folder)
        return self._gathered.complete(requests)

    def _price_of(self, request: GenerateRequest) -> Price | None:
        price = self.price(request.model.base)
        return price.tuned() if price is not None and request.model.adapter else price

    async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        """Train every job as a fine-tuning job of the server's, as many at once as it allows."""
        tuning = FineTuning(self._connection, self._budget, self.price, self._places)
        stream = tuning.train(jobs)
        try:
            async for event in stream:
                yield event
        finally:
            await stream.aclose()

    async def cancel(self, key: str, output: Path) -> None:  # noqa: ARG002 - the journal knows the job
        """Cancel the server's job behind a training job; one that has ended stays as it is."""
        await FineTuning(self._connection, self._budget, self.price).cancel(output)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._gathered is not None:
            await self._gathered.aclose()
        await self._connection.aclose()


def _host(base_url: str) -> str:
    return OpenAIOptions(base_url=base_url).host
