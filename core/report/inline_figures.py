"""An experiment's figures within a notebook."""

from __future__ import annotations

import base64
import html
import io
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from windowshift.core.report.figure import Plot
from windowshift.core.report.figure_drawing import drawn, with_matplotlib
from windowshift.core.report.figure_file import file_name, write_plot
from windowshift.core.report.gallery import drawings
from windowshift.core.store.reader import Reader

if TYPE_CHECKING:
    from pandas import DataFrame

DPI = 90
"""Dots an inch: a figure is about as wide as a notebook's column."""


@dataclass(frozen=True, slots=True)
class InlineFigure:
    """One figure, which a notebook draws. `name` is that of its files; `plot` holds its numbers and its subject."""

    name: str
    plot: Plot

    def figure(self) -> Any:
        """The figure as one of matplotlib, to change and save.

        Raises:
            MissingExtraError: matplotlib is missing.
        """
        with with_matplotlib():
            return drawn(self.plot)

    def frame(self) -> DataFrame:
        """Its numbers, as texts: what `write` puts into the CSV file."""
        import pandas as pd

        heads, rows = self.plot.rows()
        return pd.DataFrame(rows, columns=list(heads))

    def write(self, folder: str | Path, *formats: str) -> list[Path]:
        """Write it into a folder, as `csv`, `png`, `svg` or `pdf`; over what is there. PNG where nothing is said.

        Raises:
            SpecError: a format is none of these.
            StoreError: the folder cannot be written.
            MissingExtraError: matplotlib is missing.
        """
        return write_plot(self.plot, Path(folder), self.name, formats or ("png",))

    def __repr__(self) -> str:
        return f"<InlineFigure {self.name!r}: {self.plot.title}>"

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        with with_matplotlib():
            drawn(self.plot).savefig(out, format="png", dpi=DPI)
        return out.getvalue()


class InlineFigures(list[InlineFigure]):
    """Figures one below the other. `left_out` are those that have nothing to show, by name, with the reason."""

    def __init__(self, found: list[InlineFigure], left_out: dict[str, str]) -> None:
        super().__init__(found)
        self.left_out = left_out

    @overload
    def __getitem__(self, place: SupportsIndex) -> InlineFigure: ...

    @overload
    def __getitem__(self, place: slice) -> InlineFigures: ...

    def __getitem__(self, place: SupportsIndex | slice) -> InlineFigure | InlineFigures:
        found = super().__getitem__(place)
        return found if isinstance(found, InlineFigure) else InlineFigures(found, self.left_out)

    def _repr_html_(self) -> str:
        pictures = []
        for one in self:
            data = base64.b64encode(one._repr_png_()).decode("ascii")
            words = html.escape(f"{one.name}: {one.plot.title}", quote=True)
            pictures.append(f'<img alt="{words}" src="data:image/png;base64,{data}">')
        pictures += [f"<p>left out {html.escape(name)}: {html.escape(why)}</p>" for name, why in self.left_out.items()]
        return f"<div>{''.join(pictures)}</div>"


def figures(workspace: str | Path, name: str, behaviour: str | None = None) -> InlineFigures:
    """Every figure of an experiment: what `windowshift figures` writes, drawn where a notebook shows it.

    Args:
        workspace: the folder of the store.
        name: of the experiment.
        behaviour: by name; the primary one by default.

    Raises:
        SpecError: there is no such experiment or behaviour.
        StoreError: the store cannot be read.
    """
    found: list[InlineFigure] = []
    left_out: dict[str, str] = {}
    with closing(Reader(Path(workspace))) as reader:
        experiment = reader.find_experiment(name)
        for one in drawings(reader, experiment, experiment.find_behaviour(behaviour)):
            named = file_name(*one.names)
            if one.plot.empty:
                left_out[named] = one.plot.note
            else:
                found.append(InlineFigure(named, one.plot))
    return InlineFigures(found, left_out)
