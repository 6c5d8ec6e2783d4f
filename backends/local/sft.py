"""LoRA fine-tuning of one adapter, step by step, resumable to the byte."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from windowshift.backends.local.adapter_weights import AdapterWeights
from windowshift.backends.local.adapters import WEIGHTS, AdapterFile
from windowshift.backends.local.batch_loss import BatchLoss, TrainingBatch
from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.backends.local.encoding import encoded_job, threshold
from windowshift.backends.local.validation import Validation, measured
from windowshift.backends.local.watched_file import watched_before
from windowshift.backends.local.watched_texts import WatchedTexts, encoded_texts
from windowshift.backends.shared.adapter_fields import CONFIG
from windowshift.backends.shared.schedule import batches, learning_rate
from windowshift.core.contract.artifacts import is_whole
from windowshift.core.contract.errors import BackendError, WindowshiftError
from windowshift.core.contract.fine_tune import adapter_digest
from windowshift.core.contract.proof import Proof
from windowshift.core.contract.training import (
    Checkpointed,
    StepLosses,
    Trained,
    TrainEvent,
    TrainJob,
    TrainProgress,
    ends_of,
)
from windowshift.core.contract.whole_file import aside, replacing_file

log = logging.getLogger("windowshift.local")

PROGRESS_SECONDS = 0.2
STATE_FORM = "flat"
"""Of a resume state; one of another form, from before, is not taken up: its job is trained anew."""
_UNSETTLED = 100
"""Steps whose losses may wait to be read: more would be taken in vain where one was not finite."""
SIGNATURE = "windowshift.json"
"""The file in an adapter's folder that says what determined it."""


Course: TypeAlias = "Generator[list[TrainEvent] | Learner | Future[None], None, None]"
"""A job under way: yields its events; its learner, which is to have taken an optimizer step when it goes on; or what is
being written, which is to be done then."""


