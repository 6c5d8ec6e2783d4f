"""`python -m tests.device [DEVICE]`: every check in turn, a line each, and one summary; exit code 1 where one failed.

No pytest, and nothing that backend `local` does not need: the machine with the accelerator may have little installed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from tests.device import checks

SECONDS = 300.0  # what has not begun by then is a failure


def say(line: str) -> None:
    """Write a line at once: what was found is of use even where the machine is taken away."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run all checks on the device named, `cuda` by default."""
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if device.startswith("cuda") and not torch.cuda.is_available():
        say("FAIL: torch sees no CUDA device")
        return 1
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    say(f"device {device} ({name}), torch {torch.__version__}, transformers {transformers.__version__}")
    begun, failed, missing = time.monotonic(), [], []
    found: list[tuple[str, Callable[..., object]]] = [
        *checks.ALL,
        *(checks.CUDA if device.startswith("cuda") else ()),
    ]
    for label, check in found:
        library = "triton" if "kernel" in label else "nnsight" if "steer" in label else "torch"
        if importlib.util.find_spec(library) is None:
            missing.append(label)
            say(f"MISSING {label}: {library} is not installed here")
            continue
        at = time.monotonic()
        if at - begun > SECONDS:
            failed.append(label)
            say(f"FAIL {label}: no time left")
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                result = check(device, Path(folder))
                if asyncio.iscoroutine(result):
                    asyncio.run(result)
                word = "ok  "
            except Exception as error:
                failed.append(label)
                word = "FAIL"
                place = traceback.extract_tb(error.__traceback__)[-1]
                say(f"     {type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")
        say(f"{word} {label} ({time.monotonic() - at:.1f} s)")
    say(
        f"{'FAILED' if failed else 'PASSED'}: {len(found) - len(failed) - len(missing)} of {len(found)} checks passed, "
        f"{len(failed)} failed, {len(missing)} could not be made, in {time.monotonic() - begun:.0f} s"
    )
    for label in failed:
        say(f"  failed: {label}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
