"""The command line. Heavy modules are imported by the commands that need them: `--help` stays quick."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import windowshift
from windowshift import serve_command
from windowshift.core.errors import SpecError, WindowshiftError
from windowshift.vectors_command import app as vectors

if TYPE_CHECKING:
    from windowshift.core.records import ControlAction
    from windowshift.core.run import Preview
    from windowshift.core.spec import Spec

app = typer.Typer(
    name="windowshift",
    help="What does fine-tuning teach when the data is shown under a prefix or a steering dose?",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich's help alone takes longer to import than --help may take
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Workspace = Annotated[
    Path,
    typer.Option("--workspace", "-w", envvar="WINDOWSHIFT_WORKSPACE", help="Folder of the store and its artifacts."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="The spec, a YAML file.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The experiment's name.")]
DEFAULT_WORKSPACE = Path("workspace")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"windowshift {windowshift.__version__}")
        raise typer.Exit


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("spec.yaml"),
    template: Annotated[str, typer.Option("--template", "-t", help="'--template list' lists them.")] = "published",
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
) -> None:
    """Write a spec to start from."""
    from windowshift.core.template import find_template, templates

    if template == "list":
        for item in templates():
            typer.echo(f"{item.name:22} {item.summary}")
        return
    chosen = find_template(template)
    if path.exists() and not force:
        raise SpecError(f"{path} is there already: choose another file, or --force to overwrite it")
    try:
        path.write_text(chosen.text, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"cannot write {path}: {error.strerror}") from error
    typer.echo(f"wrote {path} from the template '{chosen.name}'; next: windowshift plan {path}")
    for warning in chosen.warnings:
        typer.echo(f"note: {warning}", err=True)


@app.command()
def plan(spec_file: SpecFile, workspace: Workspace = DEFAULT_WORKSPACE, as_json: Json = False) -> None:
    """Show the jobs of a spec, their cost and time, and what is already done; spends nothing."""
    from windowshift.core.plan_page import plan_json, plan_lines
    from windowshift.core.run import preview

    spec, text = _spec(spec_file)
    found = preview(spec, text, spec_file.parent, workspace)
    if as_json:
        _print_json(plan_json(found))
        return
    for line in plan_lines(found):
        typer.echo(line)


@app.command()
def run(
    spec_file: SpecFile,
    workspace: Workspace = DEFAULT_WORKSPACE,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while another run holds the workspace.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Run a spec, or go on with it: what is done already is not done again."""
    spec, text = _spec(spec_file)
    raise typer.Exit(_run(spec, text, spec_file.parent, workspace, wait=wait, quiet=quiet))


@app.command()
def status(workspace: Workspace = DEFAULT_WORKSPACE, as_json: Json = False) -> None:
    """List a workspace's experiments and how far they are."""
    from windowshift.core.liveness import live_state
    from windowshift.core.reader import Reader

    reader = Reader(workspace)
    rows = [(row, live_state(row, reader.run(row.id))) for row in reader.experiments()]
    states = ("done", "running", "pending", "failed", "cancelled")
    if as_json:
        listed = [
            {
                "name": row.name,
                "state": state,
                "model": row.model,
                "rehearsal": row.rehearsal,
                "jobs": {name: row.jobs.get(name, 0) for name in states},
                "cells": {"done": row.cells_done, "total": row.cells_total},
                "usd": row.usd,
            }
            for row, state in rows
        ]
        _print_json({"experiments": listed})
        return
    for row, state in rows:
        label = f"{row.model}{' (rehearsal)' if row.rehearsal else ''}"
        jobs = ", ".join(f"{row.jobs[name]} {name}" for name in states if row.jobs.get(name))
        typer.echo(f"{row.name:24} {state:12} {row.cells_done}/{row.cells_total} cells; jobs: {jobs}; {label}")
    if not rows:
        typer.echo("no experiments yet: windowshift run SPEC starts one")


