"""windowshift: grids of fine-tunes and evaluations under prefixes and steering doses.

The public names are imported at their first use, so that `import windowshift` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from windowshift.core.contract.conditions import PrefixGroup
    from windowshift.core.contract.generation import Completion, Sampling, Steering
    from windowshift.core.contract.training import Sft
    from windowshift.core.measure.arm_comparison import compare_arms
    from windowshift.core.report.report import report
    from windowshift.core.run.run import run_spec
    from windowshift.core.settings.world import example_prompts
    from windowshift.core.spec.spec import load_spec
    from windowshift.local_model import LocalModel, LocalVector

_HOME = {
    "Completion": "windowshift.core.contract.generation",
    "LocalModel": "windowshift.local_model",
    "LocalVector": "windowshift.local_model",
    "PrefixGroup": "windowshift.core.contract.conditions",
    "Sampling": "windowshift.core.contract.generation",
    "Sft": "windowshift.core.contract.training",
    "Steering": "windowshift.core.contract.generation",
    "compare_arms": "windowshift.core.measure.arm_comparison",
    "example_prompts": "windowshift.core.settings.world",
    "load_spec": "windowshift.core.spec.spec",
    "report": "windowshift.core.report.report",
    "run_spec": "windowshift.core.run.run",
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
