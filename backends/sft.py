"""LoRA fine-tuning of one adapter, step by step, resumable to the byte."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from windowshift.backends.adapters import CONFIG, WEIGHTS
from windowshift.backends.causal_lm import CausalLM
from windowshift.backends.chat_format import TrainingTokens
from windowshift.backends.schedule import batches, learning_rate
from windowshift.core.backend import Checkpointed, Trained, TrainEvent, TrainJob, TrainProgress
from windowshift.core.errors import BackendError
from windowshift.core.proof import Proof
from windowshift.steering.spans import Spans

if TYPE_CHECKING:
    from windowshift.steering.intervene import Intervention

PROGRESS_SECONDS = 0.2
_ENCODE_AT_ONCE = 64


def train(
    lm: CausalLM, job: TrainJob, state_seconds: float, progress_seconds: float | None = None
) -> Iterator[list[TrainEvent]]:
    """Train one adapter; each step of the iterator is one optimizer step, or less.

    The loss is the mean over all completion tokens of a batch, end token included, in nats. The
    first epoch takes the examples as given, each further one a permutation that the seed
    determines. Checkpoints are taken at the first whole batch that reaches the wanted number of
    examples. Saved adapters are reported anew by a job that goes on, so that no event is lost to a
    kill. Dropout is off, so weights, optimizer and step number are all the state there is.

    Raises:
        BackendError: the job cannot be trained, or its loss is not a number any more.
    """
    progress_every = PROGRESS_SECONDS if progress_seconds is None else progress_seconds
    final = job.output / "adapter"
    folders = {wanted: job.output / f"checkpoint-{wanted}" for wanted in sorted(set(job.checkpoints))}
    _check(job)
    total_examples = len(job.examples) * job.sft.epochs
    if _complete(final) and all(map(_complete, folders.values())):
        yield [
            *(Checkpointed(job.key, wanted, str(folder)) for wanted, folder in folders.items()),
            Trained(job.key, str(final), total_examples),
        ]
        return
    encoded: list[TrainingTokens] = []
    for index in range(len(job.examples)):
        encoded.append(_encode(lm, job, index))
        if len(encoded) % _ENCODE_AT_ONCE == 0:
            yield []
    run = _Run(lm, job, encoded)
    try:
        state = job.output / "state.pt"
        run.resume(state)
        reached = [wanted for wanted in folders if run.examples >= wanted]
        yield [Checkpointed(job.key, wanted, str(folders[wanted])) for wanted in reached]
        saved_at = reported_at = time.monotonic()
        losses: list[float] = []
        tokens = 0
        while run.step < run.steps:
            loss, count = run.advance()
            losses.append(loss)
            tokens += count
            events: list[TrainEvent] = []
            now = time.monotonic()
            if now - reported_at >= progress_every or run.step == run.steps:
                speed = tokens / max(now - reported_at, 1e-9)
                mean = sum(losses) / len(losses)
                events.append(TrainProgress(job.key, run.step, run.examples, mean, speed, run.tokens))
                losses, tokens, reported_at = [], 0, now
            for wanted, folder in folders.items():
                if run.examples >= wanted and wanted not in reached:
                    run.proofs()
                    lm.adapters.save(run.name, folder)
                    reached.append(wanted)
                    events.append(Checkpointed(job.key, wanted, str(folder)))
            if run.step < run.steps and now - saved_at >= state_seconds:
                run.save(state)
                saved_at = now
            yield events
        proofs = run.proofs()  # before the adapter counts as trained
        lm.adapters.save(run.name, final)
        state.unlink(missing_ok=True)
        yield [Trained(job.key, str(final), total_examples, proofs=proofs)]
    finally:
        lm.adapters.drop(run.name)


class _Run:
    """An adapter in training: its parameters, optimizer and place in the data."""

    def __init__(self, lm: CausalLM, job: TrainJob, encoded: Sequence[TrainingTokens]) -> None:
        self._lm, self._job, self._encoded = lm, job, encoded
        self._batches = batches(len(encoded), job.sft, job.seed)
        self.steps = len(self._batches)
        self.step = self.examples = self.tokens = 0
        self.name, self._parameters = lm.adapters.create(job.sft, job.seed)
        self._optimizer = torch.optim.AdamW(
            list(self._parameters.values()),
            lr=job.sft.learning_rate,
            betas=job.sft.betas,
            weight_decay=job.sft.weight_decay,
            fused=lm.device.type in ("cpu", "cuda"),
        )
        self._signature = _signature(job, encoded)
        self._steer: Intervention | None = None
        if any(example.steering for example in job.examples):
            from windowshift.steering.intervene import Intervention

            self._steer = Intervention(lm.training_points, fingerprint=lm.fingerprint)
            self._recipes = [self._steer.recipe(example.steering) for example in job.examples]

    def proofs(self) -> tuple[Proof, ...]:
        """What steering did in the steps since the start or the resumption.

        Raises:
            BackendError: it did not do what was asked.
        """
        return () if self._steer is None else tuple(self._steer.check())

    def advance(self) -> tuple[float, int]:
        """Take one optimizer step; its loss and the number of tokens in the batch."""
        sft = self._job.sft
        self._lm.adapters.use(self.name)
        batch = self._batches[self.step]
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(sft, self.step, self.steps)
        with torch.enable_grad():
            loss = self._loss(batch)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        value = float(loss.detach())
        if sft.max_grad_norm is not None:
            norm = float(nn.utils.clip_grad_norm_(list(self._parameters.values()), sft.max_grad_norm))
        else:
            norm = 0.0
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise BackendError(
                f"the loss was not a finite number at step {self.step + 1} of {self.steps}: "
                f"lower the learning rate ({sft.learning_rate:g})"
            )
        self._optimizer.step()
        self.step += 1
        self.examples += len(batch)
        count = sum(len(self._encoded[index].prompt) + len(self._encoded[index].completion) for index in batch)
        self.tokens += count
        return value, count

    def save(self, path: Path) -> None:
        """Write the resume state, whole or not at all.

        Raises:
            BackendError: steering did not do what was asked: a resumed run would not look at these steps again.
        """
        self.proofs()
        partial = path.with_suffix(".partial")
        weights = {key.replace(self.name, "adapter"): value for key, value in self._parameters.items()}
        state = {
            "signature": self._signature,
            "step": self.step,
            "examples": self.examples,
            "weights": {key: value.detach() for key, value in weights.items()},
            "optimizer": self._optimizer.state_dict(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a saved state of this very job, if there is one."""
        if not path.is_file():
            return
        try:
            state = torch.load(path, map_location=self._lm.device, weights_only=True)
            if state["signature"] != self._signature:
                return
            with torch.no_grad():
                for key, value in self._parameters.items():
                    value.copy_(state["weights"][key.replace(self.name, "adapter")])
            self._optimizer.load_state_dict(state["optimizer"])
            self.step, self.examples = state["step"], state["examples"]
            done = [self._encoded[index] for batch in self._batches[: self.step] for index in batch]
            self.tokens = sum(len(each.prompt) + len(each.completion) for each in done)
        except Exception as error:  # torch raises many kinds for a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BackendError(
                f"the resume state {path} cannot be read ({reason}): delete it to train this job anew"
            ) from error

    def _loss(self, chosen: Sequence[int]) -> Tensor:
        """Mean cross entropy over the completion tokens of the examples `chosen`, each steered in its own way.

        Rows are padded on the right, which causal attention never looks at from a real token, so
        no mask is needed.
        """
        batch = [self._encoded[index] for index in chosen]
        width = max(len(each.prompt) + len(each.completion) for each in batch)
        first = max(min(len(each.prompt) for each in batch) - 1, 0)  # the earliest column with a loss
        rows = [[*each.prompt, *each.completion] for each in batch]
        # Padding repeats the row's first token: models warn about pad tokens without a mask.
        ids = torch.tensor([row + row[:1] * (width - len(row)) for row in rows])
        labels = torch.full((len(batch), width - first), -100, dtype=torch.long)
        for i, each in enumerate(batch):
            start, end = len(each.prompt), len(each.prompt) + len(each.completion)
            labels[i, start - 1 - first : end - 1 - first] = torch.tensor(each.completion)
        inputs: dict[str, Any] = {"input_ids": ids.to(self._lm.device), "use_cache": False}
        if self._lm.keeps_logits:
            inputs["logits_to_keep"] = width - first
        if self._steer is None:
            output = self._lm.model(**inputs)
        else:
            prompts, completions = [len(each.prompt) for each in batch], [len(each.completion) for each in batch]
            spans = Spans.sequences(prompts, completions, width, self._lm.device)
            output = self._steer([self._recipes[index] for index in chosen], spans, **inputs)
        logits = output.logits[:, first - width :]
        learned = labels != -100
        target = labels[learned].to(self._lm.device)
        return nn.functional.cross_entropy(logits[learned.to(self._lm.device)].float(), target)