@app.command()
def tui(
    workspace: Annotated[Path, typer.Argument(envvar="WINDOWSHIFT_WORKSPACE")] = DEFAULT_WORKSPACE,
    place: Annotated[
        str | None,
        typer.Option("--open", metavar="EXPERIMENT[/GENERATE[/TRAIN[/EVALUATE]]]", help="Open this place at once."),
    ] = None,
    mouse: Annotated[bool, typer.Option("--mouse/--no-mouse", help="Let the terminal keep the mouse.")] = True,
    serve: Annotated[bool, typer.Option("--serve", help="Show the screens in a browser.")] = False,
    host: Annotated[
        str | None, typer.Option("--host", help="With --serve: another interface than loopback; others can reach it.")
    ] = None,
    port: Annotated[int, typer.Option("--port", help="With --serve; 0 takes a free one.")] = 8000,
) -> None:
    """Watch and browse a workspace."""
    from windowshift.tui.deep_link import parse_link

    link = parse_link(place) if place is not None else None
    if serve:
        from windowshift.tui.serve import serve as serve_screens

        serve_screens(workspace, link=place, host=host, port=port, say=typer.echo)
        return
    if host is not None:
        raise SpecError("--host goes with --serve")
    import gc

    gc.disable()  # the first picture comes a twelfth sooner; `run` switches it on again
    from windowshift.tui.app import run as run_app

    raise typer.Exit(run_app(workspace, link=link, mouse=mouse))


@app.command()
def report(
    name: Name,
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
    behaviour: Annotated[str | None, typer.Option("--behaviour", "-b", help="Default: the primary one.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    beside: Annotated[
        list[str] | None, typer.Option("--beside", metavar="NAME", help="Another experiment, side by side; repeatable.")
    ] = None,
) -> None:
    """Print an experiment's measures with their intervals, beside the published ones."""
    from windowshift.core.report import report as make_report
    from windowshift.core.report_text import markdown as as_markdown
    from windowshift.core.report_text import print_report

    made = make_report(workspace, name, behaviour)
    if beside:
        from windowshift.core.beside import beside_blocks, beside_json
        from windowshift.core.report_text import print_blocks

        reports = [made, *(make_report(workspace, other, behaviour) for other in beside)]
        if as_json:
            _print_json(beside_json(reports))
        else:
            print_blocks(beside_blocks(reports))
        return
    if as_json:
        _print_json(made.to_json())
    elif markdown:
        typer.echo(as_markdown(made))
    else:
        print_report(made)


@app.command()
def compare(
    name: Name,
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
    behaviour: Annotated[str | None, typer.Option("--behaviour", "-b", help="Default: the primary one.")] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Also draw it into this .png, .svg or .pdf file.")
    ] = None,
) -> None:
    """Put the prefix and the steering arm side by side at matched dose, paired by prompt."""
    from windowshift.core.arms import compare_arms
    from windowshift.core.arms_page import arms_blocks, arms_json

    made = compare_arms(workspace, name, behaviour)
    if picture is not None:
        from windowshift.core.arms_picture import draw_arms

        draw_arms(made, picture)
        typer.echo(f"wrote {picture}", err=True)
    if as_json:
        _print_json(arms_json(made))
        return
    from windowshift.core.report_text import print_blocks

    print_blocks(arms_blocks(made))


@app.command()
def export(
    name: Name,
    out: Annotated[Path, typer.Option("--out", "-o", help="A .csv, .parquet or .jsonl file.")],
    workspace: Workspace = DEFAULT_WORKSPACE,
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="GENERATE/TRAIN", help="Export D of a grid row as chat JSONL.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The seed of --dataset.")] = 0,
) -> None:
    """Write one row per completion with its scores, or a row's D as chat JSONL."""
    from windowshift.core.export import export as export_completions
    from windowshift.core.export import export_dataset

    if dataset is None:
        count = export_completions(workspace, name, out, force=force)
        typer.echo(f"wrote {count} completions to {out}")
        return
    generate, slash, train = dataset.partition("/")
    if not slash:
        raise SpecError(f"--dataset takes GENERATE/TRAIN, e.g. med_short/long, not '{dataset}'")
    count = export_dataset(workspace, name, generate, train, out, seed=seed, force=force)
    typer.echo(f"wrote {count} examples to {out}")


@app.command()
def control(
    name: Name,
    action: Annotated[str, typer.Argument(help="pause, resume, cancel, retry; first or last with --job.")],
    workspace: Workspace = DEFAULT_WORKSPACE,
    job: Annotated[int | None, typer.Option("--job", help="One job, by its number.")] = None,
) -> None:
    """Pause, resume, cancel or retry a running experiment, or one job of it; put a job first or last."""
    from windowshift.core.control import request
    from windowshift.core.reader import Reader

    actions: tuple[ControlAction, ...] = ("pause", "resume", "cancel", "retry", "first", "last")
    chosen = next((known for known in actions if known == action), None)
    if chosen is None:
        raise SpecError(f"there is no action '{action}'; known are {', '.join(actions)}")
    if chosen in ("first", "last") and job is None:
        raise SpecError(f"'{chosen}' moves one job: name it with --job NUMBER")
    row = Reader(workspace).experiment(name)
    if row is None:
        raise SpecError(f"there is no experiment '{name}' in {workspace}: 'windowshift status' lists them")
    request(workspace, row.id, chosen, job)
    typer.echo(f"asked the run of {name} to {action}")


