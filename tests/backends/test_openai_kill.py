"""A grid of fine-tunes whose runner is killed again and again: the server has seen each job exactly once."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault_proxy import Fault, faulty
from tests.runs import command, wait_until, windowshift, write_spec
from tests.servers import KEY, KEY_ENV, Served, limited, serving

pytestmark = pytest.mark.slow  # a real server, and kill -9 at many moments

OPTIONS = """\
backend: openai
backend_options: {{base_url: "{url}", key_env: {key}, poll: 0.2, settle: 3, backoff: 0.05, timeout: 60}}
limits: {{jobs: 3}}
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv(KEY_ENV, KEY)
    with serving(tmp_path / "data", "--rank", 2, "--jobs", 2) as served:
        yield served


def everything(folder: Path) -> Iterator[tuple[Path, bytes]]:
    return ((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def seen(server: Served) -> Counter[str]:
    """How often the server was asked for each of windowshift's jobs."""
    return Counter(str(job["metadata"]["job"]) for job in server.jobs())  # type: ignore[index]


def test_a_grid_ends_and_nothing_holds_the_key(server: Served, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "microworld", more=OPTIONS.format(url=server.base_url, key=KEY_ENV))
    workspace = tmp_path / "ws"
    planned = json.loads(windowshift("plan", spec, "--workspace", workspace, "--json").stdout)
    assert planned["usd"] == 0.0
    assert planned["rehearsal"] is True
    assert planned["kinds"]["train"]["trained_tokens"] > 0
    ran = windowshift("run", spec, "--workspace", workspace)
    report = windowshift("report", "small", "--workspace", workspace)
    said = ran.stdout + ran.stderr + report.stdout
    assert "rehearsal" in report.stdout
    assert len(server.jobs()) == 2
    assert set(seen(server).values()) == {1}
    for path, content in (*everything(workspace), (spec, spec.read_bytes()), (Path("screen"), said.encode())):
        assert KEY.encode() not in content, path


def test_a_run_stops_before_its_limit_and_goes_on_after_it(server: Served, tmp_path: Path) -> None:
    price = "{input: 10, output: 40, training: 100, tuned_input: 10, tuned_output: 40}"
    options = OPTIONS.replace("poll: 0.2", f"prices: {{{{microworld: {{{price}}}}}}}, poll: 0.2")
    more = options.format(url=server.base_url, key=KEY_ENV)
    spec = write_spec(tmp_path, "microworld", train="[short]", more=more)
    text = spec.read_text(encoding="utf-8")
    workspace = tmp_path / "ws"

    def limited_to(usd: float) -> None:
        spec.write_text(text.replace("limits: {jobs: 3}", f"limits: {{jobs: 3, usd: {usd}}}"), encoding="utf-8")

    def spent() -> float:
        (row,) = json.loads(windowshift("status", "--workspace", workspace, "--json").stdout)["experiments"]
        return float(row["usd"] or 0)

    planned = json.loads(windowshift("plan", spec, "--workspace", workspace, "--json").stdout)
    most = planned["usd"]
    assert most == pytest.approx(sum(one["usd"] for one in planned["kinds"].values()))
    assert most > 0
    limited_to(0.015)
    stopped = windowshift("run", spec, "--workspace", workspace, check=1)
    assert "limits.usd" in stopped.stderr
    assert "cost:  at most $" in stopped.stderr  # shown before anything was spent
    assert 0 < spent() <= 0.015
    before = spent()
    limited_to(1.0)
    windowshift("run", spec, "--workspace", workspace)
    assert before < spent() <= most
    assert "USD" in windowshift("report", "small", "--workspace", workspace).stdout


def test_a_limit_needs_a_price(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with limited() as other:
        options = f"backend: openai\nbackend_options: {json.dumps({**other.options, 'trains': True})}\n"
        spec = write_spec(tmp_path, "small", more=f"{options}limits: {{usd: 5}}\n")
        refused = windowshift("plan", spec, check=2)
    # That server has no fine-tuning API either, which is said first.
    assert "no fine-tuning API" in refused.stderr
    more = OPTIONS.replace("poll: 0.2", "prices: {{microworld: {{input: 1, output: 1}}}}, poll: 0.2")
    spec = write_spec(tmp_path, "microworld", more=more.format(url=server.base_url, key=KEY_ENV))
    spec.write_text(spec.read_text(encoding="utf-8").replace("{jobs: 3}", "{usd: 3}"), encoding="utf-8")
    assert "limits.usd cannot be kept" in windowshift("run", spec, "--workspace", tmp_path / "ws", check=2).stderr
    assert server.jobs() == []


@pytest.mark.parametrize("created", [False, True])
def test_killed_while_the_server_is_asked_for_a_job(server: Served, tmp_path: Path, created: bool) -> None:
    workspace = tmp_path / "ws"
    asked = threading.Event()

    def choose(method: str, path: str) -> Fault:
        if method == "POST" and path == "/v1/fine_tuning/jobs" and not asked.is_set():
            asked.set()
            return "hang" if created else "hang early"
        return "pass"

    with faulty(server.base_url, choose) as proxy:
        spec = write_spec(tmp_path, "microworld", train="[short]", more=OPTIONS.format(url=proxy.base_url, key=KEY_ENV))
        run = subprocess.Popen(command("run", spec, "--workspace", workspace, "-q"), stderr=subprocess.DEVNULL)
        assert asked.wait(240)  # a busy machine imports slowly
        if created:
            wait_until(lambda: len(server.jobs()) == 1)
        run.kill()
        run.wait()
        assert len(server.jobs()) == created
        windowshift("run", spec, "--workspace", workspace)
    assert len(server.jobs()) == 1


def test_killed_at_twenty_random_moments(server: Served, tmp_path: Path) -> None:
    spec = write_spec(
        tmp_path,
        "microworld",
        train="[short, med_short, medium, med_long, long, very_long, no_prefix]",
        more="seeds: [0, 1, 2, 3]\n" + OPTIONS.format(url=server.base_url, key=KEY_ENV),
    )
    workspace = tmp_path / "ws"
    draw = random.Random(5)
    begun = time.monotonic()
    windowshift("plan", spec, "--workspace", workspace)
    start_up = time.monotonic() - begun  # imports and planning: a run takes as long before it asks for anything
    for kill in range(20):
        run = subprocess.Popen(command("run", spec, "--workspace", workspace, "-q"), stderr=subprocess.DEVNULL)
        # The first one sees a job begin, however slow the machine; and a fast one would be through before the last
        # kill, so there is about one job for each.
        patience = start_up * draw.uniform(0.8, 1.2) + draw.uniform(0.0, 1.0) if kill else 240.0
        until = time.monotonic() + patience
        while time.monotonic() < until and len(server.jobs()) <= kill:
            assert run.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):  # the grid is not done yet
            run.wait(draw.uniform(0.0, 0.2))
        run.kill()
        run.wait()
    assert 0 < len(server.jobs()) < 28
    windowshift("run", spec, "--workspace", workspace, timeout=500)
    found = seen(server)
    assert len(found) == 28
    assert set(found.values()) == {1}
    assert all(job["status"] == "succeeded" for job in server.jobs())


def test_a_cancelled_experiment_is_cancelled_at_the_server(server: Served, tmp_path: Path) -> None:
    more = OPTIONS.format(url=server.base_url, key=KEY_ENV).replace("limits:", "seeds: [0, 1, 2]\nlimits:")
    spec = write_spec(tmp_path, "microworld", more=more)
    spec.write_text(spec.read_text(encoding="utf-8").replace("{size: 12}", "{size: 120}"), encoding="utf-8")
    run = subprocess.Popen(
        command("run", spec, "--workspace", tmp_path / "ws", "-q"), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 100
    while not any(job["status"] == "running" for job in server.jobs()):
        assert time.monotonic() < deadline
        assert run.poll() is None
    windowshift("control", "small", "cancel", "--workspace", tmp_path / "ws")
    run.communicate(timeout=100)
    assert run.returncode == 130
    states = Counter(job["status"] for job in server.jobs())
    assert states["cancelled"] >= 1
    assert not states.keys() & {"running", "queued"}
