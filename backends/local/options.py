"""The options of backend `local`."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from windowshift.backends.local.cluster.options import RaySection, SlurmSection
from windowshift.backends.shared.options import BackendOptions, Seconds, WholeOrNone
from windowshift.core.spec.spec_errors import did_you_mean

_DTYPES = ("auto", "float64", "float32", "bfloat16", "float16")


_PRECISIONS = ("none", "8bit", "4bit")
_MAPS = ("none", "auto", "balanced", "balanced_low_0", "sequential")


def _one_of(known: tuple[str, ...], name: str) -> str:
    if name not in known:
        raise ValueError(f"there is no '{name}'{did_you_mean(name, known)}")
    return name


_dtype, _precision, _map = (partial(_one_of, known) for known in (_DTYPES, _PRECISIONS, _MAPS))


Text = Annotated[str, Field(min_length=1)]


class LocalOptions(BackendOptions):
    """How backend `local` computes.

    Attributes:
        device: ``auto`` (cuda where there is one), ``cpu``, ``cuda``, ``cuda:1``, ...
        dtype: ``auto`` or a torch dtype name. ``auto`` samples in float64 from CPU models below
            50 M parameters (where their architecture knows it), in float32 from larger ones, and in bfloat16
            on cuda.
        batch_rows: completions decoded at once; 0 chooses: on a CPU by model size, on cuda by memory.
        threads: CPU threads; 0 takes one for a very small model, torch's choice otherwise.
        workers: processes that share the work on a very small CPU model, or one a GPU where there are several;
            0 takes one a core or GPU, 1 stays in this process.
        attention: a transformers attention implementation (``sdpa``, ``eager``,
            ``flash_attention_2``, ...); ``auto`` takes flash attention on cuda where installed.
        gradient_checkpointing: whether training computes each layer's numbers twice in place of keeping them: a
            third more work, and memory for a much longer batch.
        quantise: ``none``, or ``8bit`` or ``4bit``: the base model's weights by bitsandbytes, on cuda only.
        device_map: how a base that does not fit on one GPU is spread over those of the machine (``auto``,
            ``balanced``, ``balanced_low_0``, ``sequential``; see accelerate); ``none`` keeps it on one.
        state_seconds: a training job saves its resume state this often; 0 is after every step.
        progress_seconds: a training job reports its loss this often; 0 is after every step, None what
            suits a screen.
        executor: where workers are: ``machine`` (this one), ``ray`` or ``slurm``. Elsewhere than here any model
            has workers; `workers` is then the most of them on a Ray cluster, 0 as many as there is room for, and the
            number of jobs of Slurm.
        ray: the cluster, for ``executor: ray``.
        slurm: the jobs, for ``executor: slurm``.
    """

    backend: ClassVar[str] = "local"

    device: Text = "auto"
    dtype: Annotated[str, AfterValidator(_dtype)] = "auto"
    batch_rows: WholeOrNone = 0
    threads: WholeOrNone = 0
    workers: WholeOrNone = 0
    attention: Text = "auto"
    gradient_checkpointing: bool = False
    quantise: Annotated[str, AfterValidator(_precision)] = "none"
    device_map: Annotated[str, AfterValidator(_map)] = "none"
    state_seconds: Seconds = 20.0
    progress_seconds: Seconds | None = None
    executor: Literal["machine", "ray", "slurm"] = "machine"
    ray: RaySection = Field(default_factory=RaySection)
    slurm: SlurmSection = Field(default_factory=SlurmSection)
