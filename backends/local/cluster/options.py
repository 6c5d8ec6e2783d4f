"""What stands under `ray` and `slurm` in the options of backend `local`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from windowshift.backends.shared.options import Seconds, Whole, WholeOrNone
from windowshift.core.spec.section import Number, Section

Text = Annotated[str, Field(min_length=1)]
Share = Annotated[Number, Field(gt=0, le=100_000)]


class RaySection(Section):
    """A Ray cluster, and what one worker takes of a node.

    Attributes:
        address: ``auto`` (the cluster that this machine belongs to, or `RAY_ADDRESS`), ``HOST:PORT``, or ``local``
            for one that is started here and ends with the run.
        cpus: CPUs of a worker.
        gpus: GPUs of a worker; a fraction lets several share one. None takes one where the cluster has any.
        artifacts: a folder that all nodes see, or another place that fsspec reads and writes (``s3://BUCKET/...``),
            through which adapters, vectors and states go; None takes Ray's object store.
        patience: how long to wait, in seconds, where no node has room.
    """

    address: Text = "auto"
    cpus: Share = 1.0
    gpus: Annotated[Number, Field(ge=0, le=1000)] | None = None
    artifacts: Text | None = None
    patience: Seconds = 600.0


class SlurmSection(Section):
    """What one worker, a job of a Slurm array, asks for.

    Attributes:
        folder: a folder that all machines see: jobs, their logs, and the artifacts on their way.
        minutes: a job's time limit. One whose time is over is queued again and loses nothing but its last seconds.
        cpus: CPUs of a job.
        gpus: GPUs of a job.
        parameters: further ones of sbatch by their long names, as submitit has them: ``{partition: gpu, mem: 80GB,
            account: ...}``.
        host: the name or address under which jobs reach this machine; None takes its own name.
        patience: how long to wait, in seconds, for the first job to start.
        cluster: ``slurm``, or ``local`` for jobs that are processes of this machine.
    """

    folder: Text = "~/.windowshift/slurm"
    minutes: Whole = 240
    cpus: Whole = 1
    gpus: WholeOrNone = 0
    parameters: dict[str, Any] = Field(default_factory=dict)
    host: Text | None = None
    patience: Seconds = 86_400.0
    cluster: Literal["slurm", "local"] = "slurm"
