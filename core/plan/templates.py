"""Chat templates in a plan: what they read becomes part of the jobs' identity, and what they cannot do is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from windowshift.core.contract.backend import Backend, TemplateBackend
from windowshift.core.contract.errors import BackendError, MissingExtraError, SpecError, StoreError
from windowshift.core.contract.generation import TemplateInputs
from windowshift.core.spec.spec import Spec
from windowshift.core.store.connection import store_path
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class TemplateReading:
    """What a model's template reads besides the messages, as job inputs have it, and what a person must know."""

    inputs: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def today() -> str:
    """The day, in UTC, that a plan fixes for templates that ask for it."""
    return datetime.now(UTC).date().isoformat()


def read_template(spec: Spec, backends: Mapping[str, Backend], day: str | None) -> TemplateReading:
    """Try the template of the spec's model at the backends that write chats with it.

    Args:
        spec: the experiment; its `date` goes before `day`.
        backends: the backends that the spec names, by name.
        day: the date that earlier runs of the experiment had; None: there were none, and today's is taken.

    Raises:
        SpecError: a prompt cannot be written, or no example learned, with this template.
    """
    inputs = TemplateInputs(spec.day or day or today(), tuple(sorted(spec.template.items())))
    used: dict[str, Any] = {}
    notes: list[str] = []
    names = dict.fromkeys((spec.generate_backend, spec.train_backend))
    for name in names:
        backend = backends[name]
        if not isinstance(backend, TemplateBackend):
            given = "date" if spec.day else "template" if spec.template else None
            if given:
                raise SpecError(f"{given}: the server of backend '{name}' writes the template itself: leave it out")
            continue
        try:
            report = backend.template(spec.model, spec.revision, inputs)
        except MissingExtraError as error:
            notes.append(f"the chat template was not tried: {error}")
            continue
        except BackendError as error:
            if Path(spec.model).is_dir():
                raise SpecError(f"model: {error}") from error
            notes.append(f"the chat template was not tried, and jobs are new once it can be: {error}")
            continue
        if report.unusable is not None:
            raise SpecError(f"model: {report.unusable}")
        if report.untrainable is not None and name == spec.train_backend:
            raise SpecError(f"model: '{spec.model}' cannot be fine-tuned here: {report.untrainable}")
        used |= report.inputs
        notes += [note for note in report.notes if note not in notes]
    if "date" in used:
        notes.append(f"the chat template asks for the date: it is told {used['date']}, whenever the run is")
    return TemplateReading(used, tuple(notes))


def judge_template(backend: Backend, base: str, day: str) -> Mapping[str, Any]:
    """What a judge's template reads besides the messages.

    Raises:
        SpecError: its prompts cannot be written.
    """
    if not isinstance(backend, TemplateBackend):
        return {}
    try:
        report = backend.template(base, None, TemplateInputs(day))
    except BackendError:  # whoever asks the judge says it
        return {}
    if report.unusable is not None:
        raise SpecError(f"judge '{base}': {report.unusable}")
    return report.inputs


def recorded_day(workspace: Path, experiment: str) -> str | None:
    """The date that an experiment's jobs in a store were planned with; None where they have none."""
    if not store_path(workspace).is_file():
        return None
    try:
        with closing(Reader(workspace)) as reader:
            row = reader.experiment(experiment)
            days = () if row is None else _days(job.inputs for job in reader.jobs(row.id))
            return next(iter(days), None)
    except StoreError:
        return None  # said by whoever needs the store


def _days(inputs: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for each in inputs:
        model = each.get("model")
        template = model.get("template") if isinstance(model, Mapping) else None
        if isinstance(template, Mapping) and isinstance(template.get("date"), str):
            yield template["date"]
