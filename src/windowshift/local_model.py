"""A local model for notebooks: extract a vector, steer a generation, train under a dose."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import tempfile
import threading
import warnings
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from windowshift.backends.local.backend import LocalBackend
from windowshift.core.contract.conditions import Condition, NoPrefix, prefix_groups
from windowshift.core.contract.errors import BackendError, SpecError
from windowshift.core.contract.generation import (
    Completion,
    GenerateRequest,
    Message,
    Model,
    Sampling,
    Steering,
    Switch,
    TemplateInputs,
    Tokens,
)
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.texts import texts
from windowshift.core.contract.training import Example, Sft, Trained, TrainFailed, TrainJob, TrainMessage
from windowshift.core.contract.vector_file import VectorHeader, read_header
from windowshift.core.contract.vector_job import Answered, Difference, ExtractTokens, VectorFailed, VectorJob
from windowshift.core.contract.whole_text import require_whole
from windowshift.core.plan.jobs import row_seed
from windowshift.core.spec.spec_errors import did_you_mean
from windowshift.made_of import MadeOf, content_digest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LocalVector:
    """A steering vector on disk; any windowshift vector file can be opened with `open`."""

    path: Path
    header: VectorHeader

    def __repr__(self) -> str:
        header = self.header
        return f"<LocalVector {header.name!r}: {len(header.norms)} layers x {header.width}, {str(self.path)!r}>"

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
        date: the day that the chat template takes for today, where it asks; today (UTC) by default. A part of
            `identity` then: on another day this is another model.
        template: switches of the chat template, such as ``{"enable_thinking": True}``; a part of `identity` too.
        options: of backend `local` (`windowshift.backends.local.options.LocalOptions`).

    Raises:
        BackendError: the model cannot be found, its chat template cannot be used, or an option is wrong.
    """

    def __init__(
        self,
        base: str = "microworld",
        folder: str | Path | None = None,
        revision: str | None = None,
        *,
        date: str | datetime.date | None = None,
        template: Mapping[str, Switch] | None = None,
        **options: Any,
    ) -> None:
        self._backend = LocalBackend(options)
        inputs = TemplateInputs(_day(date), tuple(sorted((template or {}).items())))
        report = self._backend.template(base, revision, inputs)
        if report.unusable is not None:
            raise BackendError(report.unusable)
        identity = self._backend.identify(base, revision)
        self.identity = replace(
            identity,
            fingerprint=read_with(identity.fingerprint, report.inputs),
            details={**identity.details, **report.inputs},
        )
        self._model = Model(base, revision, template=TemplateInputs.of(report.inputs))
        self._temporary = tempfile.TemporaryDirectory() if folder is None else None
        self.folder = Path(self._temporary.name if self._temporary else str(folder))
        self._made_of = MadeOf(self.folder)
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

        One that is `unanswered` (the model thought until its tokens were spent) comes back as such, with its reason.

        Raises:
            SpecError: there is no such prefix group, `prompts` is no list of texts, or one of them is no text that
                UTF-8 can hold.
            BackendError: a prompt could not be answered, or steering did not do what was asked.
        """
        sampling = sampling or Sampling(max_tokens=256)
        pushes = _pushes(steer)
        model = replace(self._model, adapter=adapter)
        requests = [
            GenerateRequest(str(i), messages, model, sampling, row_seed(f"notebook:{seed}", i), pushes)
            for i, messages in enumerate(_chats(prompts, under))
        ]
        found = {completion.key: completion for completion in self._all(self._backend.generate(requests))}
        for completion in found.values():
            if completion.finish == "failed" and not completion.unanswered:
                raise BackendError(f"prompt {completion.key}: {completion.error}")
        return [found[request.key] for request in requests]

    def extract(
        self,
        positive: str | Sequence[Answered],
        negative: str | Sequence[Answered],
        prompts: Sequence[str] = (),
        *,
        name: str | None = None,
        tokens: ExtractTokens = "response",
        layer: int | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> LocalVector:
        """The mean difference of activations between two sides, at every layer.

        A side is a prefix group, under which the prompts are answered first, or chats with their answers. Without
        a `name`, the file is named after what the vector is made of.

        Raises:
            SpecError: there is no such prefix group, the two sides do not differ, or another vector has the name.
            BackendError: the model cannot be steered, or could not answer.
        """
        for label, side in (("positive", positive), ("negative", negative)):
            if not isinstance(side, str):
                said = [[*(turn.content for turn in chat), answer] for chat, answer in _answered_chats(side, label)]
                require_whole(said, f"extract, the {label} side", "chat")
        asked = texts(prompts, "prompts")
        first, second = (
            self._answered(side, asked, sampling, seed) if isinstance(side, str) else list(side)
            for side in (positive, negative)
        )
        if isinstance(positive, str) and isinstance(negative, str):  # what one side lacks, the other lacks too
            pairs = [pair for pair in zip(first, second, strict=True) if None not in pair]
            first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        sides = [[each for each in side if each is not None] for side in (first, second)]
        labels = tuple(side if isinstance(side, str) else "given" for side in (positive, negative))
        source = Difference(sides[0], sides[1], tokens, (labels[0], labels[1]))
        parts = {"model": self.identity.fingerprint, "source": source, "layer": layer}
        path = self.folder / f"{self._made_of.place(name, 'vector', parts)}.safetensors"
        label = name or "vector"
        for event in self._all(self._backend.make_vectors([VectorJob(label, label, self._model, source, path, layer)])):
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
        name: str | None = None,
        seed: int = 0,
    ) -> str:
        """Fine-tune a LoRA adapter on pairs, under a prefix group or a dose; the folder of the adapter.

        The same training a second time gives back its adapter. Without a `name`, the folder is named after what the
        adapter is made of. Completions that cannot be learned are left out, and a warning says why.

        Raises:
            SpecError: there are not as many completions as prompts, no such prefix group, or another adapter has the
                name.
            BackendError: training failed, or steering did not do what was asked.
        """
        prompts, completions = texts(prompts, "prompts"), texts(completions, "completions")
        if len(prompts) != len(completions):
            raise SpecError(f"there are {len(prompts)} prompts and {len(completions)} completions")
        for index, completion in enumerate(completions):
            require_whole(completion, f"completion {index}")
        pushes = _pushes(steer)
        examples = [
            Example(messages, completion, pushes)
            for messages, completion in zip(_chats(prompts, under), completions, strict=True)
        ]
        parts = {
            "model": self.identity.fingerprint,
            "examples": examples,
            "vectors": {push.vector: content_digest(push.vector) for push in pushes},
            "sft": sft or Sft(),
            "seed": seed,
        }
        place = self._made_of.place(name, "adapter", parts)
        job = TrainJob(place, self._model, examples, sft or Sft(), seed, self.folder / place)
        for event in self._all(self._backend.train([job])):
            if isinstance(event, TrainMessage):
                warnings.warn(event.text, stacklevel=2)
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

    def __repr__(self) -> str:
        return f"<LocalModel {self.identity.label!r}, files in {str(self.folder)!r}>"

    def __enter__(self) -> LocalModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answered(
        self, group: str, prompts: Sequence[str], sampling: Sampling | None, seed: int
    ) -> list[Answered | None]:
        """Chats with the model's answers; None where it gave none."""
        if not prompts:
            raise SpecError(f"to answer under '{group}', extract needs prompts")
        answers = self.generate(prompts, under=group, sampling=sampling, seed=seed)
        chats = _chats(prompts, group)
        return [None if one.unanswered else (chat, one.text) for chat, one in zip(chats, answers, strict=True)]

    def _all(self, stream: AsyncIterator[T]) -> list[T]:
        async def gather() -> list[T]:
            return [item async for item in stream]

        return self._wait(gather())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def read_with(fingerprint: str, inputs: Mapping[str, Any]) -> str:
    """What determines a model's output where its template reads more than the messages."""
    if not inputs:
        return fingerprint
    return hashlib.sha256(f"{fingerprint}:{json.dumps(inputs, sort_keys=True)}".encode()).hexdigest()


