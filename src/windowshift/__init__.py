"""windowshift: grids of fine-tunes and evaluations under prefixes and steering doses.

The public names, for notebooks and for packages that add a setting, a scorer or a backend:

- running and reading: `load_spec`, `run_spec`, `report`, `compare_arms`, `frames` (DataFrames of cells, rows, points,
  fits and completions), `figures` (drawn in a notebook), `Reader` (queries over a workspace).
- settings and scorers: `Setting`, `Prompt`, `Behaviour`, `Scale`, the protocols `Scorer`, `RowScorer`, `BatchScorer`,
  `ModelScorer` and `DerivedScorer`, what they take and give (`Sample`, `Score`, `Question`), `Condition` and
  `PrefixGroup`.
- backends: `Backend`, `Capabilities`, `GenerateRequest`, `Completion`, `Message`, `Model`, `Sampling`, `Steering`,
  `TrainJob`, `Example`, `Sft`.
- steering and training in a notebook: `LocalModel`, `LocalVector`, `example_prompts`.
- what is raised: `WindowshiftError`, with one sentence; `SpecError` and `BackendError` are two of its kinds.

They are imported at their first use, so that `import windowshift` stays quick.
"""

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and sys.path[:1]:
    # `python -m windowshift` puts the working folder before the library: a `random.py` there, which is a person's own,
    # would be taken for the library's. Before anything else is imported, `__future__` included.
    _asked = [word.removeprefix("-m") for word in sys.orig_argv[1:]]
    if any(word.split(".")[0] == "windowshift" for word in _asked):
        del sys.path[0]

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from windowshift.core.contract.backend import Backend, Capabilities
    from windowshift.core.contract.conditions import Condition, PrefixGroup
    from windowshift.core.contract.errors import BackendError, SpecError, WindowshiftError
    from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling, Steering
    from windowshift.core.contract.prompts import Prompt
    from windowshift.core.contract.records import Behaviour
    from windowshift.core.contract.scale import Scale
    from windowshift.core.contract.setting import (
        BatchScorer,
        DerivedScorer,
        ModelScorer,
        Question,
        RowScorer,
        Sample,
        Score,
        Scorer,
        Setting,
    )
    from windowshift.core.contract.training import Example, Sft, TrainJob
    from windowshift.core.measure.arm_comparison import compare_arms
    from windowshift.core.report import frames
    from windowshift.core.report.inline_figures import figures
    from windowshift.core.report.report import report
    from windowshift.core.settings.world import example_prompts
    from windowshift.core.spec.spec import load_spec
    from windowshift.core.store.reader import Reader
    from windowshift.count_bar import run_spec
    from windowshift.local_model import LocalModel
    from windowshift.local_vector import LocalVector

_NAMES = {
    "windowshift.core.contract.backend": ("Backend", "Capabilities"),
    "windowshift.core.contract.conditions": ("Condition", "PrefixGroup"),
    "windowshift.core.contract.errors": ("BackendError", "SpecError", "WindowshiftError"),
    "windowshift.core.contract.generation": (
        *("Completion", "GenerateRequest", "Message", "Model", "Sampling", "Steering"),
    ),
    "windowshift.core.contract.prompts": ("Prompt",),
    "windowshift.core.contract.records": ("Behaviour",),
    "windowshift.core.contract.scale": ("Scale",),
    "windowshift.core.contract.setting": (
        "BatchScorer",
        "DerivedScorer",
        "ModelScorer",
        "Question",
        "RowScorer",
        "Sample",
        "Score",
        "Scorer",
        "Setting",
    ),
    "windowshift.core.contract.training": ("Example", "Sft", "TrainJob"),
    "windowshift.core.measure.arm_comparison": ("compare_arms",),
    "windowshift.core.report.inline_figures": ("figures",),
    "windowshift.core.report.report": ("report",),
    "windowshift.count_bar": ("run_spec",),
    "windowshift.core.settings.world": ("example_prompts",),
    "windowshift.core.spec.spec": ("load_spec",),
    "windowshift.core.store.reader": ("Reader",),
    "windowshift.local_model": ("LocalModel",),
    "windowshift.local_vector": ("LocalVector",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "Backend",
    "BackendError",
    "BatchScorer",
    "Behaviour",
    "Capabilities",
    "Completion",
    "Condition",
    "DerivedScorer",
    "Example",
    "GenerateRequest",
    "LocalModel",
    "LocalVector",
    "Message",
    "Model",
    "ModelScorer",
    "PrefixGroup",
    "Prompt",
    "Question",
    "Reader",
    "RowScorer",
    "Sample",
    "Sampling",
    "Scale",
    "Score",
    "Scorer",
    "Setting",
    "Sft",
    "SpecError",
    "Steering",
    "TrainJob",
    "WindowshiftError",
    "__version__",
    "compare_arms",
    "example_prompts",
    "figures",
    "frames",
    "load_spec",
    "report",
    "run_spec",
]


def __getattr__(name: str) -> Any:
    if name == "frames":
        return import_module("windowshift.core.report.frames")
    if name not in _HOME:
        raise AttributeError(f"module 'windowshift' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
