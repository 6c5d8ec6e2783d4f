"""The commands under `windowshift vectors`: make, list, show, compare, import and export steering vectors."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from windowshift.core.contract.errors import SpecError
from windowshift.options import DEFAULT_WORKSPACE, Json, SpecFile, Workspace
from windowshift.run_command import run_here
from windowshift.say import say, say_json

if TYPE_CHECKING:
    from windowshift.core.measure.steering_results import LayerSweep
    from windowshift.steering.vector import SteeringVector

app = typer.Typer(help="Make, look at, import and export steering vectors.", no_args_is_help=True)

VectorName = Annotated[str, typer.Argument(metavar="VECTOR", help="A file, or EXPERIMENT/NAME in the workspace.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite.")]


@app.command("make")
def make(
    spec_file: SpecFile,
    workspace: Workspace = DEFAULT_WORKSPACE,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Make a spec's vectors, choose their layers and match their doses; trains and evaluates nothing."""
    from windowshift.core.spec.spec import load_spec

    spec, text = load_spec(spec_file)
    if not spec.vectors:
        raise SpecError(f"{spec_file} has no 'vectors'")
    code = run_here(spec, text, spec_file.parent, workspace, quiet=quiet, vectors_only=True)
    list_vectors(workspace, as_json=False)
    raise typer.Exit(code)


@app.command("list")
def list_vectors(workspace: Workspace = DEFAULT_WORKSPACE, as_json: Json = False) -> None:
    """List the vectors of a workspace with where they come from."""
    from windowshift.core.contract.errors import StoreError
    from windowshift.core.contract.vector_file import read_header
    from windowshift.core.measure.steering_results import vectors_made
    from windowshift.core.store.reader import Reader

    lines: list[dict[str, Any]] = []
    with closing(Reader(workspace)) as reader:
        for experiment in reader.experiments():
            for job in reader.jobs(experiment.id):
                if job.kind == "extract":
                    line: dict[str, Any] = {"vector": f"{experiment.name}/{job.inputs['name']}", "state": job.state}
                    line |= {"error": job.error, "file": None, "layer_in_use": None}
                    if job.state == "done":
                        line["file"] = str(workspace / job.result["vector"])
                        try:
                            line["header"] = asdict(read_header(_file(workspace, job.result["vector"])))
                        except StoreError as error:  # one that is gone hides no other
                            line["error"] = f"cannot read vector {error}"
                        except SpecError as error:
                            line["error"] = f"{error}; run again to make it anew"
                        line["layer_in_use"] = vectors_made(reader, experiment).layer(job.inputs["name"])
                    lines.append(line)
    if as_json:
        say_json({"vectors": lines})
        return
    for line in lines:
        header = line.get("header")
        if header is None:
            say(f"{line['vector']:32} {line['state']}{': ' + line['error'] if line['error'] else ''}")
            continue
        origin = header["provenance"]
        sides = (
            f", {origin['positive']} − {origin['negative']}, {origin['tokens']} tokens" if origin["positive"] else ""
        )
        shape = f"{header['layers']} layers × {header['width']}"
        used = "no layer chosen yet" if line["layer_in_use"] is None else f"layer {line['layer_in_use']}"
        say(f"{line['vector']:32} {origin['how']}{sides}; {shape}, {used}; on {origin['model']}; {line['file']}")
    if not lines:
        say("no vectors yet: windowshift vectors make SPEC makes a spec's")


@app.command("show")
def show(vector: VectorName, workspace: Workspace = DEFAULT_WORKSPACE, as_json: Json = False) -> None:
    """Print where a vector comes from, the layer in use, norms and dose units, and how alike its layers are."""
    from windowshift.steering.similarity import across_layers

    found = _load(vector, workspace)
    header, similar, sweep = found.vector.header, across_layers(found.vector), found.chosen_by
    if as_json:
        say_json(
            {
                **asdict(header),
                "digest": found.vector.digest,
                "cosine_across_layers": _numbers(similar),
                "layer_in_use": found.layer,
                "chosen_by": {"rule": sweep.rule, "layers": [one.layer for one in sweep.ranges]} if sweep else None,
            }
        )
        return
    origin = header.provenance
    say(f"{header.name}: {origin.how}, on {origin.model} ({origin.fingerprint[:12]}), digest {found.vector.digest}")
    if origin.positive:
        say(f"  {origin.positive} ({origin.positive_count}) − {origin.negative} ({origin.negative_count}), "
                   f"{origin.tokens} tokens, prompts {origin.prompts}")  # fmt: skip
    if origin.parents:
        say(f"  made of {', '.join(origin.parents)}")
    say(f"  {_layer_sentence(found)}")
    say("  layer     norm  residual RMS  norm/RMS  cosine with layer")
    say(" " * 42 + " ".join(f"{layer:5}" for layer in range(header.layers)))
    for layer, norm in enumerate(header.norms):
        rms = header.rms[layer] if header.rms else None
        ratio = f"{rms:12.3f}  {norm / rms:8.3f}" if rms else f"{'—':>12}  {'—':>8}"
        chosen = "*" if layer == found.layer else " "
        row = " ".join("   — " if value != value else f"{value:5.2f}" for value in similar[layer])
        say(f"  {layer:4}{chosen} {norm:8.3f}  {ratio}  {row}")


