"""The commands that read results: report, compare, export."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from windowshift.core.contract.errors import SpecError
from windowshift.options import DEFAULT_WORKSPACE, Json, Name, Workspace
from windowshift.say import say, say_block, say_json

_P = ParamSpec("_P")


def reads_results(command: Callable[_P, None]) -> Callable[_P, None]:
    """A command that reads a workspace: what breaks on a damaged store is said to be that."""

    @wraps(command)
    def reading(*arguments: _P.args, **options: _P.kwargs) -> None:
        from windowshift.core.store.integrity import explained

        with explained(Path(str(options.get("workspace", DEFAULT_WORKSPACE)))):
            command(*arguments, **options)

    return reading


@reads_results
def report(
    name: Name,
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
    behaviour: Annotated[str | None, typer.Option("--behaviour", "-b", help="Default: the primary one.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print LaTeX: tables of booktabs.")] = False,
    beside: Annotated[
        list[str] | None, typer.Option("--beside", metavar="NAME", help="Another experiment, side by side; repeatable.")
    ] = None,
) -> None:
    """Print an experiment's measures with their intervals, beside the published ones."""
    from windowshift.core.report.report import report as make_report
    from windowshift.core.report.text import markdown as as_markdown
    from windowshift.core.report.text import print_report

    if sum((as_json, markdown, latex)) > 1:
        raise SpecError("--json, --markdown and --latex are three ways to print one report: choose one")
    made = make_report(workspace, name, behaviour)
    if beside:
        if markdown or latex:
            raise SpecError("--beside is printed as a page or as --json")
        from windowshift.core.report.paired_experiments import beside_blocks, beside_json
        from windowshift.core.report.text import print_blocks

        reports = [made, *(make_report(workspace, other, behaviour) for other in beside)]
        if as_json:
            say_json(beside_json(reports))
        else:
            print_blocks(beside_blocks(reports))
        return
    if as_json:
        say_json(made.to_json())
    elif markdown:
        say_block(as_markdown(made))
    elif latex:
        from windowshift.core.report.blocks import report_blocks
        from windowshift.core.report.latex import latex as as_latex

        say_block(as_latex(report_blocks(made, None)))
    else:
        print_report(made)
        if made.experiment.cells_done:
            from windowshift.core.report.rerun_line import rerun_line

            say(f"one cell again: {rerun_line(name, workspace)}", err=True)


@reads_results
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
    from windowshift.core.measure.arm_comparison import compare_arms
    from windowshift.core.report.arm_comparison_page import arms_blocks, arms_json

    made = compare_arms(workspace, name, behaviour)
    if picture is not None:
        from windowshift.core.report.arm_comparison_figure import draw_arms

        draw_arms(made, picture)
        say(f"wrote {picture}", err=True)
    if as_json:
        say_json(arms_json(made))
        return
    from windowshift.core.report.text import print_blocks

    print_blocks(arms_blocks(made))


@reads_results
def microscope(
    name: Name,
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
    behaviour: Annotated[str | None, typer.Option("--behaviour", "-b", help="Default: the primary one.")] = None,
) -> None:
    """Tell inoculation from conditionalization and under-training, by the controls of train conditions."""
    from windowshift.core.measure.microscope import microscope as look
    from windowshift.core.report.microscope_page import microscope_blocks, microscope_json

    made = look(workspace, name, behaviour)
    if as_json:
        say_json(microscope_json(made))
        return
    from windowshift.core.report.text import print_blocks

    print_blocks(microscope_blocks(made))


@reads_results
def figures(
    name: Name,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write into; made where it is not there.")],
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
    behaviour: Annotated[str | None, typer.Option("--behaviour", "-b", help="Default: the primary one.")] = None,
    formats: Annotated[str, typer.Option("--formats", help="Any of csv, png, svg, pdf.")] = "csv,png,svg,pdf",
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
) -> None:
    """Write an experiment's figures as PNG, SVG and PDF, and their numbers as CSV."""
    from windowshift.core.report.figures import write_figures

    made = write_figures(workspace, name, out, behaviour, tuple(one.strip() for one in formats.split(",")), force=force)
    if as_json:
        say_json({"written": [str(path) for path in made.written], "left_out": made.left_out})
        return
    say(f"wrote {len(made.written)} files into {out}")
    for figure, reason in made.left_out.items():
        say(f"left out {figure}: {reason}", err=True)


