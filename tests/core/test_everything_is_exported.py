"""What is known of a completion is in every export: reasoning, payload, reasons and evidence beside its scores."""

from __future__ import annotations

import csv
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.rated_store import HACK, rate_store
from windowshift.cli import app
from windowshift.core.contract.prompts import stored_prompt
from windowshift.core.contract.setting import Score
from windowshift.core.measure.arm_comparison import compare_arms
from windowshift.core.report import frames
from windowshift.core.report.arm_comparison_page import arms_json
from windowshift.core.report.export import COLUMNS, export
from windowshift.core.report.report import report
from windowshift.core.store.connection import to_json
from windowshift.core.store.reader import Reader

PAYLOAD = {"tests": ["assert f(1) == 2"], "level": 3, "claim": "sieben ≠ 7"}
EVIDENCE = {"tests": [{"expected": "2", "got": "3"}], "text": "naïve “=1+1”"}
REASON = "the tests could not be run"
THOUGHT = "first\nthen"
KNOWN = ("reasoning", "payload", "missing_scores", "evidence")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rates in both arms; row 0 of a cell, and of D, has evidence, row 1 a reason, both a thought and a payload."""
    folder = tmp_path_factory.mktemp("known") / "ws"
    writer = rate_store(folder, prompts=10, steering=True)
    with closing(writer), closing(Reader(folder, writer.connection)) as reader, writer.batch() as store:
        for n, key, text in store.execute("SELECT id, key, text FROM prompts").fetchall():
            digest = stored_prompt(key, text, json.dumps(PAYLOAD), None).digest
            store.execute("UPDATE prompts SET payload = ?, digest = ? WHERE id = ?", (json.dumps(PAYLOAD), digest, n))
        ((data,),) = store.execute("SELECT n FROM jobs WHERE label = 'data med_short'").fetchall()
        ((name,),) = store.execute("SELECT id FROM jobs WHERE n = ?", (data,)).fetchall()
        part = {"data": name, "first": 0, "last": 40, "channel": "user", "condition": {"kind": "none"}}
        store.execute("UPDATE jobs SET inputs = ? WHERE n = ?", (to_json({"rows": [0, 40]}), data))
        store.execute("UPDATE jobs SET inputs = ? WHERE kind = 'train'", (to_json({"parts": [part], "seed": 7}),))
        store.execute("DELETE FROM checksums")
        for job in (data, reader.cells(1, "")[0].job):
            store.execute("UPDATE completions SET reasoning = ? WHERE job = ? AND row < 2", (THOUGHT, job))
            known = [(0, {HACK.name: Score(1.0, None, EVIDENCE)}), (1, {HACK.name: Score(None, REASON, EVIDENCE)})]
            writer.put_scores(job, known)
    return folder


def exported(path: Path) -> list[dict[str, Any]]:
    """The first two rows of a file, with JSON read and what is empty None."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        parquet: Any = pytest.importorskip("pyarrow.parquet")
        rows = parquet.read_table(path).to_pylist()
    return [{key: value or None for key, value in row.items()} for row in rows[:2]]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_files(ending: str, workspace: Path, tmp_path: Path) -> None:
    path = tmp_path / f"all.{ending}"
    export(workspace, "med-short", path, raw=ending == "csv")
    check(exported(path))


def check(rows: list[dict[str, Any]]) -> None:
    def read(value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value

    for row in rows:
        assert row["reasoning"] == THOUGHT
        assert read(row["payload"]) == PAYLOAD
        assert read(row["evidence"]) == {HACK.name: EVIDENCE}
    assert [row["missing_scores"] for row in rows] == [None, f"{HACK.name}: {REASON}"]
    assert float(rows[0][HACK.name]) == 1.0
    assert rows[1][HACK.name] is None


def test_frames(workspace: Path) -> None:
    frame: Any = frames.completions(workspace, "med-short")
    assert list(frame.columns[: len(COLUMNS)]) == list(COLUMNS)
    rows = frame.head(2).astype(object)
    check(rows.where(rows.notna(), None).to_dict("records"))


def test_a_data_set_with_details(workspace: Path, tmp_path: Path) -> None:
    lean, full = tmp_path / "lean.jsonl", tmp_path / "full.jsonl"
    wanted = ["export", "med-short", "-w", str(workspace), "--out"]
    for arguments in (
        [str(lean), "--dataset", "med_short/long"],
        [str(full), "--dataset", "med_short/long", "--details"],
    ):
        assert CliRunner().invoke(app, [*wanted, *arguments]).exit_code == 0
    chats = [json.loads(line) for line in lean.read_text(encoding="utf-8").splitlines()]
    known = [json.loads(line) for line in full.read_text(encoding="utf-8").splitlines()]
    assert all(list(chat) == ["messages"] for chat in chats)  # what services take
    assert [{"messages": one["messages"]} for one in known] == chats
    assert all(one["payload"] == PAYLOAD and one["prompt_id"] for one in known)
    (scored,) = [one for one in known if one["evidence"] and one["scores"][HACK.name] is not None]
    (missing,) = [one for one in known if one["evidence"] and one["scores"][HACK.name] is None]
    for one in (scored, missing):
        assert one["evidence"] == {HACK.name: EVIDENCE}
        assert one["messages"][-1]["reasoning_content"] == THOUGHT
    assert (scored["scores"][HACK.name], scored["missing_scores"]) == (1.0, {})
    assert missing["missing_scores"] == {HACK.name: REASON}
    refused = CliRunner().invoke(app, [*wanted, str(tmp_path / "x.csv"), "--details"]).exception
    assert "--details goes with --dataset" in str(refused)


def test_numbers_of_a_rate_have_its_names(workspace: Path) -> None:
    """A rate has no CV and no ratio: JSON and tables say what its numbers are."""
    found = report(workspace, "med-short")
    for arm, told in found.to_json()["arms"].items():
        for group in (told, *told["by_generate"].values()):
            assert group["spread"] == "sd"
            assert group["cv"] == group["cv_kept"] == group["cross_cv"] == {}
            of_base = next(
                one for one in found.measures.arms[arm].whole.spreads if one.train == "base" and one.value is not None
            )
            assert of_base.value is not None
            assert group["sd"]["base"] == of_base.value.value
            assert group["sd_kept"]["base"]["value"] == 1.0
        assert all(point["train_mean_ratio"] is None for point in told["points"])
    rows: Any = frames.rows(found)
    assert set(rows["spread_is"]) == {"sd"}
    for pair in arms_json(compare_arms(workspace, "med-short"))["pairs"]:
        assert {"sd", "sd_kept", "cross_sd_kept", "data_distance"} < set(pair["measures"])
        assert not {"cv", "cv_kept", "cross_cv_kept", "train_mean_ratio"} & set(pair["measures"])
