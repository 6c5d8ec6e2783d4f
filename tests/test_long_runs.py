"""Long runs: who is told when one ends or stops, and `status --watch`."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.generated_store import generate_store
from windowshift import status_command
from windowshift.cli import app
from windowshift.core.contract import redaction
from windowshift.core.contract.errors import BackendError, SpecError
from windowshift.core.run.run import Outcome
from windowshift.notify import Ending, notifiers, tell

SPEC = """\
name: long-one
model: microworld
prompts: microworld
conditions: {generate: [short], train: [short], evaluate: [short]}
"""


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook on loopback, and what was posted to it."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append({**json.loads(body), "path": self.path, "type": self.headers["Content-Type"]})
            self.send_response(500 if "broken" in self.path else 200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", posted
    server.shutdown()
    thread.join()
    server.server_close()


def run(tmp_path: Path, *arguments: str) -> Any:
    (tmp_path / "s.yaml").write_text(SPEC, encoding="utf-8")
    return CliRunner().invoke(app, ["run", str(tmp_path / "s.yaml"), "-w", str(tmp_path / "ws"), "-q", *arguments])


@pytest.mark.parametrize(
    ("state", "failures", "code"), [("done", (), 0), ("failed", ("train x: no",), 1), ("interrupted", (), 130)]
)
def test_a_webhook_is_told_how_a_run_ended(
    hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: Any, failures: tuple[str, ...], code: int
) -> None:
    url, posted = hook

    def ended(*_: Any, **__: Any) -> Outcome:
        return Outcome(state, failures)

    monkeypatch.setattr("windowshift.core.run.run.run_spec", ended)
    told = run(tmp_path, "--notify", f"{url}/hook")
    assert told.exit_code == code
    (one,) = posted
    assert (one["path"], one["type"]) == ("/hook", "application/json")
    assert (one["experiment"], one["state"], one["exit_code"], one["failures"]) == (
        "long-one",
        state,
        code,
        len(failures),
    )
    assert one["text"].startswith(f"windowshift: long-one {state}")
    monkeypatch.setenv("WINDOWSHIFT_NOTIFY", f"{url}/env")
    run(tmp_path)
    assert posted[1]["path"] == "/env"


def test_what_stops_a_run_is_told_too(hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, posted = hook

    def fails(*_: Any, **__: Any) -> Outcome:
        raise BackendError("the server is\ngone")

    monkeypatch.setattr("windowshift.core.run.run.run_spec", fails)
    told = run(tmp_path, "--notify", url)
    assert isinstance(told.exception, BackendError)
    assert posted[0]["state"] == "error"
    assert posted[0]["text"] == "windowshift: long-one error: the server is gone"


def test_a_hook_that_fails_changes_nothing_of_the_run(
    hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = hook

    def ended(*_: Any, **__: Any) -> Outcome:
        return Outcome("done", ())

    monkeypatch.setattr("windowshift.core.run.run.run_spec", ended)
    told = run(tmp_path, "--notify", f"{url}/broken?token=hidden")
    assert told.exit_code == 0
    assert "note: the notification was not sent: HTTPError" in told.output
    assert "hidden" not in told.output


def test_what_cannot_tell_is_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windowshift.notify.shutil.which", lambda _: None)
    for wanted, says in (
        ("pigeon", "takes bell, desktop or"),
        ("desktop", "needs notify-send"),
        ("ftp://x", "takes bell"),
    ):
        told = run(tmp_path, "--notify", wanted)
        assert isinstance(told.exception, SpecError)
        assert says in str(told.exception)
    assert not (tmp_path / "ws").exists()
    assert len(notifiers(["bell, http://example.org/x", ""])) == 2


@pytest.mark.parametrize(
    "url",
    [
        "http://user:topsecret@127.0.0.1:9/x", "http://127.0.0.1:abc/topsecret", "http://127.0.0.1:99999/topsecret",
        "http://[::1/topsecret", "http:///topsecret", "http://x/a topsecret", "http://x/\u00e9topsecret", "http://x/a\nb",
    ],
)  # fmt: skip
def test_a_url_that_no_request_can_go_to_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(SpecError, match="--notify") as told:
        notifiers([url])
    assert "topsecret" not in str(told.value)  # a webhook's path is its password


@pytest.mark.parametrize(
    "answer", [b"no http at all", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: "
               b"chunked\r\n\r\nzz\r\n", None], ids=["garbage", "endless line", "broken chunk", "silent"],
)  # fmt: skip
def test_a_server_that_answers_oddly_or_never_changes_nothing_of_the_run(
    answer: bytes | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windowshift.notify.SECONDS", 0.3 if answer is None else 10.0)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def once() -> None:
            with server.accept()[0] as peer:
                peer.recv(65_536)
                if answer is None:
                    for _ in range(40):  # each byte comes within a socket's timeout, and the whole never
                        with suppress(OSError):
                            peer.sendall(b"H")
                        if done.wait(0.05):
                            break
                else:
                    peer.sendall(answer)

        done = threading.Event()
        thread = threading.Thread(target=once)
        thread.start()
        tell(notifiers([f"http://127.0.0.1:{server.getsockname()[1]}/"]), Ending("x", "done", 0, 1.0))
        done.set()
        thread.join()
    assert "note: the notification was not sent" in capsys.readouterr().err


def test_what_a_webhook_is_told_holds_no_key(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, posted = hook
    monkeypatch.setattr(redaction, "_known", set())
    monkeypatch.setattr(redaction, "_last_stop", [])
    redaction.remember("sk-verysecretkey123456")
    tell(notifiers([url]), Ending("x", "error", 1, 1.0, error="the server said sk-verysecretkey123456"))
    assert "verysecret" not in json.dumps(posted)
    assert "[key]" in posted[0]["text"]


def test_a_desktop_is_told_by_the_system_s_own_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "notify-send"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/said\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tell(notifiers(["desktop"]), Ending("--odd", "done", 0, 1.0, 3, 4))
    said = (tmp_path / "said").read_text(encoding="utf-8").splitlines()
    assert said[-2:] == ["windowshift", "windowshift: --odd done, 3 of 4 cells"]


def test_a_bell_rings_on_a_terminal_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tell(notifiers(["bell"]), Ending("x", "done", 0, 1.0))
    assert "\a" not in capsys.readouterr().err
    monkeypatch.setattr("windowshift.say.sys.stderr.isatty", lambda: True, raising=False)
    tell(notifiers(["bell"]), Ending("x", "done", 0, 1.0))
    assert capsys.readouterr().err == "\a"


def test_status_is_watched_until_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = generate_store(tmp_path, prompts=3, data_size=3, running=2)
    writer.start_run(1)
    looks = 0

    def look(seconds: float) -> None:
        nonlocal looks
        looks += 1
        assert seconds == 0.5
        if looks == 2:  # the first look changes nothing, and says nothing
            writer.set_experiment(1, "done")

    monkeypatch.setattr(status_command.time, "sleep", look)
    told = CliRunner().invoke(app, ["status", "-w", str(tmp_path), "--watch", "--every", "0.5"], catch_exceptions=False)
    writer.close()
    lines = told.output.splitlines()
    assert looks == 2
    assert ["running" in lines[0], "done " in lines[1], lines[2]] == [True, True, "no run is under way"]
    assert len(lines) == 3
    bad = CliRunner().invoke(app, ["status", "-w", str(tmp_path), "--watch", "--every", "0"])
    assert "--every is a number of seconds" in str(bad.exception)
