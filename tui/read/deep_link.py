"""A link into a workspace: `EXPERIMENT[/GENERATE[/TRAIN[/EVALUATE]]]`."""

from __future__ import annotations

from dataclasses import dataclass

from windowshift.core.contract.cell_name import ENCODED, cell_name, parts_of
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import BASE
from windowshift.tui.read.snapshot import GridSnapshot, Page


@dataclass(frozen=True, slots=True)
class DeepLink:
    """An experiment, and how far into it: a page of its grid, a row, a cell."""

    experiment: str
    generate: str | None = None
    train: str | None = None
    evaluate: str | None = None

    @property
    def text(self) -> str:
        """The link as it is typed."""
        return cell_name([part for part in (self.experiment, self.generate, self.train, self.evaluate) if part])


def parse_link(text: str) -> DeepLink:
    """Read a link.

    Raises:
        SpecError: it has empty parts, or more than four.
    """
    parts = parts_of(text.strip("/"))
    if not all(parts) or len(parts) > 4:
        raise SpecError(
            f"--open takes EXPERIMENT/GENERATE/TRAIN/EVALUATE, or its first parts alone, not '{text}'; a slash within "
            f"a name is written as {ENCODED}"
        )
    return DeepLink(*parts)


def page_of(link: DeepLink, grid: GridSnapshot) -> Page | None:
    """Return the page that a link leads to: of its generation condition, and of the arm of its train condition."""
    if link.generate is None:
        return grid.page
    conditions = grid.experiment.row.conditions
    part, name = ("evaluate", link.evaluate) if link.train == BASE else ("train", link.train)
    arm = next((entry["arm"] for entry in conditions.get(part, []) if entry["name"] == name), grid.page.arm)
    pages = [page for page in grid.pages if page.generate == link.generate]
    return next((page for page in pages if page.arm == arm), next(iter(pages), None))
