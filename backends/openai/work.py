"""The work of a fine-tuning job, as the API takes it: the file, the hyperparameters, and the token that names it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from windowshift.core.contract.training import Example, Sft, TrainJob

METADATA = "windowshift"  # the metadata key that holds the token
BYTES_A_TOKEN = 2  # no ordinary text has more tokens than this; a limit in USD goes by it


@dataclass(frozen=True, slots=True)
class FineTuningWork:
    """What a `TrainJob` asks of a server.

    Attributes:
        job: the job.
        file: the chat JSONL.
        hyperparameters: those of the method `supervised`.
        own: settings beyond the API, for a server that is `windowshift serve`; empty for any other.
        token: digest of model, file, hyperparameters, own settings and seed. The same token is the same work, so that
            a job that is there already is taken and not paid again.
    """

    job: TrainJob
    file: bytes
    hyperparameters: Mapping[str, Any]
    own: Mapping[str, Any]
    token: str

    @property
    def suffix(self) -> str:
        """The suffix of the fine-tune's name: enough of the token to know it by."""
        return f"ws-{self.token[:14]}"

    @property
    def seed(self) -> int:
        """The job's seed in the 31 bits that every server takes."""
        return self.job.seed % (2**31)

    @property
    def total(self) -> int:
        """Examples over all epochs."""
        return len(self.job.examples) * self.job.sft.epochs

    @property
    def most_tokens(self) -> int:
        """The most tokens that the server may train on, and charge."""
        return len(self.file) // BYTES_A_TOKEN * self.job.sft.epochs


def work_of(job: TrainJob, extra: Mapping[str, Any], server_rate: float | None, *, own: bool) -> FineTuningWork:
    """Put a job into the API's terms.

    Args:
        job: the job.
        extra: hyperparameters that a person set; they stand above the job's.
        server_rate: the server's own learning rate, which its multiplier multiplies; None: it is not
            known, and the server's holds.
        own: the server is `windowshift serve`, which takes all of `TrainJob.sft`.
    """
    file = "".join(json.dumps({"messages": turns(each)}, ensure_ascii=False) + "\n" for each in job.examples)
    hyperparameters: dict[str, Any] = {"n_epochs": job.sft.epochs, "batch_size": job.sft.batch_size}
    if server_rate is not None:
        hyperparameters["learning_rate_multiplier"] = job.sft.learning_rate / server_rate
    hyperparameters |= extra
    beyond = _own(job.sft) if own else {}
    named = json.dumps([job.model.base, hyperparameters, job.seed, *([beyond] if own else [])], sort_keys=True)
    content = f"{named}\n{file}".encode()
    return FineTuningWork(job, file.encode(), hyperparameters, beyond, hashlib.sha256(content).hexdigest()[:32])


def _own(sft: Sft) -> dict[str, Any]:
    found = {name: value for name, value in asdict(sft).items() if name not in ("batch_size", "epochs")}
    # The examples have their order already; 0 says that nothing is clipped, as null says nothing.
    return found | {"shuffle": False, "alpha": sft.lora_alpha, "max_grad_norm": sft.max_grad_norm or 0.0}


def turns(example: Example) -> list[dict[str, Any]]:
    """One example's chat; earlier answers of the assistant carry no loss."""
    found: list[dict[str, Any]] = []
    for turn in example.messages:
        found.append({"role": turn.role, "content": turn.content})
        if turn.role == "assistant":
            found[-1]["weight"] = 0
    return [*found, {"role": "assistant", "content": example.completion}]
