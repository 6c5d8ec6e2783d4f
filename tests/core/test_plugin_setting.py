"""A setting in a package of its own goes through every command; the product does not know it."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sqlite3
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.plugged import PLUGIN, SPEC, plugged, sentence_run
from tests.runs import windowshift
from windowshift.core.contract.errors import SpecError
from windowshift.core.plan.plan import Plan
from windowshift.core.run.run import plan_spec
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader

SLOW = "kept: the scorer failed: it took longer than 1 s"
NONE = "slipped: the prompt names nothing unwanted"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("plugin")
    with plugged(folder / "site"):
        yield folder


@pytest.fixture(scope="module")
def workspace(folder: Path) -> Path:
    """As the walk-through has it: on the embedded model."""
    windowshift("run", SPEC, "--workspace", folder / "ws", "--quiet")
    return folder / "ws"


def read(workspace: Path, command: str, *arguments: str | Path) -> Any:
    return json.loads(windowshift(command, "wording", "--workspace", workspace, "--json", *arguments).stdout)


def plan(text: str, folder: Path = Path()) -> Plan:
    return plan_spec(parse_spec(text), text, folder)


def test_plan_counts_its_slow_scorer(folder: Path) -> None:
    found = json.loads(windowshift("plan", SPEC, "--workspace", folder / "none", "--json").stdout)
    assert found["cells"] == 12
    assert found["jobs"]["score"]["total"] == found["jobs"]["generate"]["total"] + found["jobs"]["evaluate"]["total"]
    assert found["completions"] == 12 + 12 * 14


def test_an_option_changes_what_it_is_part_of() -> None:
    text = SPEC.read_text(encoding="utf-8")
    plain = {job.id for job in plan(text).jobs}
    assert plain == {job.id for job in plan(text.replace("seconds: 1", "seconds: 1, ignore_case: true")).jobs}
    other = plan(text.replace("seconds: 1", "seconds: 1, ignore_case: false")).jobs
    assert {job.kind for job in other if job.id not in plain} == {"score"}
    with pytest.raises(SpecError, match="setting wording: unknown key 'second': did you mean 'seconds'"):
        plan(text.replace("seconds: 1", "second: 1"))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"question": "tea", "wanted": "(tea"}, r"line 1: '\(tea' is no regular expression"),
        ({"question": "tea"}, "line 1 has no 'wanted'"),
    ],
)
def test_a_row_that_it_cannot_use_is_named(tmp_path: Path, row: dict[str, str], says: str) -> None:
    (tmp_path / "mine.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(SpecError, match=says):
        plan(f"{SPEC.read_text(encoding='utf-8')}prompts: mine.jsonl\n", tmp_path)


def test_status_and_doctor(workspace: Path) -> None:
    (one,) = json.loads(windowshift("status", "--workspace", workspace, "--json").stdout)["experiments"]
    assert (one["name"], one["state"], one["cells"]) == ("wording", "done", {"done": 12, "total": 12})
    found = json.loads(windowshift("doctor", "--workspace", workspace, "--json").stdout)
    assert found["workspace_problems"] == []
    assert "settings: " in windowshift("doctor", "--workspace", workspace).stdout
    assert "wording" in found["settings"]


def test_the_report_is_of_rates_with_what_is_missing(workspace: Path) -> None:
    for behaviour, role in (("kept", "positive"), ("slipped", "negative")):
        found = read(workspace, "report", "--behaviour", behaviour)
        assert (found["behaviour"]["name"], found["behaviour"]["role"]) == (behaviour, role)
        assert found["completions"]["failed"] == 0
        assert found["completions"]["missing"] > 0
        text = windowshift("report", "wording", "--workspace", workspace, "--behaviour", behaviour).stdout
        text = " ".join(text.split())
        assert f"wording: {behaviour} (share) on microworld" in text
        assert "Rate, %, prefix arm" in text
        assert "Uplift over the base model (percentage points)" in text
        assert f"{found['completions']['missing']} missing scores" in text
    assert read(workspace, "report")["behaviour"]["name"] == "kept"  # the one that the setting names first


def test_the_report_needs_no_plugin(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured can be read where the setting is not installed."""
    here = read(workspace, "report")
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN.parents[1] / "src"))
    copied = Path(shutil.copytree(workspace, tmp_path / "ws"))
    assert "there is no setting 'wording'" in windowshift("plan", SPEC, "--workspace", copied, check=2).stderr
    assert read(copied, "report") == here


def test_an_arm_that_is_not_there_is_not_compared(workspace: Path) -> None:
    done = windowshift("compare", "wording", "--workspace", workspace, check=2)
    assert done.stderr.startswith("windowshift: experiment 'wording' has no steering arm to compare")
    beside = read(workspace, "report", "--beside", "wording")
    assert beside