@app.command("cosine")
def cosine(
    vectors: Annotated[list[str], typer.Argument(metavar="VECTOR...", help="Files, or EXPERIMENT/NAME.")],
    workspace: Workspace = DEFAULT_WORKSPACE,
    layer: Annotated[int | None, typer.Option("--layer", help="Default: every layer.")] = None,
    as_json: Json = False,
) -> None:
    """Compare vectors: cosine similarity, at one layer or at each."""
    from windowshift.steering.similarity import table

    loaded = [_load(name, workspace) for name in vectors]
    if len(loaded) < 2:
        raise SpecError("cosine compares two vectors or more")
    found = [one.vector for one in loaded]
    layers = range(min(one.layers for one in found)) if layer is None else [layer]
    tables = {at: table(found, at) for at in layers}
    if as_json:
        say_json({"vectors": vectors, "layers": {str(at): _numbers(values) for at, values in tables.items()}})
        return
    shown = [_short(name) for name in vectors]
    widths = [max(6, len(name)) for name in shown]
    edge = max(32, *map(len, shown))
    for at, values in tables.items():
        used = ", ".join(name for name, one in zip(shown, loaded, strict=True) if one.layer == at)
        say(f"layer {at}{f', in use by {used}' if used else ''}")
        say(f"  {'cosine':{edge}} " + " ".join(f"{name:>{width}}" for name, width in zip(shown, widths, strict=True)))
        for name, row in zip(shown, values, strict=True):
            cells = (f"{value:{width}.3f}" for value, width in zip(row, widths, strict=True))
            say(f"  {name:{edge}} " + " ".join(cells))


@app.command("import")
def import_vector(
    file: Annotated[Path, typer.Argument(help="A persona_vectors .pt, a repeng .gguf or a steering-vectors .pt.")],
    model: Annotated[str, typer.Option("--model", help="The model that it was made on: hub id, folder, microworld.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .safetensors file to write.")],
    name: Annotated[str | None, typer.Option("--name", help="Default: the file's.")] = None,
    layer: Annotated[int | None, typer.Option("--layer", help="The layer chosen for use.")] = None,
    prompts: Annotated[int, typer.Option("--prompts", help="Chats that the residual norms are measured on.")] = 64,
    force: Force = False,
) -> None:
    """Make a windowshift vector of another tool's file, and measure its model's residual norms for doses."""
    from windowshift.backends.local.vector_import import import_file

    found = import_file(file, model, name=name or file.stem, layer=layer, prompts=prompts)
    found.save(out, force)
    say(f"wrote {out}: {found.layers} layers × {found.width}, {found.provenance.how}, bound to {model}")


@app.command("export")
def export_vector(
    vector: VectorName,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    to: Annotated[str, typer.Option("--to", help="persona, gguf, steering-vectors or safetensors.")] = "safetensors",
    workspace: Workspace = DEFAULT_WORKSPACE,
    model_type: Annotated[str, typer.Option("--model-type", help="With gguf: the architecture's name.")] = "llama",
    force: Force = False,
) -> None:
    """Write a vector in another tool's format."""
    from windowshift.steering.formats import export_gguf, export_persona, export_steering_vectors

    found = _load(vector, workspace).vector
    if to == "persona":
        export_persona(found, out, force)
    elif to == "gguf":
        export_gguf(found, out, model_type, force)
    elif to == "steering-vectors":
        export_steering_vectors(found, out, force)
    elif to == "safetensors":
        found.save(out, force)
    else:
        raise SpecError(f"there is no format '{to}'; known are persona, gguf, steering-vectors, safetensors")
    say(f"wrote {out}")


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A vector, the layer at which it is used (None where that is not known), and the sweep that chose it."""

    vector: SteeringVector
    layer: int | None
    chosen_by: LayerSweep | None = None


def _layer_sentence(found: _Loaded) -> str:
    if found.layer is None:
        return "no layer is chosen for it"
    sweep = found.chosen_by
    if sweep is None:
        return f"layer in use: {found.layer} (*)"
    tried = ", ".join(str(one.layer) for one in sweep.ranges)
    if len(sweep.ranges) == 1:
        return f"layer in use: {found.layer} (*), the one that doses were tried at"
    return f"layer in use: {found.layer} (*), chosen among {tried}: {sweep.rule}"


def _short(name: str) -> str:
    """A vector's name as the head of a column: a file's without its folder."""
    return Path(name).stem if Path(name).is_file() else name


def _load(vector: str, workspace: Path) -> _Loaded:
    from windowshift.core.measure.steering_results import vectors_made
    from windowshift.core.spec.spec_errors import did_you_mean
    from windowshift.core.store.reader import Reader
    from windowshift.steering.vector import SteeringVector

    if Path(vector).is_file():
        loaded = SteeringVector.load(vector)
        return _Loaded(loaded, loaded.header.layer)
    name, slash, wanted = vector.partition("/")
    if not slash:
        raise SpecError(f"there is no vector file {vector}; a vector of a workspace is written EXPERIMENT/NAME")
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment(name)
        made = {job.inputs["name"]: job for job in reader.jobs(experiment.id) if job.kind == "extract"}
        known = vectors_made(reader, experiment)
    if wanted not in made:
        raise SpecError(f"experiment '{name}' has no vector '{wanted}'{did_you_mean(wanted, made) if made else ''}")
    if made[wanted].state != "done":
        raise SpecError(f"vector '{vector}' is not made yet ({made[wanted].state}): windowshift vectors make SPEC")
    loaded = SteeringVector.load(_file(workspace, made[wanted].result["vector"]))
    return _Loaded(loaded, known.layer(wanted), known.chosen_by(wanted))


def _file(workspace: Path, place: str) -> Path:
    from windowshift.core.store.artifact_folder import ArtifactFolder

    return Path(ArtifactFolder(workspace).get(place))


def _numbers(values: Any) -> list[list[float | None]]:
    return [[None if value != value else float(value) for value in row] for row in values]
