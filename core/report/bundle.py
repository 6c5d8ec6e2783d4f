"""A bundle: one experiment as one file that another person opens, without its artifacts and most of its completions."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import io
import json
import lzma
import os
import platform
import sqlite3
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import SpecError, StoreError
from windowshift.core.contract.records import ExperimentRow
from windowshift.core.contract.redaction import urls, without_keys_in_urls
from windowshift.core.contract.whole_file import replacing_file
from windowshift.core.report.blocks import report_blocks
from windowshift.core.report.csv_text import quoted
from windowshift.core.report.latex import latex
from windowshift.core.report.report import report
from windowshift.core.report.text import markdown
from windowshift.core.spec.yaml_text import read_yaml
from windowshift.core.store.checksums import compare, seal
from windowshift.core.store.connection import FILE_NAME, is_older, naming, open_writer, store_path
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

MANIFEST = "bundle.json"
LEFT_OUT = "[not in this bundle, which holds the first completions of each job alone; its scores are all there]"
SAMPLE = 10
FORM = 1
_LARGEST = 4 << 30  # bytes of the store in a bundle that is opened
_LARGEST_MANIFEST = 16 << 20
# What zipfile and the decompressors that it calls raise of bytes that are none of theirs.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
_LIBRARIES = (
    "accelerate",
    "datasets",
    "inspect-ai",
    "nnsight",
    "numpy",
    "openai",
    "pandas",
    "peft",
    "pydantic",
    "scipy",
    "tinker",
    "tokenizers",
    "torch",
    "transformers",
    "vllm",
)


def make_bundle(workspace: Path, name: str, out: Path, *, sample: int = SAMPLE, force: bool = False) -> dict[str, Any]:
    """Write an experiment's bundle; return its manifest.

    It holds the spec, the versions of what it was made with, the report (Markdown, LaTeX, JSON, the cells as CSV), the
    first `sample` completions of every job, the scores of all, and a SHA-256 of each file. Other experiments of the
    workspace, artifacts (adapters, vectors) and keys are not in it.

    Raises:
        SpecError: there is no such experiment, the file's name does not end in .zip, or it is there already.
        StoreError: what the store holds is not what was stored.
    """
    if out.suffix.lower() != ".zip":
        raise SpecError(f"{out}: a bundle's name ends in .zip")
    if sample < 0:
        raise SpecError("--sample is how many completions of each job the bundle holds: 0 or more")
    if out.exists() and not force:
        raise SpecError(f"{out} is there already: choose another file, or --force to overwrite it")
    made = report(workspace, name)
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment(name)
        with naming(reader.path):
            if changed := compare(reader.connection, experiment.id):
                raise StoreError(f"nothing was bundled from {reader.path}: {changed[0]}")
        files: dict[str, bytes] = {
            "spec.yaml": _without_keys(reader.spec_text(experiment.id)).encode(),
            "report.md": markdown(made).encode(),
            "report.tex": latex(report_blocks(made, None)).encode(),
            "report.json": (json.dumps(made.to_json(), indent=1, ensure_ascii=False) + "\n").encode(),
            "cells.csv": _cells(made.to_json()["cells"]).encode(),
            "completions.jsonl": _sampled(reader, experiment, sample).encode(),
        }
        files["LICENCES.md"] = _licences(experiment).encode()
        with tempfile.TemporaryDirectory() as folder:
            path = _store(reader, experiment, Path(folder), sample)
            files[FILE_NAME] = path.read_bytes()
        manifest = _manifest(reader, experiment, sample, files)
    files[MANIFEST] = (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()
    try:
        with replacing_file(out) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in (MANIFEST, *sorted(set(files) - {MANIFEST})):
                # One time for all: the same experiment gives the same bundle.
                archive.writestr(zipfile.ZipInfo(file, (1980, 1, 1, 0, 0, 0)), files[file], zipfile.ZIP_DEFLATED)
    except OSError as error:
        raise SpecError(f"cannot write {out}: {error.strerror or error}") from error
    return manifest


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """Give a bundle as a workspace in a temporary folder, which is gone when the block ends.

    Raises:
        SpecError: the file is no bundle, or what it holds is not what its manifest says.
    """
    with tempfile.TemporaryDirectory(prefix="windowshift-bundle-") as folder:
        # What goes wrong while the workspace is used is not the bundle's fault, and said as it is.
        yield _taken_out(path, Path(folder))


def _taken_out(path: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _read_manifest(archive, path)
            workspace = folder / f"{manifest['experiment']} (bundle)"
            workspace.mkdir()
            # Nothing but the store is taken out, under a name of ours: a name in a foreign archive leads nowhere.
            wanted, digest = str(manifest["files"][FILE_NAME]), hashlib.sha256()
            size = 0
            with archive.open(FILE_NAME) as source, (workspace / FILE_NAME).open("wb") as target:
                while chunk := source.read(1 << 20):
                    size += len(chunk)
                    if size > _LARGEST:
                        raise SpecError(f"{path} holds a store that is larger than {_LARGEST >> 30} GB")
                    digest.update(chunk)
                    target.write(chunk)
            if digest.hexdigest() != wanted:
                raise SpecError(f"{path} was changed after it was made: its {FILE_NAME} is not what {MANIFEST} says")
            if is_older(workspace):
                open_writer(workspace).close()
            return workspace
    except _UNREADABLE as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise SpecError(f"{path} is not a bundle of windowshift: {said}") from error


def _read_manifest(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    if archive.getinfo(MANIFEST).file_size > _LARGEST_MANIFEST:
        raise SpecError(f"{path} is not a bundle of windowshift: its {MANIFEST} is too long")
    try:
        found = json.loads(archive.read(MANIFEST))
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path} is not a bundle of windowshift: its {MANIFEST} is not JSON") from error
    if not isinstance(found, dict) or not isinstance(found.get("files"), dict) or FILE_NAME not in found["files"]:
        raise SpecError(f"{path} is not a bundle of windowshift: its {MANIFEST} lists no store")
    if not isinstance(form := found.get("form"), int) or form > FORM:
        raise SpecError(f"{path} was made by a newer windowshift ({found.get('windowshift')}): upgrade to open it")
    name = "".join(one for one in str(found.get("experiment", "")) if one.isalnum() or one in "._+-")[:80]
    return {**found, "experiment": name or "experiment"}


def _manifest(reader: Reader, experiment: ExperimentRow, sample: int, files: dict[str, bytes]) -> dict[str, Any]:
    fingerprint = reader.connection.execute(
        "SELECT fingerprint FROM experiments WHERE id = ?", (experiment.id,)
    ).fetchone()[0]
    jobs = {job.id: job.kind for job in reader.jobs(experiment.id)}
    return {
        "form": FORM,
        "windowshift": _version(),
        "experiment": experiment.name,
        "state": experiment.state,
        "setting": experiment.setting,
        "model": {"label": experiment.model, "fingerprint": fingerprint, "rehearsal": experiment.rehearsal},
        "backend": experiment.backend,
        "versions": _versions(),
        "sample": sample,
        "spec_sha256": hashlib.sha256(files["spec.yaml"]).hexdigest(),
        "jobs": jobs,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
        "open": "windowshift tui FILE",
        "again": f"windowshift run spec.yaml  (as {experiment.name}; prompt files are not in the bundle)",
    }


def _version() -> str:
    return importlib.metadata.version("windowshift")


def _versions() -> dict[str, str]:
    """What is installed where the bundle is made, which need not be what the run had: jobs' ids tell that."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cells(cells: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    heads = list(cells[0]) if cells else []
    writer = csv.DictWriter(out, heads)
    writer.writeheader()
    for cell in cells:
        # Names of conditions are a person's own, and a spreadsheet runs what looks like a formula.
        row = {key: json.dumps(value) if isinstance(value, list) else value for key, value in cell.items()}
        writer.writerow({key: quoted(value) if isinstance(value, str) else value for key, value in row.items()})
    return out.getvalue()


