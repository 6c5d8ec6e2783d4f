"""Watched texts on the disk: what was read of them while a job trained, and which reading of it is this training's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

from windowshift.backends.local.chat_format import ChatFormat, TrainingTokens
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.training import Example, TextLogprob, TrainJob, Watched
from windowshift.core.contract.whole_file import replacing_file

FILE = "watched.json"
Texts = Sequence[TrainingTokens | str]
"""The tokens of each text, or why it cannot be read."""


def encoded_text(chat: ChatFormat, context: int | None, example: Example) -> TrainingTokens | str:
    """One text as a model reads it, whose context holds so many tokens (None: nobody says)."""
    try:
        tokens = chat.training_tokens(example.messages, example.completion)
    except BackendError as error:
        return str(error)
    length = len(tokens.prompt) + len(tokens.completion)
    if context is not None and length > context:
        return f"it has {length} tokens, more than the {context} of the model's context"
    return tokens if tokens.prompt else "it has no prompt tokens, so its first token has no probability"


class WatchedFile:
    """What was read of the texts of one training; each reading is written before anybody is told.

    Args:
        job: the job.
        texts: those of `encoded_text`.
        signature: of the training; what another training left is not taken for this one's.

    Attributes:
        known: log-probabilities of the texts, by the examples seen.
        paid: tokens that were read for it, where a service is paid for them.
    """

    def __init__(self, job: TrainJob, texts: Texts, signature: str) -> None:
        self._job, self._path = job, job.output / FILE
        data = repr([each if isinstance(each, str) else (each.prompt, each.completion) for each in texts])
        self._signature = f"{signature}:{hashlib.sha256(data.encode()).hexdigest()}"
        self.known: dict[int, tuple[TextLogprob, ...]] = {}
        self.paid = 0
        if texts:
            self._read()

    def put(self, at: int, found: Sequence[TextLogprob], paid: int = 0) -> Watched:
        """Keep a reading, and return what is to be told."""
        self.known[at] = tuple(found)
        self.paid += paid
        texts = {str(at): [asdict(one) for one in found] for at, found in self.known.items()}
        more = {"paid": self.paid} if self.paid else {}
        with replacing_file(self._path) as partial:
            partial.write_text(json.dumps({"signature": self._signature, "texts": texts, **more}), encoding="utf-8")
        return self.told(at)

    def told(self, at: int) -> Watched:
        """A reading as an event; one that is gone is missing, with that as the reason."""
        return Watched(self._job.key, at, self.known.get(at) or self._lost())

    def clear(self) -> None:
        """Forget everything: the work is another one."""
        self._path.unlink(missing_ok=True)
        self.known, self.paid = {}, 0

    def _lost(self) -> tuple[TextLogprob, ...]:
        """What is told where the model that texts were read in is not there any more, and the reading neither."""
        why = f"its reading is lost: {FILE} beside the adapter is not there any more, or of another training"
        return tuple(TextLogprob(None, problem=why) for _ in self._job.watched)

    def _read(self) -> None:
        wanted = set(self._job.watched_at)
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            if found["signature"] != self._signature:
                return
            self.known = {
                int(at): tuple(TextLogprob(**one) for one in texts)
                for at, texts in found["texts"].items()
                if int(at) in wanted and len(texts) == len(self._job.watched)
            }
            self.paid = int(found.get("paid", 0))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, cut off, or somebody else's
            self.known, self.paid = {}, 0


def moments(job: TrainJob, texts: Texts) -> list[int]:
    """After how many examples the texts of a job are read, in order."""
    return sorted(set(job.watched_at)) if texts else []


def watched_before(job: TrainJob, texts: Texts, signature: str) -> list[Watched]:
    """What a finished training read, in order."""
    file = WatchedFile(job, texts, signature)
    return [file.told(at) for at in moments(job, texts)]
