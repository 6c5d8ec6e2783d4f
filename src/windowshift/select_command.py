"""`windowshift select`: train conditions ranked on the base model, before any of them is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from windowshift.core.contract.errors import SpecError
from windowshift.options import DEFAULT_WORKSPACE, Json, SpecFile, Workspace
from windowshift.say import say, say_json

if TYPE_CHECKING:
    from windowshift.core.run.select import Selection
    from windowshift.core.spec.spec import Spec

By = Literal["uplift", "elicitation"]


def select(
    spec_file: SpecFile,
    workspace: Workspace = DEFAULT_WORKSPACE,
    prompts: Annotated[int, typer.Option("--prompts", help="Development prompts, beside those of the spec.")] = 64,
    by: Annotated[
        str | None, typer.Option("--by", help="uplift or elicitation; default: uplift, where the backend tells it.")
    ] = None,
    generate: Annotated[str | None, typer.Option("--generate", help="Whose D; default: the first.")] = None,
    keep: Annotated[int | None, typer.Option("--keep", help="With --out: the best so many; default: all.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Freeze the choice into a spec, this file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Rank a spec's train prefixes and doses on the base model, on prompts that neither D nor the evaluation has."""
    from windowshift.core.measure.selection import ranked
    from windowshift.core.report.selection_page import selection_blocks, selection_json
    from windowshift.core.report.text import print_blocks
    from windowshift.core.run.run import Outcome
    from windowshift.core.run.select import select as look
    from windowshift.core.spec.spec import load_spec
    from windowshift.progress_bar import progress_bar
    from windowshift.run_command import say_stopping

    if by not in (None, "uplift", "elicitation"):
        raise SpecError(f"--by is uplift or elicitation, not '{by}'")
    if not 2 <= prompts <= 1_000_000:
        raise SpecError("--prompts is a number from 2 to 1,000,000")
    if keep is not None and (out is None or keep < 1):
        raise SpecError("--keep is a number from 1 on, and goes with --out FILE")
    if out is not None and out.exists() and not force:
        raise SpecError(f"{out} is there already: choose another file, or --force to overwrite it")
    spec, text = load_spec(spec_file)
    with progress_bar(f"{spec.name}, selection", quiet=quiet) as observe:
        found = look(
            spec, text, spec_file.parent, workspace, prompts, generate=generate, observe=observe, on_stop=say_stopping
        )
    if isinstance(found, Outcome):
        for failure in found.failures:
            say(f"failed: {failure}", err=True)
        say(f"{spec.name}: the selection is {found.state}; run the same command again to go on", err=True)
        raise typer.Exit(found.exit_code or 1)
    chosen: By = "elicitation" if by == "elicitation" or (by is None and found.unread) else "uplift"
    order = ranked(found.candidates, chosen)
    if not order:
        raise SpecError(f"no candidate has a score by {chosen}: {found.unread or 'too few prompts have a score'}")
    if as_json:
        say_json(selection_json(found, chosen))
    else:
        print_blocks(selection_blocks(found, chosen))
    if out is not None:
        _freeze(spec, found, text, chosen, keep, out)


def _freeze(spec: Spec, found: Selection, text: str, by: By, keep: int | None, out: Path) -> None:
    from windowshift.core.measure.selection import ranked
    from windowshift.core.spec.frozen import frozen
    from windowshift.core.spec.spec import parse_spec

    order = ranked(found.candidates, by)
    names = [one.name for one, _ in order[:keep]]
    marked = [one.name for one, _ in order if one.marked]
    scores = {one.name: value for one, value in order}
    written = frozen(
        text, by, found.generate, found.prompts, scores, names, marked, [name for name, _ in found.out_of_reach]
    )
    selection = parse_spec(written, str(out)).selection
    assert selection is not None  # it was just written
    try:
        out.write_text(written, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"cannot write {out}: {error.strerror}") from error
    said = f"{len(names)} of {len(scores)} candidates of {spec.name}, selection {selection.hash}"
    say(f"wrote {out}: {said}; next: windowshift run {out}", err=True)