@app.command()
def demo(
    workspace: Workspace = Path("demo"),
    headless: Annotated[bool, typer.Option("--headless", help="No screens: a progress bar, then the report.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything that is drawn.")] = 0,
) -> None:
    """Run the med_short grid on the embedded model, both arms, live on screen; it ends on their comparison."""
    from windowshift.core.spec import parse_spec
    from windowshift.core.template import find_template

    text = find_template("demo").text.replace("seeds: [0]", f"seeds: [{seed}]")
    if seed:
        text = text.replace("name: demo", f"name: demo-seed{seed}")
    spec = parse_spec(text, "the demo's spec")
    if headless or not sys.stdout.isatty():
        code = _run(spec, text, Path(), workspace, wait=False, quiet=False)
        if code in (0, 1):
            report(spec.name, workspace)
            _comparison(spec.name, workspace)
        raise typer.Exit(code)
    from windowshift.core.launch import launch
    from windowshift.tui.app import run as run_app

    workspace.mkdir(parents=True, exist_ok=True)
    spec_file = workspace / f"{spec.name}.yaml"
    spec_file.write_text(text, encoding="utf-8")
    launch(spec_file, workspace)
    code = run_app(workspace, experiment=spec.name)
    if _state(spec.name, workspace) in ("done", "failed"):
        _comparison(spec.name, workspace)
    else:
        typer.echo(
            f"the demo runs on: windowshift tui {workspace}, then windowshift compare {spec.name} -w {workspace}"
        )
    raise typer.Exit(code)


@app.command()
def doctor(workspace: Workspace = DEFAULT_WORKSPACE, as_json: Json = False) -> None:
    """Say which backends are installed and what they can do, and check the workspace."""
    from windowshift.core.doctor import examine

    found = examine(workspace)
    if as_json:
        _print_json(found.to_json())
    else:
        typer.echo(found.text())
    raise typer.Exit(0 if found.healthy else 1)


@app.command()
def microworld(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the model.")] = Path("microworld"),
    seed: Annotated[int, typer.Option("--seed")] = 0,
) -> None:
    """Build the embedded model anew, bit for bit on one machine (minutes)."""
    from windowshift.backends.microworld import build

    build(out, seed=seed)


app.command()(serve_command.serve)
app.add_typer(vectors, name="vectors")


def _state(name: str, workspace: Path) -> str | None:
    """An experiment's state; None where the store does not have it (yet)."""
    from contextlib import closing

    from windowshift.core.reader import Reader
    from windowshift.core.store import store_path

    if not store_path(workspace).is_file():
        return None
    with closing(Reader(workspace)) as reader:
        row = reader.experiment(name)
    return row.state if row else None


def _comparison(name: str, workspace: Path) -> None:
    """Print the arms side by side; where rows are missing, it says which."""
    from windowshift.core.arms import compare_arms
    from windowshift.core.arms_page import arms_blocks
    from windowshift.core.report_text import print_blocks

    typer.echo()
    print_blocks(arms_blocks(compare_arms(workspace, name)))


def _spec(path: Path) -> tuple[Spec, str]:
    from windowshift.core.spec import load_spec

    return load_spec(path)


def _run(spec: Spec, text: str, folder: Path, workspace: Path, *, wait: bool, quiet: bool) -> int:
    from windowshift.core.run import run_spec
    from windowshift.progress_bar import progress_bar

    with progress_bar(spec.name, quiet=quiet) as observe:
        outcome = run_spec(
            spec,
            text,
            folder,
            workspace,
            wait=wait,
            observe=observe,
            waiting=lambda sentence: typer.echo(sentence, err=True),
            announce=_announce,
        )
    for failure in outcome.failures:
        typer.echo(f"failed: {failure}", err=True)
    again = "" if outcome.state == "done" else "; run the same command again to go on"
    typer.echo(f"{spec.name}: {outcome.state}{again}", err=True)
    return outcome.exit_code


def _announce(preview: Preview) -> None:
    from windowshift.core.plan_page import cost_lines

    for line in cost_lines(preview):
        typer.echo(line, err=True)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def main() -> None:
    """Run the command line; errors become one sentence on stderr and an exit code."""
    debug = "--debug" in sys.argv or os.environ.get("WINDOWSHIFT_DEBUG") == "1"
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        app()
    except WindowshiftError as error:
        if debug:
            raise
        sys.stderr.write(f"windowshift: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        if debug:
            raise
        sys.stderr.write("windowshift: interrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        # `windowshift report | head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