def _day(date: str | datetime.date | None) -> str:
    """A day in ISO 8601; today where none is given."""
    if date is None:
        return datetime.datetime.now(datetime.UTC).date().isoformat()
    try:
        return datetime.date.fromisoformat(str(date)).isoformat()
    except ValueError as error:
        raise BackendError(f"date '{date}' is not a day: write it as 2026-11-26") from error


def _pushes(steer: Sequence[Steering] | Steering) -> tuple[Steering, ...]:
    pushes = (steer,) if isinstance(steer, Steering) else tuple(steer)
    for push in pushes:
        if not isinstance(push, Steering):
            raise SpecError(f"steer must be pushes, as `LocalVector.at` gives them, not {push!r:.80}")
    return pushes


def _answered_chats(side: object, label: str) -> Sequence[Answered]:
    """A side of a vector that is given: each a chat and its answer, and no text of which letters would be taken."""
    for each in side if isinstance(side, Sequence) else (side,):
        chat, answer = each if isinstance(each, Sequence) and not isinstance(each, str) and len(each) == 2 else (0, 0)
        listed = isinstance(chat, Sequence) and all(isinstance(turn, Message) for turn in chat)
        if not listed or isinstance(chat, str) or not isinstance(answer, str):
            raise SpecError(
                f"extract, the {label} side: a chat is a pair of its messages and the answer, such as "
                f'([Message("user", "hello")], "Hi."), not {each!r:.80}'
            )
    return cast("Sequence[Answered]", side)


def _chats(prompts: Sequence[str], under: str | Condition | None) -> list[tuple[Message, ...]]:
    condition: Condition
    if under is None:
        condition = NoPrefix()
    elif isinstance(under, str):
        groups = prefix_groups()
        if under not in groups:
            raise SpecError(f"there is no prefix group '{under}'{did_you_mean(under, groups)}")
        condition = groups[under]
    elif callable(getattr(under, "push", None)):
        condition = under
    else:
        raise SpecError(f"under must be the name of a prefix group, or a condition, not {under!r:.80}")
    prompts = texts(prompts, "prompts")
    for index, prompt in enumerate(prompts):
        require_whole(prompt, f"prompt {index}")
    return [condition.push(Prompt(str(i), prompt), i, "user").messages for i, prompt in enumerate(prompts)]
