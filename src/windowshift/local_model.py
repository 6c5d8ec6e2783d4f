"""A local model for notebooks: extract a vector, steer a generation, train under a dose."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import math
import tempfile
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar, cast

from windowshift.backends.local.backend import LocalBackend
from windowshift.completions import Completions
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
)
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.texts import texts
from windowshift.core.contract.training import (
    Example,
    Sft,
    Trained,
    TrainEvent,
    TrainFailed,
    TrainJob,
    TrainMessage,
    TrainProgress,
)
from windowshift.core.contract.vector_job import (
    Answered,
    Difference,
    ExtractTokens,
    VectorEvent,
    VectorFailed,
    VectorJob,
)
from windowshift.core.contract.whole_text import require_whole
from windowshift.core.plan.jobs import row_seed
from windowshift.core.spec.spec_errors import did_you_mean
from windowshift.count_bar import count_bar
from windowshift.local_vector import LocalVector
from windowshift.made_of import MadeOf, content_digest

T = TypeVar("T")


class LocalModel:
    """One model on this machine, with blocking calls that work in notebooks too.

    Args:
        base: ``microworld``, a hub id or a local folder.
        folder: where vectors and adapters go; a temporary folder by default.
        revision: of a hub id.
        date: the day that the chat template takes for today, where it asks; today (UTC) by default. A part of
            `identity` then: on another day this is another model.
        template: switches of the chat template, such as ``{"enable_thinking": True}``; a part of `identity` too.
        progress: show a bar; by default in a notebook or a terminal, once something takes longer than a second.
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
        progress: bool | None = None,
        **options: Any,
    ) -> None:
        self._progress = progress
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
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> Completions:
        """One completion a prompt, in order; prompt i takes phrase i of the prefix group `under`.

        One that is `unanswered` (the model thought until its tokens were spent) comes back as such, with its reason.

        Args:
            prompts: a list of texts.
            under: a prefix group's name, or a condition.
            steer: pushes, as `LocalVector.at` gives them.
            adapter: the folder of one, as `train` gives it.
            max_tokens: of a completion; 256 by default.
            temperature: 1 by default; 0 is greedy.
            top_p: 1 by default.
            sampling: the three of them as one object, in their place.
            seed: another one draws other completions.

        Raises:
            SpecError: there is no such prefix group, `prompts` is no list of texts, one of them is no text that
                UTF-8 can hold, or completions cannot be drawn like that.
            BackendError: a prompt could not be answered, or steering did not do what was asked.
        """
        sampling = sampling_of(sampling, max_tokens=max_tokens, temperature=temperature, top_p=top_p)
        chats = _chats(prompts, under)
        pushes = _pushes(steer)
        model = replace(self._model, adapter=adapter)
        requests = [
            GenerateRequest(str(i), messages, model, sampling, row_seed(f"notebook:{seed}", i), pushes)
            for i, messages in enumerate(chats)
        ]
        found = {}
        with count_bar("completions", "generate", show=self._progress) as show:

            def drawn(completion: Completion) -> None:
                found[completion.key] = completion
                show(len(found), len(requests), "")

            self._each(self._backend.generate(requests), drawn)
        for completion in found.values():
            if completion.finish == "failed" and not completion.unanswered:
                raise BackendError(f"prompt {completion.key}: {completion.error}")
        return Completions([found[request.key] for request in requests], prompts, self._label)

    def extract(
        self,
        positive: str | Sequence[Answered],
        negative: str | Sequence[Answered],
        prompts: Sequence[str] = (),
        *,
        name: str | None = None,
        tokens: ExtractTokens = "response",
        layer: int | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> LocalVector:
        """The mean difference of activations between two sides, at every layer.

        A side is a prefix group, under which the prompts are answered first, or chats with their answers. Without
        a `name`, the file is named after what the vector is made of. How answers are drawn is as for `generate`.

        Raises:
            SpecError: there is no such prefix group, the two sides do not differ, another vector has the name, or
                answers cannot be drawn like that.
            BackendError: the model cannot be steered, or could not answer.
        """
        for label, side in (("positive", positive), ("negative", negative)):
            if not isinstance(side, str):
                said = [[*(turn.content for turn in chat), answer] for chat, answer in _answered_chats(side, label)]
                require_whole(said, f"extract, the {label} side", "chat")
        asked = texts(prompts, "prompts")
        sampling = sampling_of(sampling, max_tokens=max_tokens, temperature=temperature, top_p=top_p)
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
        events: list[VectorEvent] = []
        job = VectorJob(label, label, self._model, source, path, layer)
        self._each(self._backend.make_vectors([job]), events.append)
        for event in events:
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
        events: list[TrainEvent] = []
        with count_bar("examples", "train", show=self._progress) as show:

            def trained(event: TrainEvent) -> None:
                events.append(event)
                if isinstance(event, TrainProgress):
                    show(event.examples, len(examples) * job.sft.epochs, f"loss {event.loss:.3f}")

            self._each(self._backend.train([job]), trained)
        for event in events:
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

    def _answered(self, group: str, prompts: Sequence[str], sampling: Sampling, seed: int) -> list[Answered | None]:
        """Chats with the model's answers; None where it gave none."""
        if not prompts:
            raise SpecError(f"to answer under '{group}', extract needs prompts")
        answers = self.generate(prompts, under=group, sampling=sampling, seed=seed)
        chats = _chats(prompts, group)
        return [None if one.unanswered else (chat, one.text) for chat, one in zip(chats, answers, strict=True)]

    @property
    def _label(self) -> str:
        """The model's name as people read it."""
        return f"{self.identity.label} (rehearsal)" if self.identity.rehearsal else self.identity.label

    def _each(self, stream: AsyncIterator[T], take: Callable[[T], None]) -> None:
        """Hand over what a stream gives, as it comes, in the model's own thread."""

        async def gather() -> None:
            async for item in stream:
                take(item)

        self._wait(gather())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def sampling_of(
    sampling: Sampling | None, *, max_tokens: int | None, temperature: float | None, top_p: float | None
) -> Sampling:
    """How completions are drawn, given as one object or as numbers; 256 tokens where nothing is said.

    Raises:
        SpecError: both are given, or a number is none that completions can be drawn with.
    """
    given = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
    numbers = {name: value for name, value in given.items() if value is not None}
    if sampling is None:
        sampling = Sampling(**{"max_tokens": 256, **numbers})  # type: ignore[arg-type] # by name, looked at below
    elif numbers:
        raise SpecError(f"sampling= says how completions are drawn, and so does {', '.join(numbers)}: give one of them")
    for name, words, holds in (
        ("max_tokens", "a whole number of 1 or more", lambda value: isinstance(value, int) and value >= 1),
        ("temperature", "a number of 0 or more", lambda value: value >= 0),
        ("top_p", "a number above 0 and at most 1", lambda value: 0 < value <= 1),
    ):
        value = getattr(sampling, name)
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or not holds(value):
            raise SpecError(f"{name} must be {words}, not {value!r:.80}")
    return sampling


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
