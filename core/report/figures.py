"""All figures of an experiment, written into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import primary_of
from windowshift.core.report.figure_file import FORMATS, file_name, write_plot
from windowshift.core.report.gallery import drawings
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class WrittenFigures:
    """The files that were written, and the figures that had nothing to show, with their reasons."""

    written: tuple[Path, ...]
    left_out: dict[str, str]


def write_figures(
    workspace: Path,
    name: str,
    out: Path,
    behaviour: str | None = None,
    formats: Sequence[str] = FORMATS,
    *,
    force: bool = False,
) -> WrittenFigures:
    """Write every figure of an experiment that has something to show.

    Args:
        workspace: the folder of the store.
        name: of the experiment.
        out: the folder to write into; it is made where it is not there.
        behaviour: by name; the primary one by default.
        formats: some of `csv`, `png`, `svg`, `pdf`.
        force: overwrite files that are there.

    Raises:
        SpecError: there is no such experiment, behaviour or format, or a file is there already.
        StoreError: the store cannot be read, or the folder not written.
        MissingExtraError: matplotlib is missing.
    """
    unknown = next((one for one in formats if one not in FORMATS), None)
    if unknown is not None:
        raise SpecError(f"a figure is written as {', '.join(FORMATS)}, not '{unknown}': see --formats")
    if out.exists() and not out.is_dir():
        raise SpecError(f"{out} is a file: --out takes a folder")
    reader = Reader(workspace)
    row = reader.experiment(name)
    if row is None:
        raise SpecError(f"there is no experiment '{name}' in {workspace}: 'windowshift status' lists them")
    known = {one.name: one for one in row.behaviours}
    if behaviour is not None and behaviour not in known:
        raise SpecError(f"'{name}' has no behaviour '{behaviour}'; it has {', '.join(known)}")
    chosen = primary_of(row.behaviours) if behaviour is None else known[behaviour]
    written: list[Path] = []
    left_out: dict[str, str] = {}
    used: set[str] = set()
    for one in drawings(reader, row, chosen):
        base = file_name(*one.names)
        number = 1
        while (named := base if number == 1 else f"{base}-{number}").casefold() in used:
            number += 1  # two conditions whose names differ only in what no file name has
        used.add(named.casefold())
        if one.plot.empty:
            left_out[named] = one.plot.note
            continue
        there = next((out / f"{named}.{kind}" for kind in formats if (out / f"{named}.{kind}").exists()), None)
        if there is not None and not force:
            raise SpecError(f"{there} exists already: choose another folder, or overwrite with --force")
        written += write_plot(one.plot, out, named, formats)
    return WrittenFigures(tuple(written), left_out)
