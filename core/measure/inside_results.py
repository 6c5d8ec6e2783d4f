"""What an experiment read inside the model."""

from __future__ import annotations

from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass, field, replace

from windowshift.core.contract.records import ExperimentRow
from windowshift.core.contract.stats import RESAMPLES
from windowshift.core.measure.alignment import Alignment, alignments
from windowshift.core.measure.drift import Drift, drifts
from windowshift.core.measure.watched import WatchedCourse, watched_courses
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class InsideResults:
    """Everything; empty where the experiment reads nothing inside the model."""

    drifts: tuple[Drift, ...] = ()
    alignments: tuple[Alignment, ...] = ()
    courses: tuple[WatchedCourse, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.drifts or self.alignments or self.courses)

    def along(self, vector: str) -> InsideResults:
        """What was read along one vector."""
        return InsideResults(
            tuple(one for one in self.drifts if one.vector == vector),
            tuple(one for one in self.alignments if one.vector == vector),
        )


@dataclass(frozen=True, slots=True)
class MeasuredInside:
    """What was measured along vectors, by what it depends on, for who looks again and again while a grid runs."""

    drifts: MutableMapping[Hashable, Drift] = field(default_factory=dict)
    alignments: MutableMapping[Hashable, Alignment] = field(default_factory=dict)


def inside_along(
    reader: Reader, experiment: ExperimentRow, resamples: int = RESAMPLES, measured: MeasuredInside | None = None
) -> InsideResults:
    """Measure what was read along vectors alone; what is in `measured` is not measured again."""
    kept = measured or MeasuredInside()
    return InsideResults(
        drifts(reader, experiment, resamples, kept.drifts), alignments(reader, experiment, resamples, kept.alignments)
    )


def inside_results(reader: Reader, experiment: ExperimentRow, resamples: int = RESAMPLES) -> InsideResults:
    """Measure what was read; what is not there yet is there with its reason."""
    along = inside_along(reader, experiment, resamples)
    return replace(along, courses=watched_courses(reader, experiment, resamples))
