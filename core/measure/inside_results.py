"""What an experiment read inside the model."""

from __future__ import annotations

from dataclasses import dataclass

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


def inside_results(reader: Reader, experiment: ExperimentRow, resamples: int = RESAMPLES) -> InsideResults:
    """Measure what was read; what is not there yet is there with its reason."""
    return InsideResults(
        drifts(reader, experiment, resamples),
        alignments(reader, experiment, resamples),
        watched_courses(reader, experiment, resamples),
    )
