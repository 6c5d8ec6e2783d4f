"""The command line around runs: templates, plans, the doctor, errors and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import windowshift as package
from tests.runs import windowshift, write_spec
from windowshift.__main__ import Screens, screens_asked_for
from windowshift.core.spec.spec import load_spec
from windowshift.core.spec.template import templates
from windowshift.say import say_listed


@pytest.mark.parametrize("name", [item.name for item in templates()])
def test_every_template_is_a_valid_spec(tmp_path: Path, name: str) -> None:
    windowshift("init", tmp_path / "spec.yaml", "--template", name)
    spec, text = load_spec(tmp_path / "spec.yaml")
    assert spec.name
    assert text.startswith("# ")


def test_init_warns_about_the_published_learning_rate(tmp_path: Path) -> None:
    done = windowshift("init", tmp_path / "spec.yaml")
    assert "1.6e-4 at batch 2 is above what the square-root-of-batch rule gives" in done.stderr
    again = windowshift("init", tmp_path / "spec.yaml", check=2)
    assert "is there already" in again.stderr
    windowshift("init", tmp_path / "spec.yaml", "--force")


def test_init_lists_templates_and_suggests_one(tmp_path: Path) -> None:
    listed = windowshift("init", "--template", "list").stdout
    assert all(item.name in listed for item in templates())
    assert "did you mean 'mixes'" in windowshift("init", tmp_path / "x.yaml", "-t", "mixed", check=2).stderr


def test_plan_says_what_is_to_do_and_writes_nothing(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "microworld")
    planned = json.loads(windowshift("plan", spec, "--workspace", tmp_path / "ws", "--json").stdout)
    assert planned["rehearsal"] is True
    assert planned["cells"] == 6
    assert planned["jobs"]["train"] == {"done": 0, "total": 2}
    assert planned["completions"] == 12 + 3 * 6 + 4 * 6  # D, three base conditions, four cells
    assert planned["seconds"] is None
    assert planned["usd"] == 0.0
    assert "rehearsal model" in windowshift("plan", spec, "--workspace", tmp_path / "ws").stdout
    assert not (tmp_path / "ws").exists()


def test_errors_are_one_sentence_and_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = windowshift("run", tmp_path / "none.yaml", check=2)
    assert done.stderr == f"windowshift: there is no spec at {tmp_path / 'none.yaml'}\n"
    debugged = windowshift("run", tmp_path / "none.yaml", "--debug", check=1)
    assert "Traceback" in debugged.stderr


def test_the_doctor_names_backends_and_workspace(tmp_path: Path) -> None:
    found = json.loads(windowshift("doctor", "--workspace", tmp_path / "ws", "--json").stdout)
    local = next(backend for backend in found["backends"] if backend["name"] == "local")
    assert local["installed"]
    assert local["capabilities"]["trains"]
    assert "torch" in local["versions"]
    assert found["workspace_problems"] == []
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "windowshift.db").write_bytes(b"no store" * 1000)
    assert "windowshift.db" in windowshift("doctor", "--workspace", tmp_path / "bad", check=1).stdout


def test_control_knows_its_words(tmp_path: Path) -> None:
    done = windowshift("control", "x", "stop", "--workspace", tmp_path, check=2)
    assert "known are pause, resume, cancel, retry" in done.stderr


def test_version() -> None:
    assert windowshift("--version").stdout.strip() == f"windowshift {package.__version__}"


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["tui"], Screens(Path("workspace"))),
        (["tui", "ws", "--open", "a/b", "--no-mouse"], Screens(Path("ws"), "a/b", mouse=False)),
        (["tui", "--mouse", "ws"], Screens(Path("ws"))),
        (["tui", "ws", "--help"], None),
        (["tui", "ws", "--serve"], None),
        (["tui", "one", "two"], None),
        (["tui", "--open"], None),
        (["tui", "ws", "--open=a"], None),
        (["report", "x"], None),
        ([], None),
    ],
)
def test_the_short_way_to_the_screens(
    arguments: list[str], asked: Screens | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WINDOWSHIFT_WORKSPACE", raising=False)
    monkeypatch.delenv("WINDOWSHIFT_DEBUG", raising=False)
    assert screens_asked_for(arguments) == asked
    monkeypatch.setenv("WINDOWSHIFT_WORKSPACE", "other")
    found = screens_asked_for(["tui"])
    assert found is not None
    assert found.workspace == Path("other")


@pytest.mark.parametrize(
    ("arguments", "word"), [(["tui", "ws", "--opne", "x"], "--open"), (["tui", "a", "b"], "extra")]
)
def test_mistakes_on_the_way_to_the_screens_are_explained(arguments: list[str], word: str) -> None:
    done = windowshift(*arguments, check=2)
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_no_terminal_is_a_sentence(tmp_path: Path) -> None:
    done = windowshift("tui", tmp_path, check=2)
    assert done.stderr.startswith("windowshift: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_lists_break_explanations_beside_their_names(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(template.name, template.summary) for template in templates()]
    monkeypatch.setenv("COLUMNS", str(columns))
    say_listed(rows)
    assert len(capsys.readouterr().out.splitlines()) == len(rows)  # a line each, for grep
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    say_listed(rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    said = " ".join(" ".join(lines).split())
    assert all(f"{name} {summary}" in said for name, summary in rows)