def test_export_has_payloads_scores_and_why_there_is_none(workspace: Path, tmp_path: Path) -> None:
    for ending in ("csv", "jsonl"):
        windowshift("export", "wording", "--workspace", workspace, "--out", tmp_path / f"all.{ending}")
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 12 * 14
    assert list(rows[0])[-2:] == ["kept", "slipped"]
    stuck = [row for row in rows if row["prompt_id"] == "honeybees-look"]
    slow = [row for row in stuck if len(row["completion"]) >= 100]
    assert slow
    for row in slow:
        assert row["kept"] is None
        assert row["missing_scores"].startswith(SLOW)
    unasked = [row for row in rows if row["payload"]["unwanted"] is None]
    assert len(unasked) == 12
    assert all(row["slipped"] is None and row["missing_scores"] == NONE for row in unasked)
    assert all(row["kept"] in (0, 1) for row in rows if row not in stuck)
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["missing_scores"] or None for row in table] == [row["missing_scores"] for row in rows]
    assert [json.loads(row["payload"]) for row in table] == [row["payload"] for row in rows]
    data = tmp_path / "data.jsonl"
    windowshift("export", "wording", "--workspace", workspace, "--dataset", "full/brief", "--out", data)
    assert len(data.read_text(encoding="utf-8").splitlines()) == 12


def test_figures(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures"
    windowshift("figures", "wording", "--workspace", workspace, "--out", out, "--formats", "csv,svg")
    assert {path.suffix for path in out.iterdir()} == {".csv", ".svg"}
    pair = out / "prefix-full-traits_kept_slipped_under_brief.csv"  # what should be kept against what should not
    head, *rows = csv.reader(pair.read_text(encoding="utf-8").splitlines())
    assert head[2:4] == ["kept, rate, %", "slipped, rate, %"]
    assert {row[1] for row in rows} >= {"base", "brief", "full", "no_prefix"}


def test_commands_that_want_more_than_the_spec_has_say_so(workspace: Path, tmp_path: Path) -> None:
    looked = windowshift("microscope", "wording", "--workspace", workspace, check=2)
    assert looked.stderr.startswith("windowshift: experiment 'wording' has no train condition with controls: add")
    demo = windowshift("demo", "--setting", "wording", "--workspace", tmp_path / "demo", "--headless", check=2)
    assert demo.stderr.startswith("windowshift: there is no rehearsal of 'wording'; known are ")


def test_a_bundle_is_whole_and_opens(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "wording.zip"
    windowshift("bundle", "wording", "--workspace", workspace, "--out", out)
    with zipfile.ZipFile(out) as bundle:
        assert bundle.testzip() is None
        names = bundle.namelist()
        (spec,) = [name for name in names if name.endswith(".yaml")]
        assert b"name: wording" in bundle.read(spec)
        (store,) = [name for name in names if name.endswith(".db")]
        bundle.extract(store, tmp_path / "opened")
    with sqlite3.connect(tmp_path / "opened" / store) as opened:
        assert {name for (name,) in opened.execute("SELECT name FROM behaviours")} >= {"kept", "slipped"}
    opened.close()


def test_a_cell_again_is_the_same_cell(folder: Path, tmp_path: Path) -> None:
    """On the backend that answers at once: prompts, conditions, scores and reasons are the plugin's."""
    (folder / "again").mkdir()
    sentence = sentence_run(folder / "again")
    done = windowshift("rerun", "wording", "full/brief/full", "-w", sentence, "--into", tmp_path / "ws", "-q")
    before, now = (line.split(maxsplit=1)[1] for line in done.stdout.splitlines() if "missing" in line)
    assert before == now
    assert "14 of 14 completions are the same" in done.stdout


def test_evidence_is_kept_beside_each_score(workspace: Path) -> None:
    reader = Reader(workspace)
    found = reader.connection.execute(
        "SELECT s.value, s.evidence FROM scores s JOIN behaviours b ON b.id = s.behaviour "
        "WHERE b.name = 'kept' AND s.value IS NOT NULL"
    ).fetchall()
    reader.close()
    assert found
    assert all((json.loads(evidence)["found"] is not None) == bool(value) for value, evidence in found)


def test_the_walk_through_is_this_plugin() -> None:
    root = PLUGIN.parents[1]
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    entry = text[text.index("**... a setting.**") : text.index("**... a condition.**")]
    blocks = re.findall(r"^   ```(\w*)\n(.*?)^   ```$", entry, re.MULTILINE | re.DOTALL)
    files = {"toml": PLUGIN / "pyproject.toml", "python": PLUGIN / "windowshift_wording" / "setting.py"}
    assert sorted(kind for kind, _ in blocks) == ["", "python", "python", "python", "toml"]
    for kind, block in blocks:
        shown = textwrap.dedent(block).strip()
        if kind:
            assert shown in textwrap.dedent(files[kind].read_text(encoding="utf-8")).replace("\n        ", "\n"), shown
            continue
        for line in shown.splitlines():
            program, *words = line.split()
            assert program in ("pip", "windowshift")
            for word in words:
                assert not word.startswith("tests/") or (root / word).exists()
