"""windowshift: grids of fine-tunes and evaluations under prefixes and steering doses.

The public names are imported at their first use, so that `import windowshift` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from windowshift.core.arms import compare_arms
    from windowshift.core.conditions import PrefixGroup
    from windowshift.core.generation import Completion, Sampling, Steering
    from windowshift.core.report import report
    from windowshift.core.run import run_spec
    from windowshift.core.spec import load_spec
    from windowshift.core.training import Sft
    from windowshift.core.world import example_prompts
    from windowshift.local_model import LocalModel, LocalVector

_HOME = {
    "Completion": "windowshift.core.generation",
    "LocalModel": "windowshift.local_model",
    "LocalVector": "windowshift.local_model",
    "PrefixGroup": "windowshift.core.conditions",
    "Sampling": "windowshift.core.generation",
    "Sft": "windowshift.core.training",
    "Steering": "windowshift.core.generation",
    "compare_arms": "windowshift.core.arms",
    "example_prompts": "windowshift.core.world",
    "load_spec": "windowshift.core.spec",
    "report": "windowshift.core.report",
    "run_spec": "windowshift.core.run",
}

__all__ = [
    "Completion",
    "LocalModel",
    "LocalVector",
    "PrefixGroup",
    "Sampling",
    "Sft",
    "Steering",
    "__version__",
    "compare_arms",
    "example_prompts",
    "load_spec",
    "report",
    "run_spec",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'windowshift' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
