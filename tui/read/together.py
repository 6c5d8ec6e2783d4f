"""Behaviours that belong in one cell of the grid: traits side by side, outcomes stacked to the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from windowshift.core.contract.records import Arm, Behaviour, ExperimentRow
from windowshift.core.report.behaviour_figures import behaviour_figures, outcome_groups
from windowshift.core.report.figure import Plot
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class Together:
    """Some behaviours of an experiment, and how a cell shows them.

    `traits` are those to be kept and those to be suppressed, of one panel, each with a number of its own; `outcomes`
    exclude each other, so that their shares make one bar.
    """

    name: str
    kind: Literal["traits", "outcomes"]
    behaviours: tuple[Behaviour, ...]

    def figure(self, reader: Reader, experiment: ExperimentRow, arm: Arm, generate: str) -> Plot | None:
        """Return the figure that draws the same: one trait against the other, or the stacked outcomes."""
        first = "outcomes-" if self.kind == "outcomes" else "traits-"
        names = {one.name for one in self.behaviours}
        figures = behaviour_figures(reader, experiment, arm, generate)
        return next((one for one in figures if one.name.startswith(first) and set(one.behaviours) <= names), None)


def togethers(experiment: ExperimentRow) -> tuple[Together, ...]:
    """Return what an experiment's behaviours make together: traits of each panel, then each group of outcomes."""
    panels: dict[str, list[Behaviour]] = {}
    for one in experiment.behaviours:
        if one.role in ("positive", "negative"):
            panels.setdefault(one.panel, []).append(one)
    ranked = {name: sorted(some, key=lambda one: one.role != "positive") for name, some in panels.items()}
    traits = [
        Together(f"traits {name}".rstrip(), "traits", tuple(some)) for name, some in ranked.items() if len(some) > 1
    ]
    outcomes = [Together(f"outcomes {name}", "outcomes", some) for name, some in outcome_groups(experiment).items()]
    return (*traits, *outcomes)
