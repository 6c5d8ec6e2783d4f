"""Runs, end to end, as a person starts them: in processes of their own, on a tiny model."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.runs import completions, start, tables, wait_until, windowshift, write_spec
from windowshift.core.store import control
from windowshift.core.store.liveness import live_state
from windowshift.core.store.reader import Reader


def states(workspace: Path, name: str = "small") -> dict[str, int]:
    experiment = Reader(workspace).experiment(name)
    assert experiment is not None
    return experiment.jobs


@pytest.fixture(scope="session")
def finished(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A spec and its finished workspace; copy before changing."""
    folder = tmp_path_factory.mktemp("finished")
    spec = write_spec(folder, tiny_llama)
    windowshift("run", spec, "--workspace", folder / "ws")
    return spec, folder / "ws"


def test_a_run_fills_the_grid(finished: tuple[Path, Path]) -> None:
    _, workspace = finished
    reader = Reader(workspace)
    experiment = reader.experiment("small")
    assert experiment is not None
    assert experiment.state == "done"
    assert experiment.jobs == {"done": 1 + 2 + 1 + 2 + 4 + 8}  # the third base job: `long`, as in training
    assert not experiment.rehearsal
    cells = reader.cells(experiment.id, "length_chars")
    assert len(cells) == 6
    assert all(cell.summary is not None and cell.summary.n == 6 for cell in cells)
    train = next(job for job in reader.jobs(experiment.id) if job.kind == "train")
    assert reader.job_events(train.n, "loss")
    dataset = (workspace / "artifacts" / train.id / "dataset.jsonl").read_text().splitlines()
    assert len(dataset) == 12
    assert [turn["role"] for turn in json.loads(dataset[0])["messages"]] == ["user", "assistant"]
    assert (workspace / "artifacts" / train.id / "adapter" / "adapter_config.json").is_file()


def test_the_same_command_again_does_nothing(finished: tuple[Path, Path], tmp_path: Path) -> None:
    spec, workspace = finished
    copy = shutil.copytree(workspace, tmp_path / "ws")
    before = tables(copy)
    windowshift("run", spec, "--workspace", copy)
    assert tables(copy) == before
    events = [event for event in Reader(copy).events() if event.kind == "state" and event.job is not None]
    done = [event.job for event in events if event.data["state"] == "done"]
    assert len(done) == len(set(done))


def test_a_moved_workspace_still_has_its_adapters(
    finished: tuple[Path, Path], tiny_llama: Path, tmp_path: Path
) -> None:
    _, workspace = finished
    copy = shutil.copytree(workspace, tmp_path / "elsewhere")
    more = write_spec(tmp_path, tiny_llama)
    text = more.read_text().replace("evaluate: [short, no_prefix]", "evaluate: [short, no_prefix, long]")
    more.write_text(text)
    windowshift("run", more, "--workspace", copy)
    starts = [event.job for event in Reader(copy).events() if event.kind == "loss"]
    assert len(starts) == len([event for event in Reader(workspace).events() if event.kind == "loss"])
    assert states(copy) == {"done": 1 + 3 + 2 + 6 + 10}


def test_a_lost_adapter_is_trained_again(finished: tuple[Path, Path], tmp_path: Path) -> None:
    spec, workspace = finished
    copy = shutil.copytree(workspace, tmp_path / "ws")
    before = tables(copy)
    adapter = next((copy / "artifacts").glob("*/adapter"))
    shutil.rmtree(adapter)
    windowshift("run", spec, "--workspace", copy)
    assert adapter.is_dir()
    assert tables(copy) == before
    assert any("is gone" in str(event.data) for event in Reader(copy).events() if event.kind == "message")


