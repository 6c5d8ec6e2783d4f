"""The demo: a setting rehearsed on its embedded model; both arms of the med_short grid where none is named."""

from __future__ import annotations

import re
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from windowshift.core.contract.errors import SpecError
from windowshift.options import Workspace
from windowshift.results_command import comparison, report
from windowshift.run_command import run_here
from windowshift.say import say, say_listed

if TYPE_CHECKING:
    from windowshift.core.spec.spec import Spec


def demo(
    workspace: Workspace = Path("demo"),
    headless: Annotated[bool, typer.Option("--headless", help="No screens: a progress bar, then the report.")] = False,
    seed: Annotated[
        int, typer.Option("--seed", help="One seed of everything that is drawn; 0: those of the setting's template.")
    ] = 0,
    setting: Annotated[str, typer.Option("--setting", help="What to rehearse; 'list' shows all.")] = "length",
) -> None:
    """Rehearse a setting on the embedded model, live on screen; it ends on the report."""
    from windowshift.core.spec.spec import parse_spec
    from windowshift.core.spec.spec_errors import did_you_mean
    from windowshift.core.spec.template import rehearsals

    if setting == "list":
        say_listed([(name, template.summary) for name, template in rehearsals().items()])
        return
    if setting not in rehearsals():
        raise SpecError(f"there is no rehearsal of '{setting}'{did_you_mean(setting, rehearsals())}")
    template = rehearsals()[setting]
    text = template.text
    if seed:
        text = re.sub(r"^seeds: \[.*\]", f"seeds: [{seed}]", text, flags=re.MULTILINE)
        text = text.replace(f"name: {template.name}", f"name: {template.name}-seed{seed}")
    spec = parse_spec(text, "the demo's spec")
    if headless or not sys.stdout.isatty():
        code = run_here(spec, text, Path(), workspace)
        if code in (0, 1):
            report(spec.name, workspace)
            if _matched(spec):
                comparison(spec.name, workspace)
        raise typer.Exit(code)
    from windowshift.core.run.spawn import launch
    from windowshift.tui.launch import run as run_app

    workspace.mkdir(parents=True, exist_ok=True)
    spec_file = workspace / f"{spec.name}.yaml"
    spec_file.write_text(text, encoding="utf-8")
    launch(spec_file, workspace)
    code = run_app(workspace, experiment=spec.name)
    if _state(spec.name, workspace) not in ("done", "failed"):
        what = "compare" if _matched(spec) else "report"
        say(f"the demo runs on: windowshift tui {workspace}, then windowshift {what} {spec.name} -w {workspace}")
    elif _matched(spec):
        comparison(spec.name, workspace)
    else:
        report(spec.name, workspace)
    raise typer.Exit(code)


def _matched(spec: Spec) -> bool:
    """Whether the arms can be laid side by side: some doses of a rehearsal with vectors may match no prefix at all."""
    return any(isinstance(entry, dict) and entry.get("match") for entry in spec.conditions.train)


def _state(name: str, workspace: Path) -> str | None:
    """An experiment's state; None where the store does not have it (yet)."""
    from windowshift.core.store.connection import store_path
    from windowshift.core.store.reader import Reader

    if not store_path(workspace).is_file():
        return None
    with closing(Reader(workspace)) as reader:
        row = reader.experiment(name)
    return row.state if row else None