def course(
    lm: CausalLM, job: TrainJob, writer: Executor, state_seconds: float, progress_seconds: float | None = None
) -> Course:
    """Train one adapter; whoever drives it takes the steps that it asks for, together with those of other jobs.

    The loss is the mean over all completion tokens of a batch, end token included, in nats, each times its weight. The
    first epoch takes the examples as given, each further one a permutation that the seed
    determines. Checkpoints are taken at the first whole batch that reaches the wanted number of
    examples. Saved adapters, and the steps before them, are reported anew by a job that goes on, so that no event is
    lost to a kill. Dropout is off, so weights, optimizer and step number are all the state there is.

    Args:
        lm: the model.
        job: the job.
        writer: writes adapters and states, one after another, while the passes go on.
        state_seconds: as in the options of backend `local`.
        progress_seconds: likewise.

    Raises:
        BackendError: the job cannot be trained, or its loss is not a number any more.
    """
    progress_every = PROGRESS_SECONDS if progress_seconds is None else progress_seconds
    final = job.output / "adapter"
    folders = {wanted: job.output / f"checkpoint-{wanted}" for wanted in sorted(set(job.checkpoints))}
    _check(job)
    asked = job
    job, encoded, unlearned = yield from encoded_job(job, lm.chat_of(job.model), lm.context)
    left_out = len(asked.examples) - len(job.examples)
    due = threshold(asked, len(job.examples))
    total_examples = len(job.examples) * job.sft.epochs
    signature = _signature(lm, job, encoded)
    texts = encoded_texts(lm, asked)
    if _complete(final, signature) and all(_complete(folder, signature) for folder in folders.values()):
        yield [
            *_told_again(job, encoded, _losses_in(final, "reports")),
            *measured(job, unlearned, signature),
            *watched_before(asked, texts, signature),
            *(Checkpointed(job.key, wanted, str(folder)) for wanted, folder in folders.items()),
            Trained(job.key, str(final), total_examples, left_out=left_out, losses=_losses_in(final)),
        ]
        return
    if lm.training_fault is not None:
        raise BackendError(lm.training_fault)
    run = Learner(lm, job, encoded, signature)
    writing: Future[None] | None = None  # the resume state: nobody waits for it
    try:
        validation = Validation(lm, job, unlearned, signature, run.weights)
        watched = WatchedTexts(lm, asked, texts, signature, due, run.weights)
        state = job.output / "state.pt"
        run.resume(state)
        yield _told_again(job, encoded, tuple(run.reports))
        reached = [wanted for wanted in folders if run.examples >= due(wanted)]
        # Those of checkpoints were measured before the state was saved.
        yield list(validation.known(reached))
        yield watched.passed(run.examples)
        yield from watched.reached(run.examples)
        yield [Checkpointed(job.key, wanted, str(folders[wanted])) for wanted in reached]
        saved_at = reported_at = time.monotonic()
        reported, tokens = run.reports[-1][0] if run.reports else 0, run.tokens
        while run.step < run.steps:
            yield run
            now = time.monotonic()
            if now - reported_at >= progress_every or run.step == run.steps:
                run.settle()
                speed = (run.tokens - tokens) / max(now - reported_at, 1e-9)
                fresh = [loss for _, loss in run.losses[reported:]]
                mean = sum(fresh) / len(fresh)
                reported, tokens, reported_at = len(run.losses), run.tokens, now
                run.reports.append((run.step, mean))
                yield [TrainProgress(job.key, run.step, run.examples, mean, speed, run.tokens)]
            yield from watched.reached(run.examples)
            for wanted, folder in folders.items():
                if run.examples >= due(wanted) and wanted not in reached:
                    run.proofs()
                    yield from validation.measure(wanted)
                    yield from _done(writer.submit(run.kept(), folder))
                    reached.append(wanted)
                    yield [Checkpointed(job.key, wanted, str(folder))]
            if run.step < run.steps and now - saved_at >= state_seconds and (writing is None or writing.done()):
                if writing is not None:
                    writing.result()
                writing = writer.submit(run.state(), state)
                saved_at = now
        yield from validation.measure(total_examples)
        proofs = run.proofs()  # before the adapter counts as trained
        yield from _done(writer.submit(run.kept(whole=True), final))  # a state that is being written is done before
        for left in (state, aside(state)):  # a kill may have left the second
            left.unlink(missing_ok=True)
        ends = ends_of(run.losses)
        yield [Trained(job.key, str(final), total_examples, proofs=proofs, left_out=left_out, losses=ends)]
    finally:
        if writing is not None:
            wait([writing])
        lm.adapters.drop(run.weights.name)


def _done(writing: Future[None]) -> Course:
    """Wait until something is written.

    Raises:
        OSError: it could not be.
    """
    while not writing.done():
        yield writing
    writing.result()


