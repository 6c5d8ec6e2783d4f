"""Nothing that others wrote reaches the terminal as it is: not from a store, a server, a spec, a file name."""

from __future__ import annotations

import ast
import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import windowshift as package
from tests.generated_store import generate_store
from tests.runs import windowshift, write_spec
from tests.scripted_server import Reply, scripted
from windowshift import cli
from windowshift.core.contract import sanitise, terminal
from windowshift.core.report.page import Heading, Item, Line, Table
from windowshift.core.report.text import draw

OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
ATTACK = "evil\x1b]52;c;cm0gLXJm\x07\x1b]0;owned\x07\x9b31m\x9d0;t\x9c\u202egnp.exe\u2066\x08\x7f\r\nline two"


def attack_store(workspace: Path) -> None:
    generate_store(workspace, prompts=4, data_size=4).close()
    with closing(sqlite3.connect(workspace / "windowshift.db")) as store:
        store.execute("UPDATE experiments SET model = ?, error = ?", (ATTACK, ATTACK))
        store.execute("UPDATE jobs SET error = ?, state = 'failed' WHERE n = 1", (ATTACK,))
        store.execute("UPDATE phrases SET text = text || ?", (ATTACK,))
        store.commit()


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "--json"],
        ["report", "med-short"],
        ["report", "med-short", "--markdown"],
        ["report", "med-short", "--json"],
        ["report", ATTACK.replace("\x00", "")],
        ["control", "med-short", ATTACK],
        ["init", "--template", ATTACK],
        ["nonsense" + ATTACK],
        ["status", "surplus" + ATTACK],
        ["status", "--" + ATTACK],
        ["doctor", "--json"],
        ["vectors", "list"],
    ],
    ids=lambda words: " ".join(words)[:20].encode("ascii", "replace").decode(),
)
def test_texts_of_a_received_store_and_arguments(tmp_path: Path, arguments: list[str]) -> None:
    attack_store(tmp_path / "ws")
    named = [*arguments, "--workspace", tmp_path / "ws"] if arguments[0] != "init" else arguments
    done = windowshift(*named, check=None)
    assert done.stdout + done.stderr
    assert not OBEYED.search(done.stdout + done.stderr)
    if "--json" in arguments and "status" in arguments:
        assert json.loads(done.stdout)["experiments"][0]["model"] == ATTACK
    if arguments == ["status"]:
        assert "line two" in done.stdout
        assert "\nline two" not in done.stdout


@pytest.mark.parametrize("key", ["model", "setting", "backend", "prompts", "adapter"])
def test_values_and_names_of_a_spec_file(tmp_path: Path, key: str) -> None:
    spec = write_spec(tmp_path, "microworld")
    lines = [line for line in spec.read_text().splitlines() if not line.startswith(f"{key}:")]
    name = tmp_path / "odd\x1b]0;owned\x07\u202e.yaml"
    name.write_text("\n".join([*lines, f"{key}: {json.dumps(ATTACK)}"]))
    done = windowshift("plan", name, "--workspace", tmp_path / "ws", check=None)
    assert done.returncode in (1, 2)
    assert not OBEYED.search(done.stdout + done.stderr)
    assert done.stderr.count("\n") == 1


def test_what_a_terminal_obeys_in_a_drawn_table() -> None:
    drawn = draw([Heading(ATTACK), Line(ATTACK), Table((ATTACK, "n"), ((Item(ATTACK), Item("3")),))], 80, color=False)
    assert not OBEYED.search(drawn)
    assert "gnp.exe" in drawn


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_reads_back_as_it_was_and_shows_only(value: object) -> None:
    text = sanitise.json_text(value)
    assert json.loads(text) == value
    assert not OBEYED.search(text)


@given(st.text(alphabet=st.characters()))
def test_a_line_is_one_line_that_a_terminal_only_shows(text: str) -> None:
    assert not OBEYED.search(sanitise.line(text))
    assert "\n" not in sanitise.line(text)
    assert not OBEYED.search(sanitise.block(text))


