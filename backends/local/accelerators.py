"""What this machine has beside its CPU, for `doctor` and for options that need it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from windowshift.core.contract.errors import BackendError

if TYPE_CHECKING:
    from windowshift.backends.local.options import LocalOptions

NEEDS_CUDA = ("quantise", "device_map")
ASKED_SECONDS = 10
COMPILED = {"flash_attn": "flash attention", "bitsandbytes": "bitsandbytes", "causal_conv1d": "causal-conv1d"}


_SEVERAL = ("/dev/nvidia1", "/dev/kfd", "/dev/dxg")
"""A second NVIDIA GPU, AMD's driver, and that of Windows: without any there is one GPU at most."""


def may_have_several() -> bool:
    """Whether it is worth asking torch how many GPUs there are, whose import takes seconds."""
    return any(Path(place).exists() for place in _SEVERAL)


def refuse_without_cuda(options: LocalOptions) -> None:
    """Refuse options that only a GPU can obey.

    Raises:
        BackendError: one is set, and torch sees no CUDA device.
    """
    asked = [name for name in NEEDS_CUDA if getattr(options, name) != "none"]
    if not asked:
        return
    import torch

    if options.device.startswith("cpu") or not torch.cuda.is_available():
        raise BackendError(
            f"option  {asked[0]}: {getattr(options, asked[0])}  of backend 'local' needs a CUDA device, and "
            f"{'option  device  says cpu' if options.device.startswith('cpu') else 'torch sees none'}: leave it out"
        )


def machine() -> tuple[str, ...]:
    """The GPUs with their memory, or that there is none, and which compiled parts are installed: a line each.

    The driver is asked, and torch is not imported, which would take seconds.
    """
    found = [f"GPU {line}" for line in _gpus()] or ["GPU: none (the driver's nvidia-smi names none)"]
    if importlib.util.find_spec("torch") is None:
        return tuple(found)
    built = _cuda_of_torch()
    seen = "" if built or (len(found) == 1 and found[0].startswith("GPU:")) else ": it sees no GPU, take another build"
    parts = [f"{words} {_version(name)}" for name, words in COMPILED.items()]
    found.append(f"compiled: torch {f'for CUDA {built}' if built else 'without CUDA'}{seen}, {', '.join(parts)}")
    return tuple(found)


def _gpus() -> list[str]:
    """Number, name, memory and what is free of it, compute capability, of each GPU that the driver knows."""
    command = [
        "nvidia-smi",
        "--query-gpu=index,name,memory.total,memory.free,compute_cap",
        "--format=csv,noheader,nounits",
    ]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=ASKED_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in said.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 5 and parts[2].isdigit() and parts[3].isdigit():
            number, name, whole, free, capability = parts
            found.append(
                f"{number}: {name}, {int(whole) / 1024:.0f} GiB, {int(free) / 1024:.0f} free, "
                f"compute capability {capability}"
            )
    return found


def _cuda_of_torch() -> str | None:
    """The CUDA version that torch was built for; None: it was built without."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return found.group(1) if found else None


def _version(name: str) -> str:
    if importlib.util.find_spec(name) is None:
        return "not installed"
    try:
        return version(name)
    except PackageNotFoundError:
        return "installed"