class Learner:
    """An adapter in training: its weights, optimizer and place in the data.

    Attributes:
        lm: the model.
        weights: the adapter.
        loss: of its examples.
        steps, step, examples, tokens: steps in all; steps, examples and tokens so far.
        losses: by step, the examples seen after it and the loss, of the steps that were settled.
        reports: what was told of them: a step, and the mean loss of it and of those since the report before.
    """

    def __init__(self, lm: CausalLM, job: TrainJob, encoded: Sequence[TrainingTokens], signature: str) -> None:
        self.lm, self._job, self._encoded = lm, job, encoded
        self._batches = batches(len(encoded), job.sft, job.seed)
        self.steps = len(self._batches)
        self.step = self.examples = self.tokens = 0
        self.losses: list[tuple[int, float]] = []
        self.reports: list[tuple[int, float]] = []
        self._unsettled: list[tuple[int, int, Tensor, Tensor]] = []
        self.weights = AdapterWeights(lm.adapters, job.sft, job.seed)
        self._optimizer = torch.optim.AdamW(
            [self.weights.flat],
            lr=job.sft.learning_rate,
            betas=job.sft.betas,
            weight_decay=job.sft.weight_decay,
            fused=lm.device.type in ("cpu", "cuda"),
        )
        self._signature = signature
        try:
            if job.model.adapter is not None:
                lm.adapters.start(self.weights.name, AdapterFile.at(job.model.adapter))
            self.loss = BatchLoss(lm, job.examples, encoded, self.weights)
        except WindowshiftError:
            lm.adapters.drop(self.weights.name)
            raise

    def proofs(self) -> tuple[Proof, ...]:
        """What steering did in the steps since the start or the resumption.

        Raises:
            BackendError: it did not do what was asked.
        """
        return self.loss.proofs()

    def batch(self) -> TrainingBatch:
        """The examples of the step to come."""
        return self.loss.batch(self._batches[self.step])

    def take(self, loss: Tensor) -> None:
        """Take an optimizer step, once the gradients are in their places; `loss` is that of `batch`.

        On a CPU what is not finite is found before the step; elsewhere at the next `settle`, so that no step waits
        for the device.

        Raises:
            BackendError: the loss, or the norm of the gradients, is not finite.
        """
        sft, flat, batch = self._job.sft, self.weights.flat, self._batches[self.step]
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(sft, self.step, self.steps)
        clipped = sft.max_grad_norm is not None
        norm = nn.utils.clip_grad_norm_([flat], sft.max_grad_norm or 0.0) if clipped else torch.zeros_like(loss)
        self.step += 1
        self.examples += len(batch)
        self.tokens += _tokens(self._encoded, batch)
        self._unsettled.append((self.step, self.examples, loss.detach(), norm.detach()))
        if flat.device.type == "cpu" or len(self._unsettled) >= _UNSETTLED:
            self.settle()
        self._optimizer.step()

    def settle(self) -> None:
        """Read the losses of the steps so far.

        Raises:
            BackendError: one of them, or of the norms of gradients, is not finite.
        """
        if not self._unsettled:
            return
        found = torch.stack([part.float() for *_, loss, norm in self._unsettled for part in (loss, norm)]).tolist()
        for number, (step, examples, *_) in enumerate(self._unsettled):
            value, norm = found[2 * number : 2 * number + 2]
            if not (math.isfinite(value) and math.isfinite(norm)):
                raise BackendError(
                    f"the loss was not a finite number at step {step} of {self.steps}: "
                    f"lower the learning rate ({self._job.sft.learning_rate:g})"
                )
            self.losses.append((examples, value))
        self._unsettled.clear()

    def kept(self, *, whole: bool = False) -> Callable[[Path], None]:
        """What writes the adapter as it is now to a folder, with the signature of what determines it and its losses.

        `whole` writes what was reported too: of a job that ended it is nowhere else.
        """
        self.settle()
        adapter = self.lm.adapters.snapshot(self.weights.name)
        reports = {"reports": self.reports} if whole else {}
        said = json.dumps({"signature": self._signature, "losses": ends_of(self.losses), **reports}) + "\n"
        return lambda folder: adapter.write(folder, {SIGNATURE: said})

    def state(self) -> Callable[[Path], None]:
        """What writes the resume state as it is now to a file, whole or not at all.

        Raises:
            BackendError: steering did not do what was asked: a resumed run would not look at these steps again.
        """
        self.settle()
        self.proofs()
        optimizer = self._optimizer.state_dict()
        state = {
            "form": STATE_FORM,
            "signature": self._signature,
            "step": self.step,
            "examples": self.examples,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "reports": torch.tensor(self.reports, dtype=torch.float64),
            "weights": _copied(self.weights.state()),
            "optimizer": {**optimizer, "state": {key: _copied(one) for key, one in optimizer["state"].items()}},
        }

        def write(path: Path) -> None:
            with replacing_file(path) as partial:
                torch.save(state, partial)

        return write

    def resume(self, path: Path) -> None:
        """Go on from a saved state of this very job, if there is one."""
        if not path.is_file():
            return
        try:
            state = torch.load(path, map_location=self.lm.device, weights_only=True)
            if state["signature"] != self._signature or state.get("form") != STATE_FORM:
                return
        except Exception:  # torch raises many kinds for a damaged file; what it held can be trained again
            log.warning("the resume state %s cannot be read: this job is trained anew", path)
            path.unlink(missing_ok=True)
            return
        try:
            self.weights.restore(state["weights"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.step, self.examples = state["step"], state["examples"]
            self.losses = [(int(seen), loss) for seen, loss in state["losses"].tolist()]
            if "reports" in state:  # not in one that an older version saved
                self.reports = [(int(step), loss) for step, loss in state["reports"].tolist()]
            else:
                self.reports = [(step, loss) for step, (_, loss) in enumerate(self.losses, 1)]
            self.tokens = sum(_tokens(self._encoded, batch) for batch in self._batches[: self.step])
        except Exception as error:  # torch raises many kinds for a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BackendError(
                f"the resume state {path} cannot be read ({reason}): delete it to train this job anew"
            ) from error


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().to("cpu", copy=True) for key, value in tensors.items()}


