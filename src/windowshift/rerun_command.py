"""One cell again: the jobs of an experiment's spec that one cell needs, run into a workspace of their own."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from windowshift.core.contract.cell_name import cell_name, find_cell, parts_of
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import BASE, CellRow
from windowshift.options import DEFAULT_WORKSPACE, Name, Workspace
from windowshift.say import say


def rerun(
    name: Name,
    cell: Annotated[str, typer.Argument(metavar="GENERATE/TRAIN/EVALUATE", help="The cell; base/EVALUATE without D.")],
    into: Annotated[Path, typer.Option("--into", help="The workspace to run it in: another one.")],
    workspace: Workspace = DEFAULT_WORKSPACE,
    seed: Annotated[int | None, typer.Option("--seed", help="Default: the experiment's first one.")] = None,
    folder: Annotated[
        Path, typer.Option("--folder", help="Where the files that the spec names are; the working directory.")
    ] = Path(),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Run one cell of an experiment again, in another workspace, and compare what comes with what there was."""
    from windowshift.core.plan.templates import recorded_day
    from windowshift.core.spec.spec import parse_spec
    from windowshift.core.store.reader import Reader
    from windowshift.run_command import run_here

    # Not Path.resolve, which raises for a link that leads to itself.
    if os.path.realpath(into) == os.path.realpath(workspace):
        raise SpecError("--into names the experiment's own workspace, where the cell is done: choose another one")
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment(name)
        text = reader.spec_text(experiment.id)
        generate, train, evaluate = which(cell, reader.cells(experiment.id, ""))
    whole = parse_spec(text, f"the spec of {name}")
    chosen = whole.seeds[0] if seed is None else seed
    if chosen not in whole.seeds:
        raise SpecError(f"{name} has no seed {chosen}: it has {', '.join(map(str, whole.seeds))}")
    if whole.date is None and (day := recorded_day(workspace, name)) is not None:
        # A template that reads the date is told the same one as then.
        whole = whole.model_copy(update={"date": datetime.date.fromisoformat(day)})
    # The whole spec, of which one cell is done: whatever its conditions are made of is there, and jobs have their ids.
    code = run_here(whole, text, folder, into, quiet=quiet, cell=(generate, train, evaluate, chosen))
    if code == 0:
        for line in compared(workspace, into, name, (generate, train, evaluate), chosen):
            say(line)
    raise typer.Exit(code)


def which(cell: str, cells: Sequence[CellRow] = ()) -> tuple[str, str, str]:
    """(generate, train, evaluate) of a cell as a person names it; generate is empty for the base model.

    `cells` are those that there are: names of conditions may hold slashes.

    Raises:
        SpecError: it is no such name, or the name of several cells.
    """
    known = [(BASE, one.evaluate) if one.train == BASE else (one.generate, one.train, one.evaluate) for one in cells]
    parts = find_cell(cell, known) or parts_of(cell)
    if len(parts) == 2 and parts[0] == BASE and parts[1]:
        return "", BASE, parts[1]
    if len(parts) != 3 or not all(parts):
        raise SpecError(f"'{cell}' is not GENERATE/TRAIN/EVALUATE, e.g. med_short/long/short, or base/short")
    return parts[0], parts[1], parts[2]


def compared(before: Path, after: Path, name: str, cell: tuple[str, str, str], seed: int) -> list[str]:
    """What a cell was and what it came to now, line by line."""
    from windowshift.core.store.reader import Reader

    with closing(Reader(before)) as old, closing(Reader(after)) as new:
        experiment = old.find_experiment(name)
        behaviour = experiment.find_behaviour(None)
        found = []
        for reader in (old, new):
            cells = reader.cells(reader.find_experiment(name).id, behaviour.name)
            found.append(
                next(
                    (one for one in cells if (one.generate, one.train, one.evaluate) == cell and _meant(one, seed)),
                    None,
                )
            )
        was, now = found
        if was is None or now is None or was.summary is None or now.summary is None:
            when = "before" if was is None or was.summary is None else "now"
            return [f"the cell is not there {when}: nothing to compare"]
        both = ((old, was), (new, now))
        texts = [[row.text for row in reader.completions(one.job, behaviour.name)] for reader, one in both]
        same = sum(one == other for one, other in zip(*texts, strict=False))
        lines = [f"{cell_name([part for part in cell if part])}, seed {seed}: {behaviour.mean_label}"]
        for word, one in (("before", was.summary), ("now", now.summary)):
            ends = "" if one.low is None or one.high is None else f" [{one.low:.4g}, {one.high:.4g}]"
            mean = "missing" if one.mean is None else f"{one.mean:.4g}{ends}"
            lines.append(f"  {word:7}{mean}, n {one.n}, {one.missing} missing")
        lines.append(f"  {same} of {len(texts[0])} completions are the same, text for text")
        return lines


def _meant(cell: CellRow, seed: int) -> bool:
    return cell.final and (cell.seed == seed or cell.train == BASE)
