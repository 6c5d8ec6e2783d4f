"""Everything that endpoints work with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from windowshift.backends.serve.batch_runner import BatchRunner
from windowshift.backends.serve.batches import Batches
from windowshift.backends.serve.files import Files
from windowshift.backends.serve.jobs import Jobs
from windowshift.backends.serve.limits import ServerLimits
from windowshift.backends.serve.sampling_queue import SamplingQueue
from windowshift.backends.serve.served_models import ServedModels
from windowshift.backends.serve.trainer import Trainer


@dataclass(frozen=True, slots=True)
class RunningServer:
    """The parts of a running server, and its data folder. `fingerprints` are those of the base models, by name."""

    folder: Path
    files: Files
    jobs: Jobs
    models: ServedModels
    trainer: Trainer
    sampling: SamplingQueue
    batches: Batches
    batch_runner: BatchRunner
    limits: ServerLimits
    fingerprints: dict[str, str]


def service(request: Request) -> RunningServer:
    """The service behind a request."""
    found: RunningServer = request.app.state.service
    return found
