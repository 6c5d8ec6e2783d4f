from __future__ import annotations

import builtins
import csv
import json
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.generated_store import CONDITIONS, generate_store
from windowshift.core.contract.errors import MissingExtraError, SpecError, StoreError
from windowshift.core.report.csv_text import quoted
from windowshift.core.report.export import COLUMNS, export, export_dataset
from windowshift.core.store.connection import to_json
from windowshift.core.store.reader import Reader

NASTY = 'a, "b"\nline\r\nold mac\rend \x00 nul \x1b[31mred\x1b[0m \t مرحبا 🙂 =1+1\u2028x'
HEAD = [*COLUMNS, "length_chars", "length_words", "length_tokens"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    writer = generate_store(folder, prompts=8, data_size=6)
    job = Reader(folder).cells(1, "")[10].job
    with writer.batch() as connection:
        connection.execute("UPDATE completions SET text = ?, finish = 'length' WHERE job = ? AND row = 3", (NASTY, job))
        connection.execute("UPDATE completions SET phrase = NULL WHERE job = ? AND row = 3", (job,))
        connection.execute("UPDATE scores SET value = NULL, reason = 'r' WHERE job = ? AND row = 3", (job,))
        connection.execute("DELETE FROM checksums")
    writer.close()
    return folder


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return [dict(row) for row in csv.DictReader(file)]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "CSV"])
def test_round_trip(workspace: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"all.{ending}"
    assert export(workspace, "med-short", out) == 56 * 8
    rows = read(out.rename(out.with_suffix(f".{ending.lower()}")))
    assert len(rows) == 56 * 8
    assert list(rows[0]) == HEAD
    base, odd, plain = rows[0], rows[10 * 8 + 3], rows[10 * 8 + 4]
    assert base["train"] == "base"
    assert not base["generate"]
    assert odd["completion"] == NASTY
    assert not odd["phrase"]
    assert odd["length_chars"] in (None, "")
    assert odd["missing_scores"] == "length_chars: r; length_words: r; length_tokens: r"
    assert not plain["missing_scores"]
    assert (odd["finish"], str(odd["truncated"]).lower()) == ("length", "true")
    assert plain["prompt_id"] == "e4"
    assert plain["phrase"] == "phrase 0:"
    assert float(plain["length_chars"]) == len(plain["completion"])
    assert (plain["arm"], plain["generate"], plain["train"]) == ("prefix", "med_short", "short")
    assert (int(plain["seed"]), int(plain["step"])) == (0, 6)
    assert list(tmp_path.iterdir()) == [out.with_suffix(f".{ending.lower()}")]


def test_formats_hold_the_same(workspace: Path, tmp_path: Path) -> None:
    for ending in ("csv", "jsonl", "parquet"):
        export(workspace, "med-short", tmp_path / f"x.{ending}")
    jsonl, parquet = read(tmp_path / "x.jsonl"), read(tmp_path / "x.parquet")
    assert jsonl == parquet
    texts = [row["completion"] for row in read(tmp_path / "x.csv")]
    assert texts == [row["completion"] for row in jsonl]


def test_refusals(workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"\.csv, \.parquet or \.jsonl"):
        export(workspace, "med-short", tmp_path / "x.xlsx")
    with pytest.raises(SpecError, match="no folder"):
        export(workspace, "med-short", tmp_path / "no" / "x.csv")
    with pytest.raises(SpecError, match="did you mean 'med-short'"):
        export(workspace, "med-shirt", tmp_path / "x.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(SpecError, match="is a folder"):
        export(workspace, "med-short", tmp_path / "folder.csv")
    out = tmp_path / "x.csv"
    out.write_text("mine")
    with pytest.raises(SpecError, match="--force"):
        export(workspace, "med-short", out)
    assert out.read_text() == "mine"
    export(workspace, "med-short", out, force=True)
    assert out.read_text(encoding="utf-8").startswith("arm,")


def test_parquet_without_pyarrow_names_the_extra(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"windowshift\[export\]"):
        export(workspace, "med-short", tmp_path / "x.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / ("x" * 300 + ".csv")  # a name too long for the file system
    with pytest.raises(SpecError, match="cannot write"):
        export(workspace, "med-short", out)
    assert list(tmp_path.iterdir()) == []


def with_parts(folder: Path) -> None:
    """Give the jobs the inputs that a plan gives them: two parts of D under two conditions."""
    writer = generate_store(folder, prompts=4, data_size=6)
    jobs = Reader(folder).jobs(1)
    data = next(job for job in jobs if job.kind == "generate")
    pushed = {"kind": "prefix", "phrases": ["One:", "Two:"]}
    parts = [
        {"data": data.id, "first": 0, "last": 4, "channel": "system", "condition": pushed},
        {"data": data.id, "first": 4, "last": 6, "channel": "user", "condition": {"kind": "none"}},
    ]
    with writer.batch() as connection:
        connection.execute("UPDATE jobs SET inputs = ? WHERE n = ?", (to_json({"rows": [0, 6]}), data.n))
        connection.execute("UPDATE jobs SET inputs = ? WHERE kind = 'train'", (to_json({"parts": parts, "seed": 7}),))
    writer.close()


def test_dataset_as_chat_jsonl(tmp_path: Path) -> None:
    with_parts(tmp_path)
    out = tmp_path / "d.jsonl"
    assert export_dataset(tmp_path, "med-short", "med_short", "long", out) == 6
    rows = read(out)
    reader = Reader(tmp_path)
    data = next(job for job in reader.jobs(1) if job.kind == "generate")
    expected = []
    for position, row in enumerate(reader.completions(data.n, "")):
        turns = [{"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.text}]
        if position < 4:
            turns.insert(0, {"role": "system", "content": ["One:", "Two:"][position % 2]})
        expected.append({"messages": turns})
    random.Random("order:7").shuffle(expected)
    assert rows == expected


def test_dataset_refusals(tmp_path: Path) -> None:
    with_parts(tmp_path)
    with pytest.raises(SpecError, match="no row trained on med_short data under 'huge'"):
        export_dataset(tmp_path, "med-short", "med_short", "huge", tmp_path / "d.jsonl")
    with pytest.raises(SpecError, match="with seed 3"):
        export_dataset(tmp_path, "med-short", "med_short", "long", tmp_path / "d.jsonl", seed=3)
    with pytest.raises(SpecError, match=r"\.jsonl"):
        export_dataset(tmp_path, "med-short", "med_short", CONDITIONS[0], tmp_path / "d.csv")


def test_dataset_with_a_failed_completion(tmp_path: Path) -> None:
    with_parts(tmp_path)
    from windowshift.core.store.writer import Writer

    writer = Writer(tmp_path)
    data = next(job for job in Reader(tmp_path).jobs(1) if job.kind == "generate")
    with writer.batch() as connection:
        connection.execute("UPDATE completions SET finish = 'failed' WHERE job = ? AND row = 2", (data.n,))
    writer.close()
    with pytest.raises(StoreError, match="completions missing"):
        export_dataset(tmp_path, "med-short", "med_short", "long", tmp_path / "d.jsonl")


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "''-x", "=", "-"]
PLAIN = ["", "a=1", " =1", "'quoted'", "-3.5", "+7", "-1e-9", "1", "– dash", "x\n=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_spreadsheet_runs_nothing_of_a_csv(workspace: Path, tmp_path: Path, text: str) -> None:
    assert quoted(text) == f"'{text}"
    folder = tmp_path / "ws"
    shutil.copytree(workspace, folder)
    with closing(sqlite3.connect(folder / "windowshift.db")) as store:
        store.execute("UPDATE completions SET text = ?", (text,))
        store.execute("DELETE FROM checksums")
        store.commit()
    export(folder, "med-short", tmp_path / "safe.csv")
    export(folder, "med-short", tmp_path / "raw.csv", raw=True)
    export(folder, "med-short", tmp_path / "x.jsonl")
    assert {row["completion"] for row in read(tmp_path / "safe.csv")} == {f"'{text}"}
    assert {row["completion"] for row in read(tmp_path / "raw.csv")} == {text}
    assert {row["completion"] for row in read(tmp_path / "x.jsonl")} == {text}
    assert all(float(row["length_chars"] or 0) >= 0 for row in read(tmp_path / "safe.csv"))


@pytest.mark.parametrize("text", PLAIN)
def test_what_no_spreadsheet_runs_stays_as_it_is(text: str) -> None:
    assert quoted(text) == text
