"""`windowshift predict`: the cells that are not trained yet, from the base model and the rows that are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from windowshift.options import DEFAULT_WORKSPACE, Json, Workspace
from windowshift.results_command import reads_results
from windowshift.say import say, say_json


@reads_results
def predict(
    name: Annotated[str, typer.Argument(metavar="NAME|SPEC", help="The experiment's name, or its spec.")],
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
    behaviour: Annotated[str | None, typer.Option("--behaviour", "-b", help="Default: the primary one.")] = None,
) -> None:
    """Predict the cells that are not trained yet, with intervals, and say which row to train next."""
    from windowshift.core.measure.prediction import predict as look
    from windowshift.core.report.prediction_page import prediction_blocks, prediction_json
    from windowshift.core.report.text import print_blocks

    text = None
    if name.endswith((".yaml", ".yml")):
        from windowshift.core.spec.spec import load_spec

        spec, text = load_spec(Path(name))
        name = spec.name
    found = look(workspace, name, behaviour)
    if text is not None and text != found.spec:
        say(f"note: the spec was changed after {name} was last run; what is shown is the grid of that run", err=True)
    if as_json:
        say_json(prediction_json(found))
    else:
        print_blocks(prediction_blocks(found))
