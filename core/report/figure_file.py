"""Figures as files: PNG, SVG and PDF, and their numbers as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import SpecError, StoreError
from windowshift.core.contract.whole_file import replacing_file
from windowshift.core.report.csv_text import quoted
from windowshift.core.report.figure import Plot
from windowshift.core.report.figure_drawing import drawn, drawn_sheet, with_matplotlib

FORMATS = ("csv", "png", "svg", "pdf")


def file_name(*parts: str) -> str:
    """Return a name for a figure's files, of parts that may hold anything: letters, digits and `._+-`, 100 at most.

    Letters of other scripts take several bytes, of which a file's name may have 255.
    """
    clean = ("".join(c if c.isalnum() or c in "._+" else "_" for c in part).strip(".") for part in parts)
    named = "-".join(part for part in clean if part)[:100]
    return named.encode("utf-8", "replace")[:200].decode("utf-8", "ignore") or "figure"


def write_plot(plot: Plot, folder: Path, name: str, formats: Sequence[str] = ("csv", "png", "svg")) -> list[Path]:
    """Write a figure as `name`.csv, `name`.png and so on, over what is there; return what was written.

    Args:
        plot: the figure.
        folder: it is made where it is not there.
        name: of the files, without an ending.
        formats: some of `FORMATS`.

    Raises:
        SpecError: a format is none of `FORMATS`.
        StoreError: the folder cannot be written.
        MissingExtraError: matplotlib is missing; the CSV is written all the same.
    """
    unknown = next((one for one in formats if one not in FORMATS), None)
    if unknown is not None:
        raise SpecError(f"a figure is written as {', '.join(FORMATS)}, not '{unknown}'")
    pictures = [one for one in formats if one != "csv"]
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if "csv" in formats:
            written.append(folder / f"{name}.csv")
            with replacing_file(written[0]) as partial:  # not through a link that lies in its place
                partial.write_text(_csv(plot), encoding="utf-8")
        if pictures:
            written += _pictures(plot, [folder / f"{name}.{one}" for one in pictures], written)
    except OSError as error:
        raise StoreError(f"cannot write {folder} ({error.strerror}): make it writable and free some space") from error
    return written


def _csv(plot: Plot) -> str:
    heads, rows = plot.rows()
    out = io.StringIO()
    cells = ([quoted(cell) if isinstance(cell, str) else cell for cell in row] for row in [heads, *rows])
    csv.writer(out, lineterminator="\n").writerows(cells)
    return out.getvalue()


def _pictures(plot: Plot, paths: Sequence[Path], before: Sequence[Path]) -> list[Path]:
    with with_matplotlib(f" (its numbers are in {before[0]})" if before else ""):
        figure = drawn(plot)
        for path in paths:
            _save(figure, path)
    return list(paths)


def _save(figure: Any, path: Path) -> None:
    ending = path.suffix.lower()
    dates: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with replacing_file(path) as partial:
        figure.savefig(partial, format=ending[1:], metadata=dates.get(ending))


def write_sheet(plots: Sequence[Plot], title: str, of: str, path: Path) -> None:
    """Write several figures as one picture, the first one as large as four of the others.

    Args:
        plots: the figures; the same as they are alone.
        title: stands over all of them.
        of: what they are of, as `Plot.of`.
        path: the file; what is there is overwritten.

    Raises:
        OSError: it cannot be written.
        MissingExtraError: matplotlib is missing.
    """
    with with_matplotlib():
        _save(drawn_sheet(plots, title, of), path)
