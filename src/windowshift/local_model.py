"""A local model for notebooks: extract a vector, steer a generation, train under a dose."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from windowshift.backends.local.backend import LocalBackend
from windowshift.core.contract.conditions import Condition, NoPrefix, prefix_groups
from windowshift.core.contract.errors import BackendError, SpecError
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling, Steering, Tokens
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.training import Example, Sft, Trained, TrainFailed, TrainJob
from windowshift.core.contract.vector_file import VectorHeader, read_header
from windowshift.core.contract.vector_job import Answered, Difference, ExtractTokens, VectorFailed, VectorJob
from windowshift.core.contract.whole_text import require_whole
from windowshift.core.plan.jobs import row_seed
from windowshift.core.spec.spec_errors import did_you_mean

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LocalVector:
    """A steering vector on disk; any windowshift vector file can be opened with `open`."""

    path: Path
    header: VectorHeader

    @classmethod
    def open(cls, path: str | Path) -> LocalVector:
        """Open a vector file.

        Raises:
            SpecError: the file cannot be read or is not a windowshift vector.
        """
        return cls(Path(path), read_header(path))

    def at(
        self,
        alpha: float | None = None,
        *,
        dose: float | None = None,
        layer: int | None = None,
        tokens: Tokens = "all",
    ) -> Steering:
        """A push by h + alpha * v at a layer (the vector's own by default).

        Give `alpha`, or `dose` in units of the residual stream's RMS norm.

        Raises:
            SpecError: neither or both are given, or the vector has no such layer.
        """
        if (alpha is None) == (dose is None):
            raise SpecError("a push needs alpha or dose, one of the two")
        used = self.header.layer_in_use(layer)
        if alpha is None:
            alpha = self.header.alpha_of(float(dose or 0.0), used)
        return Steering(str(self.path), alpha, used, tokens)

    def ablation(self, *, layer: int | None = None, tokens: Tokens = "all") -> Steering:
        """The direction projected out at a layer.

        Raises:
            SpecError: the vector has no such layer.
        """
        return Steering(str(self.path), 0.0, self.header.layer_in_use(layer), tokens, ablate=True)


class LocalModel:
    """One model on this machine, with blocking calls that work in notebooks too.

    Args:
        base: ``microworld``, a hub id or a local folder.
        folder: where vectors and adapters go; a temporary folder by default.
        revision: of a hub id.
        options: of backend `local` (`windowshift.backends.local.options.LocalOptions`).

    Raises:
        BackendError: the model cannot be found, or an option is wrong.
    """

    def __init__(
        self, base: str = "microworld", folder: str | Path | None = None, revision: str | None = None, **options: Any
    ) -> None:
        self._backend = LocalBackend(options)
        self.identity = self._backend.identify(base, revision)
        self._model = Model(base, revision)
        self._temporary = tempfile.TemporaryDirectory() if folder is None else None
        self.folder = Path(self._temporary.name if self._temporary else str(folder))
        # A loop of its own: a notebook's is running already.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def generate(
        self,
        prompts: Sequence[str],
        *,
        under: str | Condition | None = None,
        steer: Sequence[Steering] | Steering = (),
        adapter: str | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> list[Completion]:
        """One completion a prompt, in order; prompt i takes phrase i of the prefix group `under`.

        Raises:
            SpecError: there is no such prefix group, or a prompt is no text that UTF-8 can hold.
            BackendError: a prompt could not be answered, or steering did not do what was asked.
        """
        sampling = sampling or Sampling(max_tokens=256)
        pushes = (steer,) if isinstance(steer, Steering) else tuple(steer)
        model = Model(self._model.base, self._model.revision, adapter)
        requests = [
            GenerateRequest(str(i), messages, model, sampling, row_seed(f"notebook:{seed}", i), pushes)
            for i, messages in enumerate(_chats(prompts, under))
        ]
        found = {completion.key: completion for completion in self._all(self._backend.generate(requests))}
        for completion in found.values():
            if completion.finish == "failed":
                raise BackendError(f"prompt {completion.key}: {completion.error}")
        return [found[request.key] for request in requests]

    def extract(
        self,
        positive: str | Sequence[Answered],
        negative: str | Sequence[Answered],
        prompts: Sequence[str] = (),
        *,
        name: str = "vector",
        tokens: ExtractTokens = "response",
        layer: int | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> LocalVector:
        """The mean difference of activations between two sides, at every layer.

        A side is a prefix group, under which the prompts are answered first, or chats with their answers.

        Raises:
            SpecError: there is no such prefix group, or the two sides do not differ.
            BackendError: the model cannot be steered, or could not answer.
        """
        for label, side in (("positive", positive), ("negative", negative)):
            if not isinstance(side, str):
                texts = [[*(turn.content for turn in chat), answer] for chat, answer in side]
                require_whole(texts, f"extract, the {label} side", "chat")
        sides = [
            self._answered(side, prompts, sampling, seed) if isinstance(side, str) else list(side)
            for side in (positive, negative)
        ]
        labels = tuple(side if isinstance(side, str) else "given" for side in (positive, negative))
        path = self.folder / f"{name}.safetensors"
        source = Difference(sides[0], sides[1], tokens, (labels[0], labels[1]))
        for event in self._all(self._backend.make_vectors([VectorJob(name, name, self._model, source, path, layer)])):
            if isinstance(event, VectorFailed):
                raise BackendError(event.error)
        return LocalVector.open(path)

    def train(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        *,
        under: str | Condition | None = None,
        steer: Sequence[Steering] | Steering = (),
        sft: Sft | None = None,
        name: str = "adapter",
        seed: int = 0,
    ) -> str:
        """Fine-tune a LoRA adapter on pairs, under a prefix group or a dose; the folder of the adapter.

        Raises:
            SpecError: there are not as many completions as prompts, or no such prefix group.
            BackendError: training failed, or steering did not do what was asked.
        """
        if len(prompts) != len(completions):
            raise SpecError(f"there are {len(prompts)} prompts and {len(completions)} completions")
        for index, completion in enumerate(completions):
            require_whole(completion, f"completion {index}")
        pushes = (steer,) if isinstance(steer, Steering) else tuple(steer)
        examples = [
            Example(messages, completion, pushes)
            for messages, completion in zip(_chats(prompts, under), completions, strict=True)
        ]
        job = TrainJob(name, self._model, examples, sft or Sft(), seed, self.folder / name)
        for event in self._all(self._backend.train([job])):
            if isinstance(event, TrainFailed):
                raise BackendError(event.error)
            if isinstance(event, Trained):
                return event.adapter
        raise BackendError("backend 'local' ended without training the adapter")

    def close(self) -> None:
        """Release the model, its workers and a temporary folder."""
        self._wait(self._backend.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._temporary:
            self._temporary.cleanup()

    def __enter__(self) -> LocalModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answered(
        self, group: str, prompts: Sequence[str], sampling: Sampling | None, seed: int
    ) -> list[tuple[tuple[Message, ...], str]]:
        if not prompts:
            raise SpecError(f"to answer under '{group}', extract needs prompts")
        answers = self.generate(prompts, under=group, sampling=sampling, seed=seed)
        return [(messages, one.text) for messages, one in zip(_chats(prompts, group), answers, strict=True)]

    def _all(self, stream: AsyncIterator[T]) -> list[T]:
        async def gather() -> list[T]:
            return [item async for item in stream]

        return self._wait(gather())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _chats(prompts: Sequence[str], under: str | Condition | None) -> list[tuple[Message, ...]]:
    condition: Condition
    if under is None:
        condition = NoPrefix()
    elif isinstance(under, str):
        groups = prefix_groups()
        if under not in groups:
            raise SpecError(f"there is no prefix group '{under}'{did_you_mean(under, groups)}")
        condition = groups[under]
    else:
        condition = under
    for index, prompt in enumerate(prompts):
        require_whole(prompt, f"prompt {index}")
    return [condition.push(Prompt(str(i), prompt), i, "user").messages for i, prompt in enumerate(prompts)]
