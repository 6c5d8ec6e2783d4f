"""No argument reaches a traceback: every command with what nobody means, each answered by one sentence."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.scripted_backend import scripted
from windowshift.cli import app
from windowshift.core.contract.errors import WindowshiftError

WORDS = ("", "nobody", "../../x", "a\0b", "\ud800", "x" * 5000, "file", "folder", "bin.yaml", "empty.yaml", "loop",
         "-1", "1e309", "nan", "9" * 20, "Ａ", "/dev/null", "/dev/zero", "\x1b]52;c;x\x07", "*", "~", ".")  # fmt: skip
WORKSPACES = ("nowhere", "file", "folder", "notdb", "emptydb", "dirdb", "newer", "corrupt", "loop", "/dev/null", "")
NAMED = ("report", "compare", "microscope", "predict", "figures", "export", "bundle", "rerun",
         "control")  # fmt: skip
OTHERS: dict[str, tuple[str, ...]] = {
    "export": ("--out", "o.csv"), "figures": ("--out", "figs", "--formats", "csv"), "control": ("pause",),
    "bundle": ("--out", "b.zip"), "rerun": ("base/no_prefix", "--into", "again"),
    "rephrase": ("--of", "short", "--out", "r.jsonl"),
}  # fmt: skip
VALUES = (
    ("export", "--out"), ("export", "--dataset"), ("export", "--seed"), ("figures", "--out"), ("figures", "--formats"),
    ("bundle", "--out"), ("rerun", "--into"),
    ("control", "--job"), ("report", "--beside"), ("report", "--behaviour"), ("compare", "--picture"),
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep")
    (root / "ws").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(scripted(patch, root / "ws", prompts=6).go())
    (root / "file").write_text("x")
    (root / "folder").mkdir()
    (root / "bin.yaml").write_bytes(bytes(range(256)))
    (root / "empty.yaml").write_text("")
    (root / "loop").symlink_to("loop")
    for name, content in (("notdb", b"garbage" * 100), ("emptydb", b"")):
        (root / name).mkdir()
        (root / name / "windowshift.db").write_bytes(content)
    (root / "dirdb" / "windowshift.db").mkdir(parents=True)
    shutil.copytree(root / "ws", root / "newer")
    with sqlite3.connect(root / "newer" / "windowshift.db") as store:
        store.execute("PRAGMA user_version = 99")
    store.close()
    shutil.copytree(root / "ws", root / "corrupt")
    damaged = bytearray((root / "ws" / "windowshift.db").read_bytes())
    damaged[5000:9000] = b"\xa5" * 4000
    (root / "corrupt" / "windowshift.db").write_bytes(damaged)
    return root


@pytest.fixture(autouse=True)
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def answered(arguments: list[str]) -> None:
    """Run a command; it ends well, or in click's own explanation, or in one sentence of ours."""
    error = CliRunner().invoke(app, arguments).exception
    if error is None or isinstance(error, SystemExit):
        return
    shown = [one[:40] for one in arguments]
    assert isinstance(error, WindowshiftError), (shown, error)
    assert str(error).strip(), shown
    assert "\n" not in str(error), (shown, str(error))


@pytest.mark.parametrize("command", NAMED)
def test_odd_names_and_workspaces(command: str) -> None:
    more = OTHERS.get(command, ())
    for word in WORDS:
        answered([command, word, *more, "--workspace", "ws"])
    for workspace in WORKSPACES:
        answered([command, "scripted", *more, "--workspace", workspace])


@pytest.mark.parametrize(
    "command", [("plan",), ("run",), ("vectors", "make"), ("rephrase",), ("select",)], ids=" ".join
)
def test_odd_specs(command: tuple[str, ...]) -> None:
    for word in WORDS:
        answered([*command, word, *OTHERS.get(command[0], ())])


@pytest.mark.parametrize("command", [("status",), ("doctor",), ("vectors", "list")], ids=" ".join)
def test_odd_workspaces(command: tuple[str, ...]) -> None:
    for workspace in WORKSPACES if command != ("doctor",) else ("notdb", "newer", "corrupt"):
        answered([*command, "--workspace", workspace])


def test_odd_vectors_templates_places_and_rehearsals() -> None:
    for word in WORDS:
        for arguments in (
            ["vectors", "show", word], ["vectors", "cosine", word], ["vectors", "import", word],
            ["vectors", "export", word, "--out", "o"], ["init", "q.yaml", "--template", word],
            ["tui", "ws", "--open", word], ["demo", "--setting", word or "x", "--workspace", "file"],
        ):  # fmt: skip
            answered(arguments)


@pytest.mark.parametrize(("command", "option"), VALUES)
def test_odd_values(command: str, option: str) -> None:
    more = OTHERS.get(command, ())
    if command == "export" and option == "--seed":
        more = (*more, "--dataset", "med_short/short")
    for word in WORDS:
        answered([command, "scripted", *more, option, word, "--workspace", "ws"])


def test_every_command_is_tried() -> None:
    names = {one.name or getattr(one.callback, "__name__", "") for one in app.registered_commands}
    elsewhere = {"serve", "microworld", "status", "doctor", "init", "tui", "demo", "plan", "run", "rephrase", "select"}
    assert names == elsewhere | set(NAMED)