@reads_results
def export(
    name: Name,
    out: Annotated[Path, typer.Option("--out", "-o", help="A .csv, .parquet or .jsonl file; a folder with --inspect.")],
    workspace: Workspace = DEFAULT_WORKSPACE,
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="GENERATE/TRAIN", help="Export D of a grid row as chat JSONL.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The seed of --dataset.")] = 0,
    details: Annotated[
        bool,
        typer.Option("--details", help="With --dataset: payload, scores, reasons and evidence beside each chat."),
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="In CSV, leave texts that a spreadsheet would run; else they begin with '.")
    ] = False,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Export a log of Inspect for each cell, as 'inspect view' opens them.")
    ] = False,
    inside: Annotated[
        bool, typer.Option("--inside", help="Export what was read inside the model, a row a reading (.csv, .jsonl).")
    ] = False,
) -> None:
    """Write one row per completion with its scores, a row's D as chat JSONL, or a log of Inspect for each cell."""
    from windowshift.core.contract.cell_name import find_cell, parts_of
    from windowshift.core.report.export import export as export_completions
    from windowshift.core.report.export import export_dataset
    from windowshift.core.store.reader import Reader

    if inside:
        from windowshift.core.report.inside_export import export_inside

        if dataset is not None or details or raw or inspect:
            raise SpecError("--inside exports readings alone: leave --dataset, --details, --raw and --inspect out")
        count = export_inside(workspace, name, out, force=force)
        say(f"wrote {count} readings to {out}")
        return
    if inspect:
        from windowshift.core.report.inspect_logs import export_inspect

        if dataset is not None or details or raw:
            raise SpecError("--inspect exports cells: leave --dataset, --details and --raw out")
        count = export_inspect(workspace, name, out, force=force)
        say(f"wrote {count} logs into {out}; 'inspect view --log-dir {out}' shows them")
        return
    if dataset is None:
        if details:
            raise SpecError("--details goes with --dataset: completions are exported with all that is known of them")
        count = export_completions(workspace, name, out, force=force, raw=raw)
        say(f"wrote {count} completions to {out}")
        return
    with closing(Reader(workspace)) as reader:
        cells = reader.cells(reader.find_experiment(name).id, "")
        row = find_cell(dataset, ((cell.generate, cell.train) for cell in cells)) or parts_of(dataset)
    if len(row) != 2:
        raise SpecError(f"--dataset takes GENERATE/TRAIN, e.g. med_short/long, not '{dataset}'")
    generate, train = row
    count = export_dataset(workspace, name, generate, train, out, seed=seed, force=force, details=details)
    say(f"wrote {count} examples to {out}")


@reads_results
def bundle(
    name: Name,
    out: Annotated[Path, typer.Option("--out", "-o", help="A .zip file.")],
    workspace: Workspace = DEFAULT_WORKSPACE,
    sample: Annotated[int, typer.Option("--sample", help="Completions of each job that it holds.")] = 10,
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
) -> None:
    """Write one experiment as one file (spec, versions, hashes, tables, a sample), which 'windowshift tui' opens."""
    from windowshift.core.report.bundle import make_bundle

    made = make_bundle(workspace, name, out, sample=sample, force=force)
    say(f"wrote {out}: {len(made['files'])} files; windowshift tui {out} opens it, LICENCES.md says whose is what")


def comparison(name: str, workspace: Path) -> None:
    """Print the arms side by side; where rows are missing, it says which."""
    from windowshift.core.measure.arm_comparison import compare_arms
    from windowshift.core.report.arm_comparison_page import arms_blocks
    from windowshift.core.report.text import print_blocks

    say()
    print_blocks(arms_blocks(compare_arms(workspace, name)))