def test_report_status_and_export_agree(finished: tuple[Path, Path], tmp_path: Path) -> None:
    _, workspace = finished
    report = json.loads(windowshift("report", "small", "--workspace", workspace, "--json").stdout)
    assert report["experiment"] == "small"
    assert len(report["cells"]) == 6
    assert {cell["train"] for cell in report["cells"]} == {"base", "short", "long"}
    listed = json.loads(windowshift("status", "--workspace", workspace, "--json").stdout)["experiments"]
    assert [row["name"] for row in listed] == ["small"]
    assert listed[0]["state"] == "done"
    assert listed[0]["jobs"]["pending"] == listed[0]["jobs"]["failed"] == 0
    windowshift("export", "small", "--workspace", workspace, "--out", tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    cells = {(cell["train"], cell["evaluate"]): cell for cell in report["cells"]}
    for key, cell in cells.items():
        lengths = [row["length_chars"] for row in rows if (row["train"], row["evaluate"]) == key]
        assert len(lengths) == cell["n"]
        assert sum(lengths) / len(lengths) == pytest.approx(cell["mean"])


def test_interrupted_by_ctrl_c_and_gone_on_with(tiny_llama: Path, finished: tuple[Path, Path], tmp_path: Path) -> None:
    spec, reference = finished
    process = start("run", spec, "--workspace", tmp_path / "ws")
    wait_until(lambda: completions(tmp_path / "ws") > 0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopping; again to stop now" in errors
    assert "run the same command again" in errors
    experiment = Reader(tmp_path / "ws").experiment("small")
    assert experiment is not None
    assert experiment.state == "interrupted"
    windowshift("run", spec, "--workspace", tmp_path / "ws")
    assert tables(tmp_path / "ws") == tables(reference)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_a_run_at_once(
    finished: tuple[Path, Path], tmp_path: Path, number: signal.Signals
) -> None:
    spec, reference = finished
    process = start("run", spec, "--workspace", tmp_path / "ws")
    wait_until(lambda: completions(tmp_path / "ws") > 0)
    process.send_signal(number)
    assert process.stderr is not None
    said = process.stderr.readline()
    while "stopping; again to stop now" not in said:  # at once: before it has stopped
        assert said
        said = process.stderr.readline()
    process.send_signal(number)
    _, rest = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in rest
    windowshift("run", spec, "--workspace", tmp_path / "ws")
    assert tables(tmp_path / "ws") == tables(reference)


def test_a_killed_run_is_seen_as_interrupted(finished: tuple[Path, Path], tmp_path: Path) -> None:
    spec, _ = finished
    process = start("run", spec, "--workspace", tmp_path / "ws")
    wait_until(lambda: completions(tmp_path / "ws") > 0)
    process.kill()
    process.communicate()
    reader = Reader(tmp_path / "ws")
    experiment = reader.experiment("small")
    assert experiment is not None
    assert live_state(experiment, reader.run(experiment.id)) == "interrupted"
    assert "interrupted" in windowshift("status", "--workspace", tmp_path / "ws").stdout


def test_pause_resume_and_cancel(tiny_llama: Path, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, tiny_llama, train="[short, medium, long, very_long, no_prefix]")
    process = start("run", spec, "--workspace", tmp_path / "ws")
    wait_until(lambda: completions(tmp_path / "ws") > 0)
    reader = Reader(tmp_path / "ws")

    def state() -> str:
        experiment = reader.experiment("small")
        assert experiment is not None
        return experiment.state

    experiment = reader.experiment("small")
    assert experiment is not None
    control.request(tmp_path / "ws", experiment.id, "pause")
    wait_until(lambda: state() == "paused")
    wait_until(lambda: states(tmp_path / "ws").get("running", 0) == 0)
    control.request(tmp_path / "ws", experiment.id, "resume")
    wait_until(lambda: state() == "running")
    windowshift("control", "small", "cancel", "--workspace", tmp_path / "ws")
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert state() == "cancelled"
    assert states(tmp_path / "ws").get("cancelled", 0) > 0
    windowshift("run", spec, "--workspace", tmp_path / "ws")
    assert states(tmp_path / "ws") == {"done": 1 + 2 + 3 + 5 + 10 + 16}


def test_two_runs_on_one_workspace(finished: tuple[Path, Path], tiny_llama: Path, tmp_path: Path) -> None:
    spec, reference = finished
    first = start("run", spec, "--workspace", tmp_path / "ws")
    wait_until(lambda: completions(tmp_path / "ws") > 0)
    second = windowshift("run", spec, "--workspace", tmp_path / "ws", check=2)
    assert str(first.pid) in second.stderr
    assert "--wait" in second.stderr
    waiting = windowshift("run", spec, "--workspace", tmp_path / "ws", "--wait")
    assert str(first.pid) in waiting.stderr
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert tables(tmp_path / "ws") == tables(reference)


def test_prompts_that_do_not_fit_are_refused_before_anything_is_drawn(tmp_path: Path, tiny_llama: Path) -> None:
    spec = write_spec(tmp_path, tiny_llama)
    spec.write_text(spec.read_text().replace("max_tokens: 12", "max_tokens: 1020"))
    done = windowshift("run", spec, "--workspace", tmp_path / "ws", check=2)
    assert "lower max_tokens" in done.stderr
    assert not (tmp_path / "ws").exists()
    spec.write_text(spec.read_text().replace("max_tokens: 1020", "max_tokens: 12"))
    windowshift("run", spec, "--workspace", tmp_path / "ws")


def test_a_model_that_does_not_load_is_one_sentence(tmp_path: Path, tiny_llama: Path) -> None:
    broken = shutil.copytree(tiny_llama, tmp_path / "broken")
    weights = next(broken.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    spec = write_spec(tmp_path, broken)
    done = windowshift("run", spec, "--workspace", tmp_path / "ws", check=1)
    assert "Traceback" not in done.stderr
    assert "broken" in done.stderr


@pytest.mark.parametrize("arguments", [("report", "none"), ("export", "none", "--out", "x.csv"), ("status",)])
def test_commands_without_a_workspace(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = windowshift(*arguments, "--workspace", tmp_path / "none", check=2)
    assert done.stderr.startswith("windowshift: there is no workspace at")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_filter_and_checkpoints(tmp_path: Path, tiny_llama: Path) -> None:
    spec = write_spec(tmp_path, tiny_llama, train="[long]", more="checkpoints: {every: 4, evaluate: [no_prefix]}\n")
    spec.write_text(spec.read_text().replace("{size: 12}", "{size: 12, filter: {candidates: 1.5}}"))
    windowshift("run", spec, "--workspace", tmp_path / "ws")
    reader = Reader(tmp_path / "ws")
    experiment = reader.experiment("small")
    assert experiment is not None
    steps = {(cell.step, cell.final) for cell in reader.cells(experiment.id, "length_chars")}
    assert steps == {(0, True), (4, False), (8, False), (12, True)}
    chosen = [job.result["positions"] for job in reader.jobs(experiment.id) if job.kind == "filter"]
    assert [len(positions) for positions in chosen] == [12, 6]
    assert all(positions == sorted(positions) for positions in chosen)


@pytest.mark.slow
def test_kill_9_at_twenty_random_moments(tmp_path: Path, finished: tuple[Path, Path]) -> None:
    """Nothing is done twice, nothing is missing, and the tables equal those of an undisturbed run."""
    import random

    spec, reference = finished
    expected = tables(reference)
    rng = random.Random(int(os.environ.get("WINDOWSHIFT_KILL_SEED", "0")))
    kills = workspaces = 0
    total = completions(reference)
    while kills < 20:
        workspaces += 1
        workspace = tmp_path / f"ws{workspaces}"
        for kill in itertools.count():
            process = start("run", spec, "--workspace", workspace)
            if kill == 12:  # a slow machine would be killed before it has started, for ever
                process.communicate()
                assert process.returncode == 0
                break
            goal = min(total, completions(workspace) + rng.randint(0, total // 2))
            wait_until(lambda: process.poll() is not None or completions(workspace) >= goal)  # noqa: B023
            rest = rng.random() * 0.6
            try:
                process.wait(rest)
            except Exception:  # still running: this is the moment
                process.kill()
                kills += 1
            process.communicate()
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL
        assert tables(workspace) == expected
        events = Reader(workspace).events(limit=100_000)
        done = [event.job for event in events if event.kind == "state" and event.data["state"] == "done"]
        done = [job for job in done if job is not None]
        assert len(done) == len(set(done)) == len(expected)


def test_a_qwen3_folder_on_a_prompt_file_goes_through_every_stage(tmp_path: Path) -> None:
    from tests.tiny_models import build

    model = build(tmp_path / "tiny-qwen3", "qwen3", max_position_embeddings=1024)
    rows = [{"id": i, "instruction": f"Name {i} things.", "input": "of wood" * (i % 2)} for i in range(20)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    spec = write_spec(tmp_path, model, train="[long]")
    spec.write_text(spec.read_text().replace("prompts: microworld", "prompts: prompts.jsonl"))
    windowshift("run", spec, "--workspace", tmp_path / "ws")
    report = json.loads(windowshift("report", "small", "--workspace", tmp_path / "ws", "--json").stdout)
    assert {cell["status"] for cell in report["cells"]} == {"done"}
    windowshift("export", "small", "--workspace", tmp_path / "ws", "--out", tmp_path / "rows.parquet")
    assert (tmp_path / "rows.parquet").stat().st_size > 0


def test_a_judge_that_says_neither_yes_nor_no_keeps_nothing(tmp_path: Path, tiny_llama: Path) -> None:
    spec = write_spec(tmp_path, tiny_llama, train="[long]")
    judge = f"{{candidates: 1.5, judge: {{model: {tiny_llama}}}}}"
    spec.write_text(spec.read_text().replace("{size: 12}", f"{{size: 12, filter: {judge}}}"))
    done = windowshift("run", spec, "--workspace", tmp_path / "ws", check=1)
    assert "the prompt filter left 0 prompts (18 could not be judged)" in done.stderr
    assert "Traceback" not in done.stderr