def _check(job: TrainJob) -> None:
    total = len(job.examples) * job.sft.epochs
    if not total:
        raise BackendError("there is nothing to train on: no examples, or no epochs")
    if job.sft.rank < 1 or job.sft.batch_size < 1:
        raise BackendError("rank and batch_size must be at least 1")
    outside = [wanted for wanted in job.checkpoints if not 0 < wanted <= total]
    if outside:
        raise BackendError(f"checkpoint {outside[0]} lies outside the {total} examples of the training")


def content_digest(file: str) -> str:
    """The digest of a file's content; empty where it cannot be read, which whoever uses it will say."""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return ""


def _complete(folder: Path, signature: str) -> bool:
    """Whether a folder holds the adapter of this very training: one of another may lie at its place."""
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file() or not is_whole(folder):
        return False
    try:
        found = json.loads((folder / SIGNATURE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("signature") == signature


def _losses_in(folder: Path, kept: str = "losses") -> StepLosses:
    """The losses that were kept beside an adapter; none beside one from before they were."""
    found = json.loads((folder / SIGNATURE).read_text(encoding="utf-8")).get(kept, ())
    return tuple((int(seen), float(loss)) for seen, loss in found)


def _told_again(job: TrainJob, encoded: Sequence[TrainingTokens], reports: StepLosses) -> list[TrainEvent]:
    """What was reported of the steps up to here, as it was reported then."""
    told: list[TrainEvent] = []
    losses = dict(reports)
    seen = tokens = 0
    for step, batch in enumerate(batches(len(encoded), job.sft, job.seed) if losses else (), 1):
        seen += len(batch)
        tokens += _tokens(encoded, batch)
        if step in losses:
            told.append(TrainProgress(job.key, step, seen, losses[step], 0.0, tokens, again=True))
    return told


def _tokens(encoded: Sequence[TrainingTokens], batch: Sequence[int]) -> int:
    return sum(len(encoded[index].prompt) + len(encoded[index].completion) for index in batch)


def _signature(lm: CausalLM, job: TrainJob, encoded: Sequence[TrainingTokens]) -> str:
    """The digest of everything that determines the adapters: nothing of it is a place."""
    digest = hashlib.sha256(repr((asdict(job.sft), job.seed, lm.fingerprint)).encode())
    if job.model.adapter is not None:
        digest.update(adapter_digest(job.model.adapter).encode())
    vectors: dict[str, str] = {}
    for each, example in zip(encoded, job.examples, strict=True):
        digest.update(repr((each.prompt, each.completion)).encode())
        if each.weights is not None:
            digest.update(repr(each.weights).encode())
        for push in example.steering:
            if push.vector not in vectors:
                vectors[push.vector] = content_digest(push.vector)
            digest.update(repr(replace(push, vector=vectors[push.vector])).encode())
    return digest.hexdigest()
