"""Scorers in Python of a person's own: ``python: module:function`` in a spec."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Completion
from windowshift.core.contract.home import at_home
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.redaction import brief
from windowshift.core.contract.setting import Sample, Score, Scores
from windowshift.core.settings.table_file import find_file
from windowshift.core.spec.spec import read_text
from windowshift.core.spec.spec_errors import did_you_mean

SECONDS = 60.0
_OURS = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class PythonScorer:
    """A function ``(prompt, completion) -> number, None or (None, reason)``.

    It gets a `Prompt` (id, text, payload, turns) and a `Completion` (text, tokens, finish, ...). What it
    raises is a missing score with that reason.

    Attributes:
        name: the behaviour.
        behaviour: with its unit and scale.
        place: the module or file, and the function.
        source: a hash of the module's text, which is part of the score's identity.
        path: the file, where the module is one; "" is an importable module.
        rate: whether scores must be between 0 and 1.
        timeout: seconds for one completion.
    """

    name: str
    behaviour: Behaviour
    place: str
    source: str
    path: str
    rate: bool
    timeout: float = SECONDS
    batch_size: int = 8
    workers: int = 1
    process: bool = True  # a person's own code may never return

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """The one."""
        return (self.behaviour,)

    def identity(self) -> dict[str, Any]:
        """As `Scorer.identity`: the function by name and by the text of its module."""
        function = self.place.rpartition(":")[2]
        return {"scorer": "python", "version": 1, "name": self.name, "function": function, "source": self.source}

    def score_batch(self, samples: Sequence[Sample]) -> list[Scores]:
        """Call the function on some completions."""
        return [{self.name: Score(*self._called(sample))} for sample in samples]

    def _called(self, sample: Sample) -> tuple[float | None, str | None]:
        try:
            found = _function(self.place, self.path, self.source)(sample.prompt, sample.completion)
        except Exception as error:  # whatever a person's own code raises
            return None, f"{self.place} raised {_said(error)}"
        return self._read(found)

    def _read(self, found: object) -> tuple[float | None, str | None]:
        reason = None
        if isinstance(found, tuple):
            if len(found) != 2 or (found[0] is None and not isinstance(found[1], str)):
                return None, f"{self.place} gave {found!r}, which is neither a number nor (None, reason)"[:200]
            found, reason = found
        if found is None:
            return None, str(reason) if reason else f"{self.place} gave no score"
        try:
            if not isinstance(found, (Real, bool)) and type(found).__module__ != "numpy":
                raise TypeError
            value = float(found)  # type: ignore[arg-type] # numpy's numbers are no Real of typing
        except (TypeError, ValueError, OverflowError):
            return None, f"{self.place} gave {found!r}, which is no number"[:200]
        if not math.isfinite(value):
            return None, f"{self.place} gave {value}, which is no score"
        if self.rate and not 0 <= value <= 1:
            return None, f"{self.place} gave {value:g}, but a rate is between 0 and 1"
        return value, None


def load_python_scorer(
    place: str, behaviour: Behaviour, where: str, folder: Path, *, rate: bool, timeout: float | None = None
) -> PythonScorer:
    """Find a scorer's function.

    Args:
        place: ``module:function`` or ``file.py:function``; a module beside the spec comes first.
        behaviour: what it measures.
        where: the place in the spec.
        folder: of the spec.
        rate: whether its scores are between 0 and 1.
        timeout: seconds for one completion.

    Raises:
        SpecError: there is no such module or function, it cannot be imported, or it does not take two arguments.
    """
    module, _, name = place.rpartition(":")
    if not module or not name.isidentifier():
        raise SpecError(f"{where}.python is '{place}', but it must be module:function or file.py:function")
    key, text = _file(module, folder)
    if not key:
        text = _source_of(module, where)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    try:
        function = _function(place, key, digest)
    except AttributeError as error:
        known = [one for one, value in vars(_module(place, key, digest)).items() if inspect.isfunction(value)]
        raise SpecError(f"{where}.python: '{module}' has no function '{name}'{did_you_mean(name, known)}") from error
    except Exception as error:  # whatever the module does when it is imported
        raise SpecError(f"{where}.python: '{module}' cannot be imported: {_said(error)}") from error
    _check_function(function, place, where)
    return PythonScorer(behaviour.name, behaviour, place, digest, key, rate, timeout or SECONDS)


def _file(module: str, folder: Path) -> tuple[str, str]:
    """The path and the text of a module that is a file; both empty for an importable one."""
    named = module.endswith(".py")
    path = at_home(module) if named else Path(*module.split(".")).with_suffix(".py")
    path = find_file(str(path), folder) if named else folder / path
    if not named and not path.is_file():
        return "", ""
    text = read_text(path, "scorer")
    _check_text(text, path)
    return str(path.resolve()), text


def _check_text(text: str, path: Path) -> None:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError) as error:
        line = f" line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise SpecError(f"{path}{line} is not Python: {error.msg if isinstance(error, SyntaxError) else error}") from (
            error
        )


def _source_of(module: str, where: str) -> str:
    try:
        return inspect.getsource(importlib.import_module(module))
    except ModuleNotFoundError as error:
        raise SpecError(
            f"{where}.python: there is no module '{error.name}' beside the spec or among the installed packages"
        ) from error
    except (OSError, TypeError) as error:
        raise SpecError(f"{where}.python: '{module}' has no Python source, so its scores have no identity") from error
    except Exception as error:  # whatever the module does when it is imported
        raise SpecError(f"{where}.python: '{module}' cannot be imported: {_said(error)}") from error


def _check_function(function: object, place: str, where: str) -> None:
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise SpecError(f"{where}.python: '{place}' is not a plain function")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise SpecError(f"{where}.python: '{place}' must take two arguments, (prompt, completion): {error}") from error
    except ValueError:
        pass  # some built-in functions have no signature


def _function(place: str, path: str, source: str) -> Callable[[Prompt, Completion], object]:
    found: Callable[[Prompt, Completion], object] = getattr(_module(place, path, source), place.rpartition(":")[2])
    return found


def _module(place: str, path: str, source: str) -> ModuleType:
    """The module of a scorer, loaded once a process for each text of its file."""
    if not path:
        return importlib.import_module(place.rpartition(":")[0])
    name = f"_windowshift_scorer_{hashlib.sha256(f'{path}:{source}'.encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        if hashlib.sha256(read_text(Path(path), "scorer").encode()).hexdigest()[:16] != source:
            raise ImportError(f"{path} was changed since the run began: run again")
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _said(error: BaseException) -> str:
    """An error of a person's code in one line, with the line that it came from."""
    # The last line of their own: what it calls here, or in a library, is not what a person can mend.
    everything = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in everything if not Path(frame.filename).is_relative_to(_OURS)] or everything
    line = f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if frames else ""
    return f"{type(error).__name__}: {brief(error, 160)}{line}"