def test_the_command_line_writes_in_one_place() -> None:
    """A command that prints by itself would be a place without the sanitiser."""
    folder = Path(package.__file__).parent
    found = []
    for path in folder.glob("*.py"):
        if path.name in ("say.py", "__main__.py"):  # the second cannot afford typer; its one line is tested below
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name in ("print", "typer.echo", "sys.stdout.write", "sys.stderr.write"):
                found.append(f"{path.name}: {name}")
    assert found == []


BADS = {
    "warning": "import warnings; warnings.warn(ATTACK)",
    "log": "import logging; logging.getLogger('transformers').warning(ATTACK)",
    "progress bar": "from tqdm import tqdm; list(tqdm(range(3), desc=ATTACK))",
    "error": "raise ValueError(ATTACK)",
    "error in a thread": "import threading; t = threading.Thread(target=lambda: int(ATTACK)); t.start(); t.join()",
    "error in a task": "import asyncio\nasync def f():\n    asyncio.ensure_future(g())\n    await asyncio.sleep(0.01)\n"
    "async def g():\n    raise ValueError(ATTACK)\nasyncio.run(f())",
    "print": "print(ATTACK)",
    "writelines": "import sys; sys.stderr.writelines([ATTACK, ATTACK])",
    "cut in two": "import sys; sys.stdout.write('\\x1b'); sys.stdout.write(']0;t\\x07')",
    "rich": "from rich.console import Console; Console(stderr=True, force_terminal=True).print(ATTACK, markup=False)",
    "unraisable": "class A:\n    def __del__(self): raise ValueError(ATTACK)\nA()",
}
KEPT = re.compile(r"\x1b\[[0-9;]*[mKA-D]|\x1b\[\?25[lh]|\r|\t")


@pytest.mark.parametrize("bad", BADS)
def test_what_other_libraries_write_is_shown_only(bad: str) -> None:
    code = f"ATTACK = {ATTACK!r}\nfrom windowshift.core.contract.terminal import guard\nguard(); guard()\n{BADS[bad]}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    shown = done.stdout + done.stderr
    assert "evil" in shown or bad == "cut in two"
    assert not OBEYED.search(KEPT.sub("", shown))


def test_colours_and_bars_pass_the_guard() -> None:
    bar = "\r\x1b[2K\x1b[1;32mdone\x1b[0m 3/3\x1b[?25l\x1b[1A\ttab\n"
    assert terminal.shown(bar) == bar
    assert terminal.shown("\x1b[2J\x1b[H\x1b[6n\x1b[?1049h") == "␛[2J␛[H␛[6n␛[?1049h"


def test_an_error_that_nobody_foresaw_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise KeyError(ATTACK)

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["windowshift", "status"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("windowshift: unexpected error: KeyError")
    assert said.count("\n") == 1
    assert not OBEYED.search(said)
    monkeypatch.setattr(sys, "argv", ["windowshift", "--debug", "status"])
    with pytest.raises(KeyError):
        cli.main()


def test_the_short_way_to_the_screens(tmp_path: Path) -> None:
    done = windowshift("tui", tmp_path / "x\x1b]0;t\x07", check=None)
    assert not OBEYED.search(done.stdout + done.stderr)


def test_what_a_server_says_in_its_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-this-test-and-no-other")
    refusal = Reply({"error": {"message": ATTACK, "type": ATTACK, "code": ATTACK}}, 400)
    with scripted(lambda _: refusal) as server:
        options = f"backend: openai\nbackend_options: {{base_url: '{server.base_url}'}}\n"
        spec = write_spec(tmp_path, "some-model", more=options)
        ran = windowshift("run", spec, "--workspace", tmp_path / "ws", check=None)
    shown = ran.stdout + ran.stderr + windowshift("status", "--workspace", tmp_path / "ws", check=None).stdout
    assert ran.returncode in (1, 2)
    assert "evil" in shown
    assert not OBEYED.search(shown)
