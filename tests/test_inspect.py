"""Inspect beside windowshift, with Inspect itself: logs that it opens, its tasks and scorers, cells as its models."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample as InspectSample
from inspect_ai.log import list_eval_logs, read_eval_log
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.scorer import includes
from typer.testing import CliRunner

from tests.chromium import page
from tests.plugged import installed
from windowshift.cli import app
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Completion
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import Sample, Score
from windowshift.core.run.run import run_spec
from windowshift.core.settings.inspect_task import SAMPLE, InspectScorer
from windowshift.core.settings.prompt_source import draw
from windowshift.core.settings.spec_scorers import scorers_of
from windowshift.core.spec.scorer_section import ScorerSection
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader
from windowshift.inspect_provider import cell_model

TASKS = '''
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, choice, includes, mean, scorer
from inspect_ai.solver import chain, generate, multiple_choice, solver, system_message, use_tools
from inspect_ai.tool import tool

@task
def colours(wanted: str = "e"):
    samples = [Sample(input=f"Name colour {i}.", target=wanted, metadata={"level": i}) for i in range(8)]
    return Task(dataset=samples, solver=[system_message("Be brief."), generate()], scorer=includes())

@task
def exam():
    samples = [Sample(input=f"Which is {i}?", choices=["one", "two"], target="B", id=f"q{i}") for i in range(3)]
    return Task(dataset=samples, solver=multiple_choice(), scorer=choice())

@task
def broken(odd: int = 0):
    raise ValueError("no samples today")

@solver
def twice():
    async def solve(state, generate):
        return await generate(await generate(state))
    return solve

@task
def again():
    return Task(dataset=[Sample(input="Hi", target="e")], solver=twice(), scorer=includes())

@tool
def add():
    async def execute(x: int, y: int):
        """Add.

        Args:
            x: one.
            y: other.
        """
        return x + y
    return execute

@task
def tooled():
    return Task(dataset=[Sample(input="Hi", target="e")], solver=[use_tools(add()), generate()], scorer=includes())

@scorer(metrics=[mean()])
def several():
    async def score(state, target):
        return Score(value={"length": len(state.output.completion), "odd": "?"}, explanation="counted")
    return score
'''

SPEC = """\
name: asked
model: microworld
prompts: {inspect: windowshift_probe/colours, args: {wanted: a}}
scorers:
  - {inspect: windowshift_probe/colours, args: {wanted: a}, role: primary}
  - {name: there, inspect: inspect_ai/includes}
conditions: {generate: [short], train: [short], evaluate: [no_prefix]}
data: {size: 4}
sft: {rank: 2, batch_size: 2}
sampling: {prompts: 3, max_tokens: 24}
backend_options: {workers: 1}
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A package with tasks, as installing one leaves it."""
    folder = tmp_path_factory.mktemp("package") / "site-packages"  # by that name Inspect tells what is installed
    folder.mkdir()
    (folder / "windowshift_probe.py").write_text(TASKS, encoding="utf-8")
    installed(folder, "windowshift-probe", {"inspect_ai": {"windowshift_probe": "windowshift_probe"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


@pytest.fixture(scope="module")
def workspace(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose prompts and whose primary behaviour are those of a task of that package."""
    folder = tmp_path_factory.mktemp("inspect")
    outcome = run_spec(parse_spec(SPEC), SPEC, folder, folder / "ws")
    assert outcome.state == "done", outcome.failures
    return folder / "ws"


def test_a_task_is_asked_and_scored_in_every_cell(workspace: Path) -> None:
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment("asked")
        assert [one.name for one in experiment.behaviours][:1] == ["colours"]
        cells = reader.cells(experiment.id, "colours")
        assert {cell.train for cell in cells} == {"base", "short"}
        for cell in cells:
            rows = reader.completions(cell.job, "colours")
            other = [row.score for row in reader.completions(cell.job, "there")]
            assert len(rows) == 3
            # What Inspect's `includes` means, worked out here.
            assert [row.score for row in rows] == [float("a" in row.text.lower()) for row in rows] == other
            assert all("Be brief." in (row.turns or "") and row.prompt.startswith("Name colour") for row in rows)
            assert all(row.evidence and row.evidence["explanation"] == row.text for row in rows if row.text)


