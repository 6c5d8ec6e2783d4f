"""The spec: a YAML file that describes one experiment completely."""

from __future__ import annotations

import datetime
import stat
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.whole_text import require_whole
from windowshift.core.spec.contrasts import Contrast
from windowshift.core.spec.file_kind import other_kind
from windowshift.core.spec.guard_section import GuardSection
from windowshift.core.spec.inside_section import InsideSection
from windowshift.core.spec.preflight_section import PreflightSection
from windowshift.core.spec.scorer_section import ScorerSection
from windowshift.core.spec.section import Section
from windowshift.core.spec.sections import (
    MOST_CHECKPOINTS,
    BackendChoice,
    Channels,
    Checkpoints,
    Conditions,
    Data,
    InspectPrompts,
    JudgeSection,
    LimitsSection,
    PromptDataset,
    PromptFile,
    SamplingSection,
    SettingChoice,
    SftSection,
)
from windowshift.core.spec.selection_section import SelectionSection
from windowshift.core.spec.spec_errors import sentence
from windowshift.core.spec.trainer_data import TrainerData
from windowshift.core.spec.vector_spec import VectorSpec
from windowshift.core.spec.yaml_text import LONGEST, read_yaml


class Spec(Section):
    """One experiment.

    `date` is the day that a chat template takes for today, and `template` holds its switches (`enable_thinking`,
    `reasoning_effort`, ...). `score` says what is scored of a model that thinks: its answers, unless asked. `contrasts`
    are the comparisons that the experiment is for: they change no job, and are reported first. `guards` are settings
    that are measured beside the grid, on prompts of their own. `preflight` is a pilot that must pass before anything is
    trained, `selection` what `windowshift select` chose the train conditions by, `inside` what is read in the model.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,79}$")]
    setting: str | SettingChoice = "length"
    model: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    adapter: Annotated[str, Field(min_length=1)] | None = None
    date: Annotated[datetime.date, Field(strict=False)] | None = None
    template: dict[str, str | int | float | bool | None] = {}
    backend: str | BackendChoice = "local"
    backend_options: dict[str, Any] = {}
    conditions: Conditions
    vectors: dict[str, VectorSpec] = {}
    channel: Channels = Channels()
    prompts: str | PromptFile | PromptDataset | InspectPrompts | TrainerData | None = None
    data: Data = Data()
    sft: SftSection = SftSection()
    sampling: SamplingSection = SamplingSection()
    checkpoints: Checkpoints | None = None
    limits: LimitsSection = LimitsSection()
    score: Literal["answer", "reasoning", "both"] = "answer"
    scorers: list[ScorerSection] = []
    judges: list[JudgeSection] = []
    guards: Annotated[list[str | GuardSection], Field(max_length=100)] = []
    seeds: Annotated[list[int], Field(min_length=1, max_length=10_000)] = [0]
    contrasts: Annotated[list[Contrast], Field(max_length=1000)] = []
    preflight: PreflightSection | None = None
    selection: SelectionSection | None = None
    inside: InsideSection | None = None

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: list[int]) -> list[int]:
        if len(set(value)) != len(value):
            raise ValueError("every seed may stand there once only")
        return value

    @model_validator(mode="after")
    def _checkpoints_that_a_run_can_keep(self) -> Spec:
        every = self.checkpoints.every if self.checkpoints else None
        if every and self.data.size * self.sft.epochs // every > MOST_CHECKPOINTS:
            raise ValueError(f"checkpoints.every {every} comes to more than {MOST_CHECKPOINTS:,}: take a larger one")
        return self

    @property
    def day(self) -> str | None:
        """The day that a chat template takes for today, in ISO 8601; None: the plan's."""
        return None if self.date is None else self.date.isoformat()

    @property
    def setting_name(self) -> str:
        """The setting, whatever its options."""
        return self.setting if isinstance(self.setting, str) else self.setting.name

    @property
    def setting_options(self) -> dict[str, Any]:
        """What stands beside the setting's name."""
        return {} if isinstance(self.setting, str) else dict(self.setting.model_extra or {})

    @property
    def train_backend(self) -> str:
        """The backend that trains."""
        return self.backend if isinstance(self.backend, str) else self.backend.train

    @property
    def generate_backend(self) -> str:
        """The backend that generates and evaluates."""
        return self.backend if isinstance(self.backend, str) else self.backend.generate

    @property
    def vector_backends(self) -> tuple[str, ...]:
        """The backends that may make vectors, the better choice first."""
        return tuple(dict.fromkeys((self.generate_backend, self.train_backend)))

    @property
    def judge_backend(self) -> str | None:
        """The backend of the prompt filter's judge; None: there is no judge."""
        judge = self.data.filter.judge if self.data.filter else None
        return None if judge is None else judge.backend or self.generate_backend

    @property
    def backends(self) -> set[str]:
        """Every backend that the spec names."""
        judges = {judge.backend or self.generate_backend for judge in self.judges}
        return {self.train_backend, self.generate_backend, self.judge_backend or self.generate_backend} | judges

    def options_of(self, backend: str) -> dict[str, Any]:
        """The options of one backend: all of `backend_options`, or those under its name."""
        if self.backend_options and all(
            name in self.backends and isinstance(value, dict) for name, value in self.backend_options.items()
        ):
            return dict(self.backend_options.get(backend, {}))
        return self.backend_options

    def with_option(self, backend: str, name: str, value: Any) -> Spec:
        """The same spec with one more option of a backend that it names.

        Raises:
            SpecError: it does not name that backend.
        """
        if backend not in self.backends:
            named = " and ".join(sorted(self.backends))
            raise SpecError(f"'{name}' is an option of backend '{backend}', and this spec has {named}")
        options = {each: self.options_of(each) for each in self.backends}
        options[backend] = {**options[backend], name: value}
        return self.model_copy(update={"backend_options": options})


