"""Work: a training job as token ids, steps, and what is to be saved after which of them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from itertools import accumulate

from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.backends.local.encoding import encode, threshold
from windowshift.backends.local.watched_file import Texts, encoded_text, moments
from windowshift.backends.shared.schedule import batches
from windowshift.backends.tinker.options import TinkerOptions
from windowshift.backends.tinker.tokens import ModelTokens
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.training import TrainJob

ALPHA = 32.0  # Tinker's, whatever the rank
FINAL = "final"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Sampler weights after `step` steps: those of a checkpoint, or of the end (`examples` None)."""

    step: int
    examples: int | None

    @property
    def name(self) -> str:
        """Under which name they are saved; the same whenever the job is taken up."""
        return FINAL if self.examples is None else f"sampler-{self.examples:06d}"

    @property
    def export(self) -> str:
        """Under which name they are saved for downloading."""
        return f"export-{FINAL if self.examples is None else f'{self.examples:06d}'}"

    @property
    def folder(self) -> str:
        """The folder that the adapter has among the job's files."""
        return "adapter" if self.examples is None else f"checkpoint-{self.examples}"


@dataclass(frozen=True)
class TinkerWork:
    """A job in the service's terms.

    Attributes:
        job: the job.
        encoded: its examples as token ids.
        batches: the examples of every step.
        seen: examples after every step.
        wanted: what is to be saved, in the order of the steps.
        token: digest of all that determines the result.
        problems: why examples were left out; empty where none was.
        left_out: how many were.
        texts: what is watched, see `TrainJob.watched`.
        readings: the step after which texts are read, by the examples that the job says.
    """

    job: TrainJob
    encoded: tuple[TrainingTokens, ...]
    batches: tuple[tuple[int, ...], ...]
    seen: tuple[int, ...]
    wanted: tuple[Wanted, ...]
    token: str
    problems: str = ""
    left_out: int = 0
    texts: Texts = ()
    readings: tuple[tuple[int, int], ...] = ()

    @property
    def readable(self) -> list[TrainingTokens]:
        """The texts that are watched, without those that cannot be read."""
        return [each for each in self.texts if not isinstance(each, str)]

    @property
    def read_tokens(self) -> int:
        """Tokens of one reading of the watched texts, prompts included."""
        return sum(len(each.prompt) + len(each.completion) for each in self.readable)

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.batches)

    @property
    def total(self) -> int:
        """Examples in all epochs together."""
        return self.seen[-1]

    def batch(self, step: int) -> list[TrainingTokens]:
        """The examples of a step, counted from 0."""
        return [self.encoded[index] for index in self.batches[step]]

    def tokens(self, step: int) -> int:
        """Tokens that a step trains on, prompts included."""
        return sum(len(each.prompt) + len(each.completion) for each in self.batch(step))


def work_of(job: TrainJob, tokens: ModelTokens, options: TinkerOptions, context: int | None) -> TinkerWork:
    """Put a job into the service's terms.

    Raises:
        BackendError: it cannot be.
    """
    sft = job.sft
    total = len(job.examples) * sft.epochs
    if not total:
        raise BackendError("there is nothing to train on: no examples, or no epochs")
    if any(example.steering for example in job.examples):
        raise BackendError("backend 'tinker' cannot train under a steering dose: name one that steers, e.g. local")
    if job.model.adapter is not None:
        raise BackendError("backend 'tinker' trains adapters on base models, not on top of another adapter")
    if sft.rank < 1 or sft.batch_size < 1:
        raise BackendError("rank and batch_size must be at least 1")
    check_alpha(sft.alpha)
    outside = [wanted for wanted in job.checkpoints if not 0 < wanted <= total]
    if outside:
        raise BackendError(f"checkpoint {outside[0]} lies outside the {total} examples of the training")
    *_, found = encode(tokens.chat_of(job.model), job.examples, context)
    encoded, due = found.tokens, threshold(job, len(found.tokens))
    steps = batches(len(encoded), sft, job.seed)
    seen = tuple(accumulate(map(len, steps)))
    wanted = [Wanted(_step(seen, due(examples)), examples) for examples in sorted(set(job.checkpoints))]
    texts = tuple(encoded_text(tokens.chat_of(job.model), context, each) for each in job.watched)
    digest = hashlib.sha256(repr((asdict(sft), job.seed, job.model.base, options.train_unembed)).encode())
    for each in encoded:
        digest.update(repr((each.prompt, each.completion)).encode())
        if each.weights is not None:
            digest.update(repr(each.weights).encode())
    return TinkerWork(
        job,
        tuple(encoded),
        tuple(map(tuple, steps)),
        seen,
        (*wanted, Wanted(len(steps), None)),
        digest.hexdigest()[:20],
        found.words,
        len(found.problems),
        texts,
        tuple((_step(seen, due(examples)) if examples else 0, examples) for examples in moments(job, texts)),
    )


def _step(seen: tuple[int, ...], examples: int) -> int:
    """The first step after which so many examples were seen."""
    return next(index + 1 for index, at in enumerate(seen) if at >= examples)


def check_alpha(alpha: float | None) -> None:
    """Refuse a LoRA alpha that the service would not use.

    Raises:
        BackendError: it is not Tinker's.
    """
    if alpha is not None and alpha != ALPHA:
        raise BackendError(
            f"sft.alpha: {alpha:g} cannot be set at Tinker, whose LoRA alpha is {ALPHA:g} at every rank: write  "
            f"alpha: {ALPHA:g},  leave it out, or train with backend local"
        )
