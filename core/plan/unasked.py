"""Planning on services that cannot be asked: what a run would take can be seen before there is a key or a server."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from windowshift.core.contract.backend import (
    Backend,
    Capabilities,
    ContextBackend,
    CountingBackend,
    ModelIdentity,
    ModelSize,
    SteeringBackend,
    TemplateBackend,
    TemplateReport,
)
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.errors import BackendError, UnaskedError
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, TemplateInputs
from windowshift.core.contract.prices import Price
from windowshift.core.contract.service import Limits, Queue, Reached, Service
from windowshift.core.contract.training import Sft, TrainEvent, TrainJob
from windowshift.core.contract.vector_job import VectorEvent, VectorJob
from windowshift.core.spec.spec import Spec

_PRESUMED = ModelSize(1000, 1)


class Unasked:
    """A service that nobody was able to ask. It plans as if all were well there, and does nothing.

    Args:
        backend: the service.
        why: why it could not be asked.
    """

    def __init__(self, backend: Backend, why: UnaskedError) -> None:
        self._backend, self._why = backend, why
        self.capabilities: Capabilities = backend.capabilities

    def identify(self, base: str, revision: str | None = None) -> ModelIdentity:
        """A model by its name, which no run goes by: what is done already is not known."""
        name = f"unasked:{base}:{revision or ''}"
        return ModelIdentity(base, hashlib.sha256(name.encode()).hexdigest()[:20])

    def supports_system(self, base: str, revision: str | None = None) -> bool:  # noqa: ARG002 - the protocol's
        """As if it did."""
        return True

    def template(self, base: str, revision: str | None, inputs: TemplateInputs) -> TemplateReport:
        """What the tokenizer at hand says, where the backend has one."""
        if isinstance(self._backend, TemplateBackend):
            return self._backend.template(base, revision, inputs)
        return TemplateReport({})

    def context(self, base: str, revision: str | None = None) -> int | None:
        """What is known without asking."""
        try:
            return self._backend.context(base, revision) if isinstance(self._backend, ContextBackend) else None
        except BackendError:
            return None

    def count_tokens(
        self,
        base: str,
        revision: str | None,
        inputs: TemplateInputs | None,
        chats: Sequence[tuple[Sequence[Message], str]],
    ) -> list[int]:
        """As the backend does, which may have the tokenizer at hand.

        Raises:
            BackendError: it has not.
        """
        if not isinstance(self._backend, CountingBackend):
            raise self._why
        return self._backend.count_tokens(base, revision, inputs, chats)

    def size(self, base: str, revision: str | None = None) -> ModelSize:
        """From the configuration at hand; else more layers than any model has: a sweep takes as many as ever."""
        try:
            if isinstance(self._backend, SteeringBackend):
                return self._backend.size(base, revision)
        except UnaskedError:
            pass
        return _PRESUMED

    def price(self, base: str) -> Price | None:
        """What is known without asking."""
        try:
            return self._backend.price(base) if isinstance(self._backend, Service) else None
        except UnaskedError:
            return None

    def batched(self) -> bool:
        """As the options say."""
        return isinstance(self._backend, Service) and self._backend.batched()

    def check(self, base: str, sft: Sft | None, *, steered: bool = False) -> Sequence[str]:  # noqa: ARG002 - the protocol's
        """Nothing: it was not asked."""
        return ()

    def queue(self) -> Queue:
        """Nothing waits."""
        return Queue(0, 0, 0.0, None, None)

    # -- what only a run asks for ---------------------------------------------------------------

    def begin(self, limits: Limits, budget: Budget, folder: Path) -> None:  # noqa: ARG002 - the protocol's
        """Refuse.

        Raises:
            UnaskedError: always.
        """
        raise self._why

    def reach(self) -> Reached:
        """Ask again."""
        assert isinstance(self._backend, Service)
        return self._backend.reach()

    async def cancel(self, key: str, output: Path) -> None:
        """Nothing was begun."""

    async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:  # noqa: ARG002
        """Refuse.

        Raises:
            UnaskedError: always.
        """
        raise self._why
        yield

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:  # noqa: ARG002
        """Refuse.

        Raises:
            UnaskedError: always.
        """
        raise self._why
        yield

    async def make_vectors(self, jobs: Sequence[VectorJob]) -> AsyncGenerator[VectorEvent, None]:  # noqa: ARG002
        """Refuse.

        Raises:
            UnaskedError: always.
        """
        raise self._why
        yield

    async def aclose(self) -> None:
        """Let go of the service."""
        await self._backend.aclose()


def unasked(spec: Spec, backends: Mapping[str, Backend]) -> tuple[dict[str, Backend], list[str]]:
    """The backends of a spec, those that cannot be asked as `Unasked`; and a sentence for each of these.

    Whatever else is wrong with one is left to the plan.
    """
    found: dict[str, Backend] = {}
    notes: list[str] = []
    for name, backend in backends.items():
        found[name] = backend
        if not isinstance(backend, Service):
            continue
        models = [spec.model] if name in (spec.train_backend, spec.generate_backend) else []
        judge = spec.data.filter.judge if spec.data.filter else None
        models += [one.model for one in spec.judges if (one.backend or spec.generate_backend) == name]
        models += [judge.model] if judge and name == spec.judge_backend else []
        for model in models:
            try:
                backend.identify(model, None)
            except UnaskedError as error:
                if any(one.file is not None for one in spec.vectors.values()):
                    continue  # whether a file's vector fits the model cannot be presumed
                found[name] = Unasked(backend, error)
                notes.append(
                    f"nothing was checked at backend '{name}', and what is done already does not count here: {error}"
                )
                break
            except BackendError:
                continue
    return found, notes
