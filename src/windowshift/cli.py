"""The command line. Heavy modules are imported by the commands that need them: `--help` stays quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import windowshift
from windowshift import (
    demo_command,
    predict_command,
    rephrase_command,
    rerun_command,
    results_command,
    select_command,
    serve_command,
    status_command,
    vectors_command,
)
from windowshift.core.contract import sanitise
from windowshift.core.contract.errors import SpecError, WindowshiftError
from windowshift.core.contract.redaction import brief
from windowshift.core.contract.terminal import guard
from windowshift.options import DEFAULT_WORKSPACE, Json, Name, SpecFile, Workspace
from windowshift.run_command import run_here
from windowshift.say import say, say_block, say_json, say_listed

if TYPE_CHECKING:
    from windowshift.core.spec.spec import Spec
    from windowshift.tui.read.deep_link import DeepLink


class _InterruptedError(Exception):
    """Ctrl-C, past typer: that would end without a word."""


class _Commands(TyperGroup):
    """The commands; a mistake in the arguments is shown without what a terminal would obey."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _shown_only():
            return super().make_context(*args, **kwargs)

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        with _shown_only():
            return super().invoke(*args, **kwargs)


@contextmanager
def _shown_only() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise _InterruptedError from error
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        # What no command foresaw of a file system: a name too long, a folder without permission, a device that is gone.
        place = f"{str(error.filename)[:200]}: " if error.filename else ""
        raise SpecError(f"{place}{error.strerror or error}") from error
    except UnicodeEncodeError as error:
        raise SpecError("an argument holds bytes that are no text: write names in UTF-8") from error
    except OverflowError as error:
        raise SpecError("a number among the arguments is larger than any here can be") from error
    except Exception as error:
        # click's errors, whose module typer calls otherwise since it brings click along: they have a `message`.
        message = getattr(error, "message", None)
        if isinstance(message, str):
            error.message = sanitise.line(message, len(message))  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    name="windowshift",
    cls=_Commands,
    help="What does fine-tuning teach when the data is shown under a prefix or a steering dose?",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich's help alone takes longer to import than --help may take
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        say(f"windowshift {windowshift.__version__}")
        raise typer.Exit


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("spec.yaml"),
    template: Annotated[str, typer.Option("--template", "-t", help="'--template list' lists them.")] = "published",
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
) -> None:
    """Write a spec to start from."""
    from windowshift.core.spec.template import find_template, templates

    if template == "list":
        say_listed([(item.name, item.summary) for item in templates()])
        return
    chosen = find_template(template)
    if path.exists() and not force:
        raise SpecError(f"{path} is there already: choose another file, or --force to overwrite it")
    try:
        path.write_text(chosen.text, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"cannot write {path}: {error.strerror}") from error
    say(f"wrote {path} from the template '{chosen.name}'; next: windowshift plan {path}")
    for warning in chosen.warnings:
        say(f"note: {warning}", err=True)


@app.command()
def plan(
    spec_file: SpecFile,
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
    power: Annotated[bool, typer.Option("--power", help="Which effect so many seeds and prompts can see.")] = False,
    effect: Annotated[float | None, typer.Option("--effect", help="With --power: how many seeds see this one.")] = None,
) -> None:
    """Show the jobs of a spec, their cost and time, and what is already done; spends nothing."""
    from windowshift.core.run.plan_page import plan_json, plan_lines
    from windowshift.core.run.run import preview

    spec, text = _spec(spec_file)
    found = preview(spec, text, spec_file.parent, workspace)
    seen = None
    if power or effect is not None:
        from windowshift.core.run.power_page import power_lines, power_page

        seen = power_page(found.plan, workspace, effect)
    if as_json:
        say_json(plan_json(found) | ({"power": seen.to_json()} if seen else {}))
        return
    for line in plan_lines(found):
        say(line)
    for line in power_lines(seen) if seen else ():
        say(line)


@app.command()
def run(
    spec_file: SpecFile,
    workspace: Workspace = DEFAULT_WORKSPACE,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while another run holds the workspace.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Go on although gates of the spec's preflight fail; it is recorded.")
    ] = False,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="decided",
            help="Row by row, with a look at the spec's contrasts after each; stop once they are decided.",
        ),
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option("--executor", metavar="NAME", help="Where backend local has its workers: machine, ray, slurm."),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            envvar="WINDOWSHIFT_TRACK",
            metavar="wandb|trackio",
            help="Tell Weights & Biases or trackio of losses and cells, with the spec and its hash; repeatable.",
        ),
    ] = None,
    notify: Annotated[
        list[str] | None,
        typer.Option(
            "--notify",
            envvar="WINDOWSHIFT_NOTIFY",
            metavar="bell|desktop|URL",
            help="Tell when the run ends or stops: a bell, a desktop notification, a POST to a webhook; repeatable.",
        ),
    ] = None,
) -> None:
    """Run a spec, or go on with it: what is done already is not done again."""
    from windowshift.notify import notifiers

    if until not in (None, "decided"):
        raise SpecError(f"--until is  decided , not '{until}'")
    told, tracked = notifiers(notify or ()), _trackers(track)
    spec, text = _spec(spec_file)
    if executor is not None:
        spec = spec.with_option("local", "executor", executor)
    code = run_here(
        spec,
        text,
        spec_file.parent,
        workspace,
        wait=wait,
        quiet=quiet,
        anyway=anyway,
        until_decided=until is not None,
        notify=told,
        track=tracked,
    )
    raise typer.Exit(code)


