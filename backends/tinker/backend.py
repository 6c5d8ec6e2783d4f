"""Backend `tinker`: LoRA fine-tuning and sampling at Tinker, or at a server that speaks its API."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from windowshift.backends.local.template_check import check_template
from windowshift.backends.openai.pacer import Pacer
from windowshift.backends.shared.pool import pooled
from windowshift.backends.shared.reach import reach
from windowshift.backends.tinker.advice import advice
from windowshift.backends.tinker.connection import TinkerConnection
from windowshift.backends.tinker.options import TinkerOptions
from windowshift.backends.tinker.sampling import TinkerSampler
from windowshift.backends.tinker.tokens import ModelTokens
from windowshift.backends.tinker.training import Training, cancel
from windowshift.backends.tinker.work import ALPHA, check_alpha
from windowshift.core.contract.assets import is_embedded
from windowshift.core.contract.backend import Capabilities, ModelIdentity, TemplateReport
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, TemplateInputs
from windowshift.core.contract.prices import Price, listed
from windowshift.core.contract.service import Limits, Queue, Reached
from windowshift.core.contract.training import Sft, TrainEvent, TrainJob


class TinkerBackend:
    """Trains and samples at Tinker.

    Several jobs train at once, each with steps sent ahead of their answers; completions go out many at once.
    Requests that cannot be answered come back as ``failed`` completions and jobs that cannot be trained as
    `TrainFailed`, with the sentence that says why. The SDK is imported at the first use, not with this module.
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._options = TinkerOptions.parse(options or {})
        self.capabilities = Capabilities(
            trains=True,
            generates=True,
            checkpoints=True,
            logprobs=True,
            seeds=True,
            priced=True,
            weighs=True,
            watches=True,
            leaves_peft=self._options.download and not self._options.train_unembed,
        )
        self._connection = TinkerConnection(self._options)
        self._tokenizers: dict[str, ModelTokens] = {}
        self._loading = Lock()
        self._budget = Budget()
        self._places = asyncio.Semaphore(self._options.clients)  # of all calls together
        self._pacer = Pacer(self._options.concurrency)
        self._sampling: TinkerSampler | None = None
        self._left = 0

    # -- who is there ---------------------------------------------------------------------------

    def identify(self, base: str, revision: str | None = None) -> ModelIdentity:
        """Ask the server for a model. Its fingerprint is host and name: whose weights they are is the server's.

        Raises:
            BackendError: the server is not there, refuses the key, or does not offer the model.
        """
        if revision is not None:
            raise BackendError(f"backend 'tinker' takes no revision: '{base}' is whatever the server calls so")
        self._connection.model(base)
        name = f"tinker:{self._options.host}:{base}"
        return ModelIdentity(base, hashlib.sha256(name.encode()).hexdigest()[:20], is_embedded(base))

    def supports_system(self, base: str, revision: str | None = None) -> bool:  # noqa: ARG002 - the protocol's
        """Whether the chat template passes a system message on; loads the tokenizer.

        Raises:
            BackendError: the tokenizer cannot be loaded.
        """
        return self._tokens(base).chat.supports_system

    def template(self, base: str, revision: str | None, inputs: TemplateInputs) -> TemplateReport:  # noqa: ARG002
        """Try the model's chat template on every role; loads the tokenizer only, and not the embedded model's.

        Raises:
            BackendError: the tokenizer cannot be loaded.
        """
        if is_embedded(base) and not inputs.switches:
            return TemplateReport({})
        return check_template(self._tokens(base).chat.reading(inputs), inputs)

    def context(self, base: str, revision: str | None = None) -> int | None:  # noqa: ARG002 - the protocol's
        """Tokens of prompt and completion together, as the server says; None where it does not.

        Raises:
            BackendError: the server is not there, or does not offer the model.
        """
        return self._connection.model(base).context

    def count_tokens(
        self,
        base: str,
        revision: str | None,  # noqa: ARG002 - the protocol's
        inputs: TemplateInputs | None,
        chats: Sequence[tuple[Sequence[Message], str]],
    ) -> list[int]:
        """The tokens of each chat, with its answer where that is not empty; loads the tokenizer only.

        Raises:
            BackendError: the tokenizer cannot be loaded, or the template refuses a chat.
        """
        return self._tokens(base).chat.reading(inputs).counts(chats)

    def price(self, base: str) -> Price | None:
        """What a model costs: as the spec says, or as the table says."""
        return self._options.prices.get(base) or listed(self._options.host, base)

    def batched(self) -> bool:
        """Whether completions go through a Batch API: there is none."""
        return False

    def check(self, base: str, sft: Sft | None, *, steered: bool = False) -> Sequence[str]:  # noqa: ARG002 - the protocol's
        """What a person must know before money is spent.

        Raises:
            BackendError: the server does not offer the model for this, the tokenizer cannot be loaded, or the spec
                asks for what Tinker cannot do.
        """
        offered = self._connection.model(base)
        self._tokens(base)
        if sft is None:
            return []
        if not offered.trainable:
            raise BackendError(
                f"the server at {self._options.base_url} samples from '{base}', but does not train it: name another "
                "model, or  backend: local"
            )
        check_alpha(sft.alpha)
        notes = [advice(base, sft.learning_rate, self._options.tokenizer)]
        if sft.alpha is None and sft.rank != ALPHA:
            notes.append(
                f"Tinker's LoRA alpha is {ALPHA:g}: at rank {sft.rank} updates are scaled by {ALPHA / sft.rank:g}, "
                f"where backend local scales by 1 unless it is given  alpha: {ALPHA:g}"
            )
        if self._options.train_unembed:
            notes.append("train_unembed: the output layer is trained too, so no other backend loads these adapters")
        if self._options.keep_days is not None:
            notes.append(
                f"sampler weights live {self._options.keep_days:g} days at the server (keep_days)"
                + ("; PEFT files are fetched into the workspace" if self._options.download else "")
            )
        return notes

    def reach(self) -> Reached:
        """Ask the server who it is."""
        return reach(self._options.base_url, self._connection)

    def _tokens(self, base: str) -> ModelTokens:
        source = self._options.tokenizer or base
        with self._loading:
            if source not in self._tokenizers:
                self._tokenizers[source] = ModelTokens(source)
            return self._tokenizers[source]

    # -- a run ----------------------------------------------------------------------------------

    def begin(self, limits: Limits, budget: Budget, folder: Path) -> None:  # noqa: ARG002 - the protocol's
        """Obey a run's limits."""
        self._budget = budget
        self._places = asyncio.Semaphore(limits.jobs or self._options.clients)
        self._pacer = Pacer(self._options.concurrency, limits.rpm, limits.tpm)
        self._sampling = None

    def queue(self) -> Queue:
        """How many completions wait and are under way, how fast they go, and for how long."""
        pacer = self._pacer
        seconds = self._left / pacer.per_minute * 60 if pacer.per_minute else None
        return Queue(max(0, self._left - pacer.in_flight), pacer.in_flight, pacer.per_minute, pacer.limit, seconds)

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        """Answer all requests, many at once, each as it comes."""
        sampling = self._sampling = self._sampling or TinkerSampler(
            self._connection, self._tokens, self._pacer, self._budget, self.price
        )
        self._left += len(requests)
        left = len(requests)
        stream = pooled(requests, self._options.concurrency, sampling.complete)
        try:
            async for completion in stream:
                self._left -= 1
                left -= 1
                yield completion
        finally:
            self._left -= left
            await stream.aclose()

    async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        """Train every job, as many at once as the limits and the options allow."""
        training = Training(self._connection, self._tokens, self._budget, self.price, self._places)
        stream = training.train(jobs)
        try:
            async for event in stream:
                yield event
        finally:
            await stream.aclose()

    async def cancel(self, key: str, output: Path) -> None:  # noqa: ARG002 - the journal knows the job
        """Delete what an unfinished job has saved at the server."""
        await cancel(self._connection, output)

    async def aclose(self) -> None:
        """End the sampling session."""
        if self._sampling is not None:
            await self._sampling.aclose()
            self._sampling = None
