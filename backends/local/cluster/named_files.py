"""The files that requests and jobs name, found and named anew: a path of the driver means nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from windowshift.core.contract.generation import GenerateRequest, Model, Steering
from windowshift.core.contract.inside import GradientJob, ProjectionJob
from windowshift.core.contract.training import TrainJob
from windowshift.core.contract.vector_job import Combination, Control, Stored, VectorJob


def named_files(items: Sequence[Any]) -> list[str]:
    """Every adapter and vector that some requests or jobs read, once each."""
    found: dict[str, None] = {}

    def note(path: str) -> str:
        found[path] = None
        return path

    renamed(items, note)
    return list(found)


def renamed(items: Sequence[Any], name: Callable[[str], str]) -> list[Any]:
    """The same requests or jobs, with every path that they read put through `name`; what is written stays."""
    models: dict[Model, Model] = {}

    def model(one: Model) -> Model:
        if one not in models:
            adapter = None if one.adapter is None else name(one.adapter)
            merged = None if one.merged is None else name(one.merged)
            models[one] = replace(one, adapter=adapter, merged=merged)
        return models[one]

    def steering(some: tuple[Steering, ...]) -> tuple[Steering, ...]:
        return tuple(replace(one, vector=name(one.vector)) for one in some)

    def item(one: Any) -> Any:
        if isinstance(one, GenerateRequest):
            return replace(one, model=model(one.model), steering=steering(one.steering))
        if isinstance(one, TrainJob):
            return replace(
                one,
                model=model(one.model),
                examples=[replace(each, steering=steering(each.steering)) for each in one.examples],
                validation=[replace(each, steering=steering(each.steering)) for each in one.validation],
            )
        if isinstance(one, ProjectionJob):
            return replace(
                one,
                model=model(one.model),
                passages=[replace(each, steering=steering(each.steering)) for each in one.passages],
                vectors=tuple(map(name, one.vectors)),
            )
        if isinstance(one, GradientJob):
            examples = [replace(each, steering=steering(each.steering)) for each in one.examples]
            return replace(one, model=model(one.model), examples=examples, vector=name(one.vector))
        assert isinstance(one, VectorJob)
        source = one.source
        if isinstance(source, Control):
            source = replace(source, of=name(source.of))
        elif isinstance(source, Combination):
            source = replace(source, parts=tuple((name(file), weight) for file, weight in source.parts))
        elif isinstance(source, Stored):
            source = replace(source, file=name(source.file))
        return replace(one, model=model(one.model), source=source)

    return [item(one) for one in items]


def output_of(item: Any) -> Path | None:
    """What a job writes, the folder of a training or the file of a vector; None for a request."""
    return item.output if isinstance(item, TrainJob | VectorJob) else None