def _sampled(reader: Reader, experiment: ExperimentRow, sample: int) -> str:
    behaviour = experiment.find_behaviour(None).name if experiment.behaviours else ""
    lines = []
    for cell in reader.cells(experiment.id, ""):
        for row in reader.completions(cell.job, behaviour, limit=sample):
            said = {
                "arm": cell.arm,
                "generate": cell.generate,
                "train": cell.train,
                "evaluate": cell.evaluate,
                "seed": cell.seed,
                "step": cell.step,
                "prompt_id": row.prompt_id,
                "turns": json.loads(row.turns or "[]"),
                "prompt": row.prompt,
                "phrase": row.phrase,
                "completion": None if row.finish == "failed" else row.text,
                "finish": row.finish,
                "error": row.error,
                behaviour: row.score,
                "missing": row.reason if row.score is None else None,
            }
            lines.append(json.dumps(said, ensure_ascii=False) + "\n")
    return "".join(lines)


def _store(reader: Reader, experiment: ExperimentRow, folder: Path, sample: int) -> Path:
    """A copy of the store with this experiment alone, and without most completions' texts."""
    path = store_path(folder)
    with naming(reader.path), closing(sqlite3.connect(path)) as copy:
        reader.connection.backup(copy)
    others = [one.id for one in reader.experiments() if one.id != experiment.id]
    writer = Writer(folder)
    try:
        for other in others:
            writer.delete_experiment(other)
        with writer.batch() as connection:
            connection.execute(
                "UPDATE completions SET text = ?, reasoning = NULL WHERE row >= ? AND finish != 'failed'",
                (LEFT_OUT, sample),
            )
            _clean_spec(connection, experiment)
            connection.execute("DELETE FROM runs")
            connection.execute("DELETE FROM control")
            sums = connection.execute("SELECT owner FROM checksums WHERE part = 'completions'").fetchall()
            for (owner,) in sums:
                seal(connection, owner, "completions")
            # Prompts and phrases that only the others had.
            connection.execute("DELETE FROM phrases WHERE id NOT IN (SELECT phrase FROM completions WHERE phrase > 0)")
            connection.execute(
                "DELETE FROM prompt_sets WHERE digest IN (SELECT digest FROM (SELECT DISTINCT digest FROM prompt_sets) "
                "d WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE instr(jobs.inputs, d.digest) > 0))"
            )
            connection.execute(
                "DELETE FROM prompts WHERE id NOT IN (SELECT prompt FROM completions) "
                "AND id NOT IN (SELECT prompt FROM prompt_sets)"
            )
    finally:
        writer.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as copy:
        # What was deleted must not stand in free pages, nor in a log beside the file.
        copy.execute("PRAGMA journal_mode=DELETE")
        copy.execute("VACUUM")
    for beside in (f"{path}-wal", f"{path}-shm"):
        if os.path.exists(beside):  # noqa: PTH110 - SQLite's own names
            os.remove(beside)  # noqa: PTH107
    return path