def parse_spec(text: str, source: str = "the spec") -> Spec:
    """Read a spec from YAML.

    Raises:
        SpecError: one sentence that names the place in the spec and the remedy.
    """
    data = read_yaml(text, source)
    if data is None:
        raise SpecError(f"{source} is empty: 'windowshift init' writes one to start from")
    require_whole(data, source)
    if not isinstance(data, dict):
        raise SpecError(f"{source} must be a mapping of keys (name:, model:, conditions: ...), not a {_kind(data)}")
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        raise SpecError(f"{source}: {sentence(error, Spec, data)}") from error


def load_spec(path: str | Path) -> tuple[Spec, str]:
    """Read a spec file; return it with its text, as `run_spec` takes both.

    Raises:
        SpecError: as `parse_spec`, or the file cannot be read or is not UTF-8.
    """
    place = Path(path)
    with suppress(OSError, ValueError):
        if place.stat().st_size > 4 * LONGEST:
            raise SpecError(f"{place} is too long for a spec: at most {LONGEST:,} characters are read")
    text = read_text(place, "spec")
    return parse_spec(text, str(path)), text


def read_text(path: Path, what: str) -> str:
    """Read a UTF-8 file.

    Raises:
        SpecError: it is not there, a folder, unreadable, of another kind or not UTF-8 (the byte is named).
    """
    try:
        # A device never ends; a pipe, as of  <(command),  does.
        if stat.S_ISCHR(mode := path.stat().st_mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
            raise SpecError(f"{path} is a device, not a {what} file")
        content = path.read_bytes()
        if (kind := other_kind(content)) is not None:
            raise SpecError(f"{path} is, {kind}")
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise SpecError(f"there is no {what} at {path}") from error
    except IsADirectoryError as error:
        raise SpecError(f"{path} is a folder, not a {what} file") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SpecError(f"{path} line {line} is not UTF-8 (byte {error.start}): save the {what} as UTF-8") from error
    except OSError as error:
        raise SpecError(f"cannot read the {what} {path}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise SpecError(f"cannot read the {what} {str(path)!r}: that is no name of a file") from error


def _kind(data: object) -> str:
    return {list: "list", str: "text", int: "number", float: "number", bool: "yes/no"}.get(type(data), "value")