def _trackers(wanted: list[str] | None) -> list[str]:
    if not wanted:
        return []
    from windowshift.trackers import trackers

    return trackers(wanted)


app.command()(select_command.select)
app.command()(status_command.status)


@app.command()
def tui(
    workspace: Annotated[
        Path, typer.Argument(envvar="WINDOWSHIFT_WORKSPACE", help="A workspace, or a bundle (a .zip file).")
    ] = DEFAULT_WORKSPACE,
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
    from windowshift.tui.read.deep_link import parse_link

    link = parse_link(place) if place is not None else None
    if workspace.is_file():
        _bundled(workspace, link, mouse=mouse, serve=serve)
    if serve:
        from windowshift.tui.serve import serve as serve_screens

        serve_screens(workspace, link=place, host=host, port=port, say=say)
        return
    if host is not None:
        raise SpecError("--host goes with --serve")
    import gc

    gc.disable()  # the first picture comes a twelfth sooner; `run` switches it on again
    from windowshift.tui.launch import run as run_app

    raise typer.Exit(run_app(workspace, link=link, mouse=mouse))


def _bundled(bundle: Path, link: DeepLink | None, *, mouse: bool, serve: bool) -> None:
    """Show a bundle, out of a temporary folder."""
    from windowshift.core.report.bundle import opened
    from windowshift.tui.launch import run as run_app

    if serve:
        raise SpecError("--serve shows a workspace: unpack the bundle into a folder, and name that")
    with opened(bundle) as workspace:
        raise typer.Exit(run_app(workspace, link=link, mouse=mouse))


app.command()(results_command.report)
app.command()(results_command.compare)
app.command()(results_command.microscope)
app.command()(predict_command.predict)
app.command()(results_command.figures)
app.command()(results_command.export)
app.command()(results_command.bundle)
app.command()(rerun_command.rerun)


@app.command()
def control(
    name: Name,
    action: Annotated[str, typer.Argument(help="pause, resume, cancel, retry; first or last with --job.")],
    workspace: Workspace = DEFAULT_WORKSPACE,
    job: Annotated[int | None, typer.Option("--job", help="One job, by its number.")] = None,
) -> None:
    """Pause, resume, cancel or retry a running experiment, or one job of it; put a job first or last.

    Ends with 2 and a reason where that changes nothing: no run is alive, or it is in that state already.
    """
    from windowshift.core.store.control import ACTIONS, refusal, request
    from windowshift.core.store.reader import Reader

    chosen = next((known for known in ACTIONS if known == action), None)
    if chosen is None:
        raise SpecError(f"there is no action '{action}'; known are {', '.join(ACTIONS)}")
    if chosen in ("first", "last") and job is None:
        raise SpecError(f"'{chosen}' moves one job: name it with --job NUMBER")
    with closing(Reader(workspace)) as reader:
        row = reader.experiment(name)
        if row is None:
            raise SpecError(f"there is no experiment '{name}' in {workspace}: 'windowshift status' lists them")
        jobs = reader.jobs(row.id)
        chosen_jobs = [one for one in jobs if job is None or one.n == job]
        if not chosen_jobs and job is not None:
            raise SpecError(f"'{name}' has no job {job}: the jobs screen of 'windowshift tui' numbers them")
        unscored = any(one.kind == "score" and one.result.get("unscored") for one in chosen_jobs)
        only = None if job is None else chosen_jobs[0]
        reason = refusal(chosen, row, reader.run(row.id), only, asked=reader.asked(row.id), unscored=unscored)
    if reason is not None:
        raise SpecError(reason)
    request(workspace, row.id, chosen, job)
    say(f"asked the run of {name} to {action}")


app.command()(demo_command.demo)
app.command()(rephrase_command.rephrase)


@app.command()
def doctor(workspace: Workspace = DEFAULT_WORKSPACE, as_json: Json = False) -> None:
    """Say which backends are installed and what they can do, and check the workspace."""
    from windowshift.core.run.doctor import examine

    found = examine(workspace)
    if as_json:
        say_json(found.to_json())
    else:
        say_block(found.text())
    raise typer.Exit(0 if found.healthy else 1)


@app.command()
def microworld(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the model.")] = Path("microworld"),
    seed: Annotated[int, typer.Option("--seed")] = 0,
) -> None:
    """Build the embedded model anew, bit for bit on one machine (minutes)."""
    from windowshift.backends.local.microworld import build

    build(out, seed=seed)


app.command()(serve_command.serve)
app.add_typer(vectors_command.app, name="vectors")


def _spec(path: Path) -> tuple[Spec, str]:
    from windowshift.core.spec.spec import load_spec

    return load_spec(path)


def main() -> None:
    """Run the command line; errors become one sentence on stderr and an exit code."""
    debug = "--debug" in sys.argv or os.environ.get("WINDOWSHIFT_DEBUG") == "1"
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    guard()
    try:
        app()
    except WindowshiftError as error:
        if debug:
            raise
        say(f"windowshift: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, _InterruptedError):
        if debug:
            raise
        say("windowshift: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # `windowshift report | head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        what = brief(error, 400)
        say(
            f"windowshift: unexpected error: {type(error).__name__}{f': {what}' if what else ''}; this is a fault of "
            "windowshift: add --debug to see where, and report it",
            err=True,
        )
        sys.exit(1)