def _without_keys(spec: str) -> str:
    """A spec without the keys in its addresses: some gateways are asked with one in the path.

    An address in a prompt is a part of that prompt, and stays: the same spec would ask something else without it.
    """
    quoted_in: set[str] = set()
    try:
        left: list[Any] = [read_yaml(spec, "the spec")]
    except SpecError:  # of an older version: which addresses are a prompt's is not known
        left = []
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str) and len(value.split()) > 1:
            quoted_in |= urls(value)
    return without_keys_in_urls(spec, quoted_in)


def _clean_spec(connection: sqlite3.Connection, experiment: ExperimentRow) -> None:
    (spec,) = connection.execute("SELECT spec FROM experiments WHERE id = ?", (experiment.id,)).fetchone()
    if (clean := _without_keys(spec)) != spec:
        connection.execute("UPDATE experiments SET spec = ? WHERE id = ?", (clean, experiment.id))
        sealed = "SELECT 1 FROM checksums WHERE owner = ? AND part = 'experiment'"
        if connection.execute(sealed, (experiment.id,)).fetchone():
            seal(connection, experiment.id, "experiment")


def _licences(experiment: ExperimentRow) -> str:
    rehearsal = (
        "\nThe model is a rehearsal model that ships with windowshift (Apache-2.0): these numbers are no evidence\n"
        "about language models.\n"
        if experiment.rehearsal
        else ""
    )
    return f"""# Whose is what

- windowshift {_version()} is under Apache-2.0; what it measured (tables, figures, intervals) is yours to
  publish with your own work.
- The model, {experiment.model}, has a licence of its own. Some ask to be named, some restrict what their outputs may
  train. Look at it before you publish completions, or adapters that were trained on them.
- The prompts, and a D that was given, are from the sources that spec.yaml names, each with its own licence. They are in
  {FILE_NAME} in full, and in completions.jsonl beside the completions: leave them out where that licence asks it.
- Scorers that asked a model (judges) used a service, whose terms hold for its answers.
{rehearsal}"""