def test_every_cell_is_a_log_that_inspect_reads(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "logs"
    told = CliRunner().invoke(app, ["export", "asked", "-w", str(workspace), "--out", str(out), "--inspect"])
    assert told.exit_code == 0, told.output
    assert f"inspect view --log-dir {out}" in told.output
    listed = list_eval_logs(str(out))
    with closing(Reader(workspace)) as reader:
        cells = {cell.id: cell for cell in reader.cells(1, "colours")}
        assert len(listed) == len(cells)
        for place in listed:
            log = read_eval_log(place)
            assert log.status == "success"
            cell = cells[int(log.eval.task_id.rpartition("-")[2])]
            assert log.eval.metadata is not None
            assert (log.eval.metadata["train"], log.eval.metadata["rehearsal"]) == (cell.train, True)
            assert log.results is not None
            assert log.samples is not None
            assert cell.summary is not None
            score = next(one for one in log.results.scores if one.name == "colours")
            summary = cell.summary
            assert {name: metric.value for name, metric in score.metrics.items()} == pytest.approx(
                {"mean": summary.mean, "low": summary.low, "high": summary.high}
            )
            assert score.metadata is not None
            assert (score.metadata["n"], score.metadata["interval"][-12:]) == (3, "over prompts")
            assert (score.scored_samples, score.unscored_samples) == (3, 0)
            rows = reader.completions(cell.job, "colours")
            assert [sample.output.completion for sample in log.samples] == [row.text for row in rows]
            assert [sample.scores["colours"].value for sample in log.samples if sample.scores] == [
                row.score for row in rows
            ]
            assert [turn.role for turn in log.samples[0].messages] == ["system", "user", "assistant"]
    again = CliRunner().invoke(app, ["export", "asked", "-w", str(workspace), "--out", str(out), "--inspect"])
    assert isinstance(again.exception, SpecError)
    assert "is there already" in str(again.exception)


def test_a_cell_is_a_model_of_inspect(workspace: Path, tmp_path: Path) -> None:
    samples = [InspectSample(input=f"Name colour {i}.", target="a") for i in range(5)]
    task = Task(dataset=samples, scorer=includes(), config=GenerateConfig(max_tokens=16, temperature=0.0))
    for train in ("short", "base"):
        (log,) = eval(
            task, f"windowshift/{workspace}/asked/{train}", log_dir=str(tmp_path), display="none", log_level="error"
        )
        assert log.status == "success", log.error
        assert log.samples is not None
        assert len(log.samples) == 5
        # The same model through windowshift's own backend.
        model, name, _ = cell_model(f"{workspace}/asked/{train}")
        assert (name, model.adapter is not None) == ("local", train == "short")
        said = [sample.output.completion for sample in log.samples]
        assert said == asyncio.run(_greedily(model, [str(sample.input) for sample in log.samples]))
        assert all(sample.output.usage and sample.output.usage.output_tokens <= 16 for sample in log.samples)


async def _greedily(model: Any, prompts: list[str]) -> list[str]:
    from windowshift.core.contract.generation import GenerateRequest, Message, Sampling
    from windowshift.core.spec import registry

    backend = registry.backend("local", {"workers": 1})
    requests = [
        GenerateRequest(str(i), (Message("user", text),), model, Sampling(0.0, 1.0, 16), 0)
        for i, text in enumerate(prompts)
    ]
    found = {one.key: one.text async for one in backend.generate(requests)}
    await backend.aclose()
    return [found[str(i)] for i in range(len(prompts))]


@pytest.mark.parametrize(
    ("place", "arguments", "says"),
    [
        ("asked/short", {}, "is not WORKSPACE/EXPERIMENT/TRAIN"),
        ("{ws}/asked/shrot", {}, "has no train condition 'shrot': it has base, short"),
        ("{ws}/askd/short", {}, "askd"),
        ("{ws}/asked/short", {"seed": 3}, "stands in 0 rows (generate=short, seed=0): choose with -M"),
    ],
)
def test_a_model_that_is_none_is_one_sentence(
    workspace: Path, place: str, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(SpecError) as told:
        get_model(f"windowshift/{place.format(ws=workspace)}", memoize=False, **arguments)
    assert says in str(told.value)


# -- tasks and scorers by themselves ----------------------------------------------------------------


def scored(section: dict[str, Any], folder: Path, prompt: Prompt, text: str) -> Score:
    (scorer,) = scorers_of([ScorerSection.model_validate(section)], folder, [])
    assert isinstance(scorer, InspectScorer)
    (found,) = asyncio.run(scorer.score_batch([Sample(prompt, Completion("", text, "stop", 3))]))
    return found[scorer.name]


def test_what_a_solver_makes_of_an_answer_is_scored(package: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(TASKS, encoding="utf-8")
    spec = SPEC.replace("windowshift_probe/colours, args: {wanted: a}", "own.py@exam", 1)
    source = parse_spec(spec).prompts
    assert source is not None
    drawn = draw(source, 1, 2, 0, tmp_path)
    prompt = drawn.data[0]
    assert "B) two" in prompt.text
    assert prompt.payload[SAMPLE] in (0, 1, 2)
    section = {"inspect": "own.py@exam"}
    assert scored(section, tmp_path, prompt, "ANSWER: B").value == 1.0
    assert scored(section, tmp_path, prompt, "ANSWER: A").value == 0.0
    assert ScorerSection.model_validate(section).name == "exam"


@pytest.mark.parametrize(
    ("value", "number"), [("0.5", 0.5), ("C", 1.0), ("No", 0.0), (True, 1.0), ("nan", None), ("inf", None), ("?", None)]
)
def test_a_value_that_is_no_finite_number_is_missing(value: object, number: float | None) -> None:
    made = InspectScorer("it", Behaviour("it", "", Scale.difference()), "package/one", "")
    reason = None if number is not None else f"package/one gave {value!r}, which is no number"
    assert made._read(value) == (number, reason)


def test_a_scorer_alone_takes_what_is_right_from_a_column(package: Path, tmp_path: Path) -> None:
    prompt = Prompt("1", "What?", {"right": "blue", "target": "red"})
    section = {"name": "right", "inspect": "inspect_ai/match", "target": "right", "args": {"location": "any"}}
    assert scored(section, tmp_path, prompt, "It is blue now").value == 1.0
    assert scored({**section, "target": "target"}, tmp_path, prompt, "It is blue now").value == 0.0
    several = {"inspect": "windowshift_probe/several"}
    assert "several values (length, odd)" in str(scored(several, tmp_path, prompt, "four").reason)
    found = scored({**several, "key": "length", "scale": "difference"}, tmp_path, prompt, "four")
    assert (found.value, found.evidence) == (4.0, {"explanation": "counted"})
    assert "no number" in str(scored({**several, "key": "odd"}, tmp_path, prompt, "four").reason)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("windowshift_probe/none", "no installed package has a task or scorer 'windowshift_probe/none'"),
        ("none.py@x", "there is no file"),
        ("windowshift_probe/broken", "cannot be made: ValueError: no samples today"),
    ],
)
def test_what_cannot_be_found_or_made_is_one_sentence(package: Path, tmp_path: Path, place: str, says: str) -> None:
    with pytest.raises(SpecError, match=r"scorers\[0\].inspect: ") as told:
        scored({"inspect": place, "args": {"odd": 1}}, tmp_path, Prompt("1", "x"), "y")
    assert says in str(told.value)


@pytest.mark.parametrize(
    ("task", "says"),
    [("tooled", "its solver gives the model tools"), ("several", "is a scorer, which has no samples")],
)
def test_a_task_that_no_cell_can_be_asked_is_refused(package: Path, tmp_path: Path, task: str, says: str) -> None:
    source = parse_spec(SPEC.replace("colours, args: {wanted: a}", task, 1)).prompts
    assert source is not None
    with pytest.raises(SpecError) as told:
        draw(source, 1, 0, 0, tmp_path)
    assert says in str(told.value)


def test_a_solver_that_asks_twice_is_a_missing_score(package: Path, tmp_path: Path) -> None:
    prompt = Prompt("0", "Hi", {SAMPLE: 0, "inspect_task": "windowshift_probe/again"})
    with pytest.raises(ValueError, match="asks the model more than once"):
        scored({"inspect": "windowshift_probe/again"}, tmp_path, prompt, "e")


def test_a_default_scale_is_a_rate() -> None:
    from windowshift.core.settings.spec_scorers import behaviour_of

    assert behaviour_of(ScorerSection.model_validate({"inspect": "a/b"})).scale == Scale.from_json("rate")
    with pytest.raises(ValueError, match="'regex' takes no 'args'"):
        ScorerSection.model_validate({"name": "x", "regex": "a", "args": {}})


@pytest.mark.slow
async def test_inspect_view_shows_the_cells_in_a_browser(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "logs"
    told = CliRunner().invoke(app, ["export", "asked", "-w", str(workspace), "--out", str(out), "--inspect"])
    assert told.exit_code == 0, told.output
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "inspect"), "view", "--log-dir", str(out), "--port", str(port)]
    view = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT, start_new_session=True)
    try:
        assert view.stdout is not None
        while b"Running on" not in (line := await asyncio.wait_for(view.stdout.readline(), 60)):
            assert line, "inspect view ended at once"
        async with page(tmp_path / "profile") as shown:
            text = ""

            async def see(address: str, *wanted: str) -> None:
                nonlocal text
                await shown.command("Page.navigate", url=f"http://127.0.0.1:{port}/{address}")
                for _ in range(600):
                    text = str(await shown.evaluate("document.body ? document.body.innerText : ''"))
                    if all(one in text for one in wanted):
                        return
                    await asyncio.sleep(0.1)
                raise AssertionError(f"{wanted} did not come into view: {text[:2000]}")

            await see("", "asked/")
            log = sorted(out.glob("*.eval"))[-1]
            found = read_eval_log(str(log))
            assert found.samples is not None
            said = found.samples[0].output.completion
            await see(f"#/logs/{log.name}/samples", "Name colour", " ".join(said.split())[:20])
    finally:
        os.killpg(view.pid, signal.SIGKILL)
        await view.communicate()
