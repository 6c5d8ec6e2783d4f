"""The command `windowshift rephrase`: rephrasings of a condition's phrases, written by a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from windowshift.core.contract.errors import SpecError
from windowshift.options import SpecFile
from windowshift.run_command import say_stopping
from windowshift.say import say


def rephrase(
    spec_file: SpecFile,
    of: Annotated[str, typer.Option("--of", metavar="CONDITION", help="The condition whose phrases are rephrased.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The JSONL file to write.")] = Path("rephrasings.jsonl"),
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100_000, help="How many are wanted.")] = 250,
    model: Annotated[str | None, typer.Option("--model", help="What writes them; the spec's model by default.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
) -> None:
    """Let a model write a condition in other words, for  {control: rephrased, of: CONDITION, file: ...}."""
    from windowshift.core.run.rephrase import rephrase as write
    from windowshift.core.run.stopping import INTERRUPTED
    from windowshift.core.spec.spec import load_spec

    if out.exists() and not force:
        raise SpecError(f"{out} is there already: choose another file with --out, or --force to overwrite it")
    spec, _ = load_spec(spec_file)
    made = write(spec, spec_file.parent, of, count, model, say_stopping)
    if made.interrupted and not made.found:
        raise KeyboardInterrupt
    made.write(out)
    cost = "" if made.usd is None else f", {made.usd:.4f} USD"
    say(f"wrote {len(made.found)} different rephrasings of '{of}' to {out} ({made.asked} answers{cost})")
    if made.failed:
        say(f"note: {made.failed} answers failed, the first because {made.reason}", err=True)
    if made.interrupted:
        say(f"{count} were asked for: interrupted", err=True)
        raise typer.Exit(INTERRUPTED)
    if len(made.found) < count:
        say(
            f"note: {count} were asked for; the model repeats itself or did not follow: another one ( --model ) may do "
            "better, and  {control: rephrased}  without a file makes some by rule",
            err=True,
        )
    say(f"use it as  {{control: rephrased, of: {of}, file: {out.name}}}")
