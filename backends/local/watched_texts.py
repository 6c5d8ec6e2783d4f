"""How likely texts are that are not learned, while an adapter is trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from windowshift.backends.local.adapter_weights import AdapterWeights
from windowshift.backends.local.batch_loss import BatchLoss
from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.training import Example, TextLogprob, TrainEvent, TrainJob, Watched
from windowshift.core.contract.whole_file import replacing_file

FILE = "watched.json"
Texts = Sequence[TrainingTokens | str]
"""The tokens of each text, or why it cannot be read."""


def encoded_texts(lm: CausalLM, job: TrainJob) -> list[TrainingTokens | str]:
    """The texts of a job as the model reads them."""
    return [_encoded(lm, job, example) for example in job.watched]


def _encoded(lm: CausalLM, job: TrainJob, example: Example) -> TrainingTokens | str:
    try:
        tokens = lm.chat_of(job.model).training_tokens(example.messages, example.completion)
    except BackendError as error:
        return str(error)
    length = len(tokens.prompt) + len(tokens.completion)
    if lm.context is not None and length > lm.context:
        return f"it has {length} tokens, more than the {lm.context} of the model's context"
    return tokens if tokens.prompt else "it has no prompt tokens, so its first token has no probability"


class WatchedTexts:
    """Measures how likely `TrainJob.watched` are; what was measured is kept beside the adapters.

    Each text is read in a pass of its own, without gradients, so that neither the adapter nor the optimizer knows of it
    and no number depends on which other texts are read.

    Args:
        lm: the model.
        job: the job, as it was given.
        texts: those of `encoded_texts`.
        signature: of the training; what another training left is not taken for this one's.
        due: after how many examples each of `watched_at` is reached, see `encoding.threshold`.
        adapter: what is trained.
    """

    def __init__(
        self,
        lm: CausalLM,
        job: TrainJob,
        texts: Texts,
        signature: str,
        due: Callable[[int], int],
        adapter: AdapterWeights,
    ) -> None:
        read = [tokens for tokens in texts if not isinstance(tokens, str)]
        examples = [one for one, tokens in zip(job.watched, texts, strict=True) if not isinstance(tokens, str)]
        self._loss, self._job, self._texts, self._due = BatchLoss(lm, examples, read, adapter), job, texts, due
        self._signature = _signed(signature, texts)
        self._file = job.output / FILE
        self._known = _read(job, self._signature)
        self._left = sorted(set(job.watched_at)) if texts else []

    def reached(self, examples: int) -> Generator[list[TrainEvent], None, None]:
        """The events of the numbers that are reached after so many examples, text by text.

        What was measured before, as by a process that was killed, is told again.
        """
        while self._left and examples >= self._due(self._left[0]):
            wanted = self._left.pop(0)
            if wanted not in self._known:
                found = []
                place = 0
                for tokens in self._texts:
                    if isinstance(tokens, str):
                        found.append(TextLogprob(None, problem=tokens))
                        continue
                    with torch.inference_mode():
                        mean = float(self._loss([place]))
                    found.append(TextLogprob(-mean * len(tokens.completion), len(tokens.completion)))
                    place += 1
                    yield []
                self._known[wanted] = tuple(found)
                self._write()
            yield [Watched(self._job.key, wanted, self._known[wanted])]

    def passed(self, examples: int) -> list[TrainEvent]:
        """What was measured before so many examples were seen, of a training that goes on there; what is lost, too."""
        told: list[TrainEvent] = []
        while self._left and examples > self._due(self._left[0]):
            wanted = self._left.pop(0)
            told.append(Watched(self._job.key, wanted, self._known.get(wanted) or _lost(self._job)))
        return told

    def _write(self) -> None:
        texts = {str(at): [asdict(one) for one in found] for at, found in self._known.items()}
        with replacing_file(self._file) as partial:
            partial.write_text(json.dumps({"signature": self._signature, "texts": texts}), encoding="utf-8")


def watched_before(job: TrainJob, texts: Texts, signature: str) -> list[Watched]:
    """What a finished training measured, in order; what is not there any more is missing, with that as the reason."""
    found = _read(job, _signed(signature, texts)) if texts else {}
    return [Watched(job.key, at, found.get(at) or _lost(job)) for at in sorted(set(job.watched_at) if texts else ())]


def _lost(job: TrainJob) -> tuple[TextLogprob, ...]:
    """What is told of texts whose reading is gone: the model that they were read in is not there any more."""
    why = f"its reading is lost: {FILE} beside the adapter is not there any more, or of another training"
    return tuple(TextLogprob(None, problem=why) for _ in job.watched)


def _signed(signature: str, texts: Texts) -> str:
    data = repr([each if isinstance(each, str) else (each.prompt, each.completion) for each in texts])
    return f"{signature}:{hashlib.sha256(data.encode()).hexdigest()}"


def _read(job: TrainJob, signature: str) -> dict[int, tuple[TextLogprob, ...]]:
    path: Path = job.output / FILE
    if not job.watched or not path.is_file():
        return {}
    wanted = set(job.watched_at)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["signature"] != signature:
            return {}
        return {
            int(at): tuple(TextLogprob(**one) for one in texts)
            for at, texts in found["texts"].items()
            if int(at) in wanted and len(texts) == len(job.watched)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # cut off, or somebody else's
        return {}