def _check(job: TrainJob) -> None:
    total = len(job.examples) * job.sft.epochs
    if not total:
        raise BackendError("there is nothing to train on: no examples, or no epochs")
    if job.sft.rank < 1 or job.sft.batch_size < 1:
        raise BackendError("rank and batch_size must be at least 1")
    if job.model.adapter is not None:
        raise BackendError("backend 'local' trains adapters on base models, not on top of another adapter")
    outside = [wanted for wanted in job.checkpoints if not 0 < wanted <= total]
    if outside:
        raise BackendError(f"checkpoint {outside[0]} lies outside the {total} examples of the training")


def _encode(lm: CausalLM, job: TrainJob, index: int) -> TrainingTokens:
    example = job.examples[index]
    try:
        tokens = lm.chat.training_tokens(example.messages, example.completion)
    except BackendError as error:
        raise BackendError(f"example {index + 1}: {error}") from error
    length = len(tokens.prompt) + len(tokens.completion)
    if lm.context is not None and length > lm.context:
        raise BackendError(
            f"example {index + 1} has {length} tokens, more than the {lm.context} of the model's context: "
            "shorten or remove it"
        )
    return tokens


def _complete(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def _signature(job: TrainJob, encoded: Sequence[TrainingTokens]) -> str:
    digest = hashlib.sha256(repr((asdict(job.sft), job.seed, job.model.base)).encode())
    for each, example in zip(encoded, job.examples, strict=True):
        digest.update(repr((each.prompt, each.completion)).encode())
        if example.steering:
            digest.update(repr(example.steering).encode())
    return digest.hexdigest()
