"""One cell again: the part of an experiment's spec that one cell needs, run into a workspace of its own."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

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
    from windowshift.core.spec.spec import parse_spec
    from windowshift.core.store.reader import Reader
    from windowshift.run_command import run_here

    # Not Path.resolve, which raises for a link that leads to itself.
    if os.path.realpath(into) == os.path.realpath(workspace):
        raise SpecError("--into names the experiment's own workspace, where the cell is done: choose another one")
    generate, train, evaluate = parts_of(cell)
    with closing(Reader(workspace)) as reader:
        text = reader.spec_text(reader.find_experiment(name).id)
    whole = parse_spec(text, f"the spec of {name}")
    chosen = whole.seeds[0] if seed is None else seed
    if chosen not in whole.seeds:
        raise SpecError(f"{name} has no seed {chosen}: it has {', '.join(map(str, whole.seeds))}")
    narrow = narrowed(text, generate, train, evaluate, chosen)
    code = run_here(parse_spec(narrow, f"one cell of {name}"), narrow, folder, into, quiet=quiet)
    if code == 0:
        for line in compared(workspace, into, name, (generate, train, evaluate), chosen):
            say(line)
    raise typer.Exit(code)


def parts_of(cell: str) -> tuple[str, str, str]:
    """(generate, train, evaluate) of a cell as a person names it; generate is empty for the base model.

    Raises:
        SpecError: it is no such name.
    """
    parts = cell.split("/")
    if len(parts) == 2 and parts[0] == "base" and parts[1]:
        return "", "base", parts[1]
    if len(parts) != 3 or not all(parts):
        raise SpecError(f"'{cell}' is not GENERATE/TRAIN/EVALUATE, e.g. med_short/long/short, or base/short")
    return parts[0], parts[1], parts[2]


def narrowed(text: str, generate: str, train: str, evaluate: str, seed: int) -> str:
    """A spec with what one cell needs alone; its jobs have the ids that they have in the whole.

    Raises:
        SpecError: the spec has no such condition.
    """
    data: dict[str, Any] = yaml.safe_load(text)
    conditions: dict[str, Any] = data["conditions"]
    trains = conditions["train"] if train == "base" else _named(conditions["train"], train, "train")
    sources = conditions["generate"] if train == "base" else _named(conditions["generate"], generate, "generate")
    # A mix or a stage names further sets of D, which stay; the base model needs a row beside it, the first.
    made_of = any(isinstance(entry, Mapping) and {"mix", "stages"} & set(entry) for entry in trains)
    kept = {
        **conditions,
        "generate": conditions["generate"] if made_of else sources[:1] if train == "base" else sources,
        "train": trains[:1] if train == "base" else trains,
        "evaluate": _named(conditions["evaluate"], evaluate, "evaluate"),
    }
    kept.pop("base", None)
    if isinstance(kept.get("cross"), list):
        kept["cross"] = [one for one in kept["cross"] if one == evaluate]
    return yaml.safe_dump({**data, "conditions": kept, "seeds": [seed]}, sort_keys=False, allow_unicode=True)


def _named(entries: Sequence[Any], name: str, where: str) -> list[Any]:
    """The entries that make a condition of a name: itself, one that is called so, or else those that may make it."""
    same = [one for one in entries if one == name or (isinstance(one, Mapping) and one.get("name") == name)]
    if same:
        return same
    # Conditions without a name of their own (doses, controls, files) are called after what they are made of.
    unnamed = [one for one in entries if isinstance(one, Mapping) and "name" not in one]
    if unnamed:
        return unnamed
    known = [one if isinstance(one, str) else str(one.get("name")) for one in entries]
    near = difflib.get_close_matches(name, known, 1)
    raise SpecError(f"there is no {where} condition '{name}'" + (f": did you mean '{near[0]}'?" if near else ""))


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
        lines = [f"{'/'.join(part for part in cell if part)}, seed {seed}: {behaviour.mean_label}"]
        for word, one in (("before", was.summary), ("now", now.summary)):
            ends = "" if one.low is None or one.high is None else f" [{one.low:.4g}, {one.high:.4g}]"
            mean = "missing" if one.mean is None else f"{one.mean:.4g}{ends}"
            lines.append(f"  {word:7}{mean}, n {one.n}, {one.missing} missing")
        lines.append(f"  {same} of {len(texts[0])} completions are the same, text for text")
        return lines


def _meant(cell: CellRow, seed: int) -> bool:
    return cell.final and (cell.seed == seed or cell.train == BASE)
