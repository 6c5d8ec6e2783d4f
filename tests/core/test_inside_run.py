"""What a spec asks to be read inside the model: run, stored, measured and shown, on a tiny model."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.inside_spec import DRIFT, GRADIENT, WATCH, text_of
from tests.report_text import report_text
from windowshift.cli import app
from windowshift.core.contract.errors import SpecError, StoreError
from windowshift.core.contract.inside import Gradient
from windowshift.core.contract.records import JobRow
from windowshift.core.contract.training import TextLogprob
from windowshift.core.measure.alignment import alignment, training_key
from windowshift.core.measure.drift import drifts
from windowshift.core.measure.inside_results import InsideResults, MeasuredInside, inside_along
from windowshift.core.report import frames
from windowshift.core.report.export import export
from windowshift.core.report.figures import write_figures
from windowshift.core.report.inside_export import export_inside
from windowshift.core.report.report import report
from windowshift.core.run.run import run_spec
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.connection import store_path
from windowshift.core.store.integrity import check_store
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

TEXTS = (
    {"prompt": "And rivers?", "completion": "They run."},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Rain?"},
                  {"role": "assistant", "content": "It falls."}]},
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A spec that reads everything."""
    texts = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    texts.write_text("".join(json.dumps(one) + "\n" for one in TEXTS), encoding="utf-8")
    return text_of(tiny_llama, DRIFT + GRADIENT + WATCH.replace("TEXTS", str(texts)))


@pytest.fixture(scope="module")
def finished(whole: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a finished run; copy before changing."""
    folder = tmp_path_factory.mktemp("inside")
    outcome = run_spec(parse_spec(whole), whole, folder, folder / "ws")
    assert outcome.state == "done", outcome
    return folder / "ws"


@pytest.fixture
def workspace(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "ws"))


def jobs(workspace: Path) -> list[JobRow]:
    with closing(Reader(workspace)) as reader:
        experiment = reader.experiment("inside")
        assert experiment is not None
        return list(reader.jobs(experiment.id))


def stored(workspace: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(store_path(workspace))) as store:
        return store.execute(
            "SELECT j.id, p.row, p.tokens, p.along, p.rms, p.problem FROM projections p JOIN jobs j ON j.n = p.job "
            "ORDER BY 1, 2"
        ).fetchall()


# -- the run ----------------------------------------------------------------------------------------


def test_every_reading_is_stored_and_summed(finished: Path) -> None:
    readings = [job for job in jobs(finished) if job.kind == "project"]
    assert [job.state for job in readings] == ["done"] * 5
    rows = stored(finished)
    assert len(rows) == 5 * 6
    for _, _, tokens, along, rms, problem in rows:
        assert (tokens, problem) == (1, None)
        assert np.isfinite(json.loads(along)).all()
        assert np.shape(json.loads(along)) == (2, 2)  # by vector, then layer
        assert min(json.loads(rms)) > 0
    assert check_store(finished) == []


def test_a_changed_reading_is_named_and_not_exported(workspace: Path) -> None:
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        store.execute("UPDATE projections SET along = replace(along, '1', '2') WHERE row = 2")
    assert any("has projections that are not what was stored" in one for one in check_store(workspace))
    with pytest.raises(StoreError, match="nothing was exported from"):
        export(workspace, "inside", workspace / "out.csv")


def test_readings_that_are_missing_are_made_again_to_the_byte(workspace: Path, whole: str) -> None:
    before = stored(workspace)
    lost = [job for job in jobs(workspace) if job.kind == "project"][2:]
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        for job in lost:
            store.execute("UPDATE jobs SET state = 'running' WHERE n = ?", (job.n,))
            store.execute("DELETE FROM projections WHERE job = ?", (job.n,))
            store.execute("DELETE FROM checksums WHERE owner = ? AND part IN ('job', 'projections')", (job.n,))
    assert run_spec(parse_spec(whole), whole, workspace.parent, workspace).state == "done"
    assert stored(workspace) == before
    assert check_store(workspace) == []


def test_watched_texts_are_stored_at_every_moment_and_summed(finished: Path) -> None:
    trained = [job for job in jobs(finished) if job.kind == "train"]
    assert len(trained) == 4
    with closing(Reader(finished)) as reader:
        for job in trained:
            read = reader.watched(job.n)
            assert list(read) == [0, 4, 8]
            assert all(len(texts) == 4 and all(one.logprob is not None for one in texts) for texts in read.values())
            assert [one.tokens for one in read[0]] == [one.tokens for one in read[8]]
            assert reader.watched(trained[0].n)[0] == read[0]  # the base model, whatever is to be trained
            assert read[0] != read[8]
        (digest,) = {job.inputs["watched"]["set"] for job in trained}
        prompts = [prompt for _, prompt in reader.prompt_set(digest)]
    assert [dict(one.payload) for one in prompts] == [
        {"completion": "Yes.", "group": "facts"},
        {"completion": "They gather in a ball.", "group": "facts"},
        {"completion": "They run."},
        {"completion": "It falls."},
    ]
    assert [turn.role for turn in prompts[3].messages] == ["system", "user"]


def test_gradients_are_stored_and_summed(workspace: Path) -> None:
    taken = [job for job in jobs(workspace) if job.kind == "gradient"]
    assert [job.state for job in taken] == ["done"] * 4
    with closing(Reader(workspace)) as reader:
        for job in taken:
            rows = reader.gradients(job.n)
            assert [len(one.inner) for one in rows] == [1, 2, 3, 4, 5, 6]
            assert all(len(one.random) == 20 and one.along is not None and one.tokens > 0 for one in rows)
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        store.execute("UPDATE gradients SET along = along / 2 WHERE row = 3")
    assert any("has gradients that are not what was stored" in one for one in check_store(workspace))


def test_a_changed_log_probability_is_named(workspace: Path) -> None:
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        store.execute("UPDATE watched SET logprob = logprob / 2 WHERE step = 4 AND row = 1")
    assert any("has watched that are not what was stored" in one for one in check_store(workspace))


# -- the measures -----------------------------------------------------------------------------------


def by_hand(workspace: Path, train: str, vector: int, layer: int) -> tuple[float, float]:
    """The drift over both seeds, and over the RMS norm of the base model's stream, of the rows in the store."""
    found = {job.id: job for job in jobs(workspace)}
    with closing(Reader(workspace)) as reader:
        read = {
            job.id: [row for _, row in reader.projections(job.n)] for job in found.values() if job.kind == "project"
        }
    (base,) = (rows for name, rows in read.items() if "trained" not in found[name].inputs)
    shifts = []
    for name, rows in read.items():
        trained = found[name].inputs.get("trained")
        if trained and found[trained].label == f"train med_short under {train}":
            shifts += [
                (after.along[vector][layer] or 0.0) - (before.along[vector][layer] or 0.0)
                for before, after in zip(base, rows, strict=True)
            ]
    rms = float(np.sqrt(np.mean([row.rms[layer] ** 2 for row in base])))
    return float(np.mean(shifts)), float(np.mean(shifts)) / rms


def test_a_drift_is_the_mean_difference_over_prompts(finished: Path) -> None:
    with closing(Reader(finished)) as reader:
        experiment = reader.find_experiment("inside")
        found = drifts(reader, experiment, resamples=400)
    assert [(one.train, one.vector) for one in found] == [
        ("long", "length"), ("long", "noise"), ("no_prefix", "length"), ("no_prefix", "noise"),
    ]  # fmt: skip
    for one in found:
        assert (one.layer, one.tokens, one.evaluate, one.prompts, one.seeds) == (1, "last_prompt", "no_prefix", 6, 2)
        for at in one.layers:
            shift, relative = by_hand(finished, one.train, ["length", "noise"].index(one.vector), at.layer)
            assert at.shift is not None
            assert at.relative is not None
            assert at.base is not None
            assert at.tuned is not None
            assert at.shift.value == pytest.approx(shift, rel=1e-9)
            assert at.shift.value == pytest.approx(at.tuned.value - at.base.value, rel=1e-6, abs=1e-9)
            assert at.relative.value == pytest.approx(relative, rel=1e-9)
            assert at.shift.interval is not None
            assert at.shift.interval[0] < at.shift.value < at.shift.interval[1]
            assert (at.shift.n, at.shift.prompts, at.shift.seeds) == (12, 6, 2)
            assert at.base.seeds == 0


def test_prompts_count_alike_in_the_norm_that_a_drift_is_told_in(workspace: Path) -> None:
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        store.execute("UPDATE projections SET tokens = 1 + 50 * row")  # as if prompts were of different lengths
        lacking = next(job for job in jobs(workspace) if job.kind == "project" and job.inputs.get("trained"))
        store.execute("UPDATE projections SET problem = 'gone' WHERE job = ? AND row = 5", (lacking.n,))
        store.execute("DELETE FROM checksums")
    trained = {job.id: job for job in jobs(workspace)}
    row = trained[lacking.inputs["trained"]].label.removeprefix("train med_short under ")
    with closing(Reader(workspace)) as reader:
        found = drifts(reader, reader.find_experiment("inside"), resamples=50)
        (base,) = (one for one in trained.values() if one.kind == "project" and "trained" not in one.inputs)
        rms = np.array([one.rms for _, one in reader.projections(base.n)])
    for one in found:
        # Two runs, of which one lacks the last prompt in the fine-tune: there it is no part of the shift either.
        counted = np.vstack([rms, rms[:5]]) if one.train == row else rms
        assert [at.rms for at in one.layers] == pytest.approx(list(np.sqrt((counted**2).mean(0))))


def test_what_was_measured_is_not_measured_again(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = MeasuredInside()
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment("inside")
        first = inside_along(reader, experiment, 100, measured)
        assert inside_along(reader, experiment, 100) == first
        read: list[int] = []
        for what in ("projections", "gradients"):
            real = getattr(Reader, what)
            monkeypatch.setattr(Reader, what, lambda own, job, real=real: (read.append(job), real(own, job))[1])
        assert inside_along(reader, experiment, 100, measured) == first
        assert read == []
        one = next(job for job in jobs(workspace) if job.kind == "project" and job.inputs.get("trained"))
        with closing(sqlite3.connect(store_path(workspace))) as store, store:
            store.execute("UPDATE jobs SET state = 'failed', error = 'no memory' WHERE n = ?", (one.n,))
        second = inside_along(reader, experiment, 100, measured)
        assert one.n not in read
        assert [each == other for each, other in zip(first.drifts, second.drifts, strict=True)].count(False) == 2
        assert second.alignments == first.alignments
        assert len(measured.drifts) == len(first.drifts)  # of a state that is past nothing is kept


def test_what_is_missing_is_shown_as_missing_with_its_reason(workspace: Path) -> None:
    readings = [job for job in jobs(workspace) if job.kind == "project" and "trained" in job.inputs]
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        store.execute("UPDATE jobs SET state = 'failed', error = 'no memory' WHERE n = ?", (readings[0].n,))
        store.execute(
            "UPDATE projections SET problem = 'it has 9 tokens', along = '[]', rms = '[]', tokens = 0 "
            "WHERE job = ? AND row = 1",
            (readings[1].n,),
        )
        store.execute("DELETE FROM checksums")
    found = report(workspace, "inside", resamples=200)
    by_train = {one.train: one for one in found.inside.drifts if one.vector == "length"}
    assert by_train["long"].layers == ()
    assert by_train["long"].reason == "inside med_short: long, under no_prefix: no memory"
    other = by_train["no_prefix"]
    assert (other.prompts, other.unread) == (6, 1)  # the prompt is read in the other run
    assert all(at.shift is not None and at.shift.n == 11 for at in other.layers)
    text = report_text(found, 200)
    assert "long: no drift: inside med_short: long, under no_prefix: no memory" in text
    assert "no_prefix: 1 prompt is left out, which could not be read." in text


def test_a_vector_without_a_direction_says_so_and_loses_no_prompt(workspace: Path) -> None:
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        for job, row, along in store.execute("SELECT job, row, along FROM projections").fetchall():
            first, *others = json.loads(along)
            lacking = json.dumps([[None] * len(first), *others])
            store.execute("UPDATE projections SET along = ? WHERE job = ? AND row = ?", (lacking, job, row))
        store.execute("DELETE FROM checksums")
    with closing(Reader(workspace)) as reader:
        found = drifts(reader, reader.find_experiment("inside"), resamples=50)
    without = [one for one in found if all(at.shift is None for at in one.layers)]
    assert {one.vector for one in without} == {"length"}
    assert all((one.prompts, one.unread, one.reason) == (6, 0, "") for one in without)


def test_the_report_has_it_as_text_and_as_json(finished: Path) -> None:
    found = report(finished, "inside", resamples=200)
    text = " ".join(report_text(found, 200).split())
    assert "Inside the model: drift along length, under no_prefix" in text
    assert "layer 1 (in use)" in text
    assert "long (6)" in text
    data = found.to_json()["inside"]["drifts"]
    assert {(one["train"], one["vector"]) for one in data} == {
        (train, vector) for train in ("long", "no_prefix") for vector in ("length", "noise")
    }
    layer = data[0]["layers"][1]
    assert layer["shift_ci95"][0] < layer["shift"] < layer["shift_ci95"][1]
    assert layer["shift_over_rms"] == pytest.approx(layer["shift"] / layer["base_rms"])
    assert (data[0]["prompts"], data[0]["seeds"], data[0]["unread"]) == (6, 2, 0)
    for form in ("--latex", "--markdown"):
        done = CliRunner().invoke(app, ["report", "inside", "--workspace", str(finished), form])
        assert done.exit_code == 0, done.output
        assert "drift along length" in done.stdout


def test_an_experiment_without_it_says_nothing_of_it(finished: Path) -> None:
    found = report(finished, "inside", resamples=200)
    without = dataclasses.replace(found, inside=InsideResults())
    assert without.to_json()["inside"] is None
    assert "Inside the model" not in report_text(without, 120)


def test_an_alignment_is_the_cosine_of_the_summed_gradient(finished: Path) -> None:
    found = report(finished, "inside", resamples=400)
    assert [(one.train, one.vector, one.layer) for one in found.inside.alignments] == [
        ("long", "length", 1), ("no_prefix", "length", 1),
    ]  # fmt: skip
    by_id = {job.id: job for job in jobs(finished)}
    conditions = {
        json.dumps(job.inputs["parts"], sort_keys=True): job.label for job in by_id.values() if job.kind == "train"
    }
    with closing(Reader(finished)) as reader:
        for one in found.inside.alignments:
            values, nulls = [], []
            for job in by_id.values():
                label = conditions.get(json.dumps(job.inputs.get("parts"), sort_keys=True))
                if job.kind != "gradient" or label != f"train med_short under {one.train}":
                    continue
                rows = reader.gradients(job.n)
                whole = sum(
                    (1 if i == j else 2) * (row.inner[j] or 0) for i, row in enumerate(rows) for j in range(i + 1)
                )
                values.append(sum(row.along or 0 for row in rows) / np.sqrt(whole))
                nulls.append(np.sum([row.random for row in rows], axis=0) / np.sqrt(whole))
            assert len(values) == 2
            assert one.cosine is not None
            assert one.cosine.value == pytest.approx(np.mean(values), rel=1e-9)
            assert one.cosine.interval is not None
            assert one.cosine.interval[0] < one.cosine.value < one.cosine.interval[1]
            assert one.cosine.n == 12
            null = np.mean(nulls, axis=0)
            assert one.null == pytest.approx(tuple(np.percentile(null, [2.5, 97.5])))
            assert one.p == pytest.approx((1 + (np.abs(null) >= abs(one.cosine.value)).sum()) / 21)
            assert (one.directions, one.unread, one.reason) == (20, 0, "")
    text = " ".join(report_text(found, 200).split())
    assert "does the gradient of D point along length at layer 1?" in text
    data = found.to_json()["inside"]["alignments"]
    assert data[0]["cosine_ci95"] is not None
    assert data[0]["random_directions"] == 20


def synthetic(seed: int, n: int = 40, width: int = 64, push: float = 0.3) -> list[Gradient]:
    """Gradients around a mean that points partly along the first axis."""
    rng = np.random.default_rng(seed)
    mean = np.full(width, push * np.sqrt(0.75 / (width - 1)))
    mean[0] = push / 2
    drawn = -(mean + rng.normal(scale=0.3, size=(n, width)))
    sides = np.random.default_rng(99).normal(size=(30, width))
    sides /= np.linalg.norm(sides, axis=1, keepdims=True)
    products = drawn @ drawn.T
    return [
        Gradient(float(-one[0]), tuple(-(sides @ one)), tuple(products[row, : row + 1]), 5)
        for row, one in enumerate(drawn)
    ]


def test_the_interval_of_an_alignment_holds_the_truth_of_other_draws() -> None:
    row: Any = ("prefix", "d", "t")
    truth = np.mean([_cosine(synthetic(1000 + seed)) for seed in range(200)])
    held = 0
    for seed in range(100):
        one = alignment(row, "v", 0, [synthetic(seed)], resamples=300).cosine
        assert one is not None
        assert one.low is not None
        assert one.high is not None
        held += one.low <= truth <= one.high
    assert held >= 88


def _cosine(rows: list[Gradient]) -> float:
    whole = sum((1 if i == j else 2) * (row.inner[j] or 0.0) for i, row in enumerate(rows) for j in range(i + 1))
    return float(sum(row.along or 0.0 for row in rows) / np.sqrt(whole))


def test_a_training_is_known_by_what_it_is_of_and_not_by_the_order_in_which_that_was_written() -> None:
    one = {"seed": 0, "parts": [{"data": "a", "first": 0}], "sft": {"rank": 2, "epochs": 1}}
    other = {"sft": {"epochs": 1, "rank": 2}, "parts": [{"first": 0, "data": "a"}], "seed": 0, "examples": 6}
    assert training_key(one) == training_key(other)
    assert training_key(one) != training_key(one | {"start": "stage"})


def test_examples_without_a_gradient_are_counted_and_left_out() -> None:
    row: Any = ("prefix", "d", "t")
    rows = synthetic(3, n=5)
    lacking = [*rows[:2], Gradient(problem="too long"), *rows[2:]]
    shifted = [
        one if place < 2 or one.problem else dataclasses.replace(one, inner=(*one.inner[:2], None, *one.inner[2:]))
        for place, one in enumerate(lacking)
    ]
    whole, part = (alignment(row, "v", 0, [each], resamples=200) for each in (rows, shifted))
    assert part.cosine == whole.cosine
    assert (part.unread, whole.unread) == (1, 0)
    nothing = alignment(row, "v", 0, [[Gradient(0.0, (0.0,) * 10, (0.0,), 3)]], resamples=50)
    assert nothing.cosine is None
    assert nothing.reason == "the gradient is 0: nothing is to be learned"


def test_a_course_is_the_mean_over_texts_by_token(finished: Path) -> None:
    found = report(finished, "inside", resamples=400).inside.courses
    assert [(one.train, one.group, one.texts) for one in found] == [
        ("long", "facts", 2), ("long", "", 2), ("no_prefix", "facts", 2), ("no_prefix", "", 2),
    ]  # fmt: skip
    with closing(Reader(finished)) as reader:
        for course in found:
            runs = [
                reader.watched(job.n)
                for job in jobs(finished)
                if job.kind == "train" and job.label == f"train med_short under {course.train}"
            ]
            assert (len(runs), course.seeds, course.unread, course.reason) == (2, 2, 0, "")
            places = (0, 1) if course.group else (2, 3)
            assert [point.examples for point in course.points] == [0, 4, 8]
            means = {
                step: np.mean([(run[step][at].logprob or 0) / run[step][at].tokens for run in runs for at in places])
                for step in (0, 4, 8)
            }
            for point in course.points:
                assert point.mean is not None
                assert point.mean.value == pytest.approx(means[point.examples], rel=1e-9)
                assert (point.mean.n, point.mean.prompts, point.mean.seeds) == (4, 2, 2)
                if point.examples:
                    assert point.change is not None
                    change = means[point.examples] - means[0]
                    assert point.change.value == pytest.approx(change, rel=1e-6)
                    assert point.change.interval is not None
                else:
                    assert point.change is None
    text = " ".join(report_text(report(finished, "inside", resamples=200), 200).split())
    assert "watched texts: facts, in nats a token, while each row trains" in text
    data = report(finished, "inside", resamples=200).to_json()["inside"]["watched"]
    assert [point["examples"] for point in data[0]["points"]] == [0, 4, 8]
    assert data[0]["points"][2]["change_ci95"] is not None


def test_a_text_that_cannot_be_read_is_counted_and_said(workspace: Path) -> None:
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        store.execute("UPDATE watched SET logprob = NULL, tokens = 0, problem = 'it is too long' WHERE row = 0")
        store.execute("DELETE FROM checksums")
    found = report(workspace, "inside", resamples=200)
    course = next(one for one in found.inside.courses if one.group == "facts")
    assert (course.texts, course.unread, course.reason) == (2, 1, "it is too long")
    assert course.points[0].mean is not None
    assert course.points[0].mean.interval is None  # one text alone has no interval
    assert "1 of 2 texts could not be read: it is too long." in report_text(found, 200)


def test_a_training_that_tells_nothing_yet_has_a_reason(workspace: Path) -> None:
    trained = next(job for job in jobs(workspace) if job.kind == "train")
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        store.execute("DELETE FROM watched WHERE job = ?", (trained.n,))
        store.execute("UPDATE jobs SET state = 'pending' WHERE n = ?", (trained.n,))
        store.execute("DELETE FROM checksums")
    found = report(workspace, "inside", resamples=200)
    course = next(one for one in found.inside.courses if one.train == "long")
    assert course.points == ()
    assert course.reason == "nothing was read yet: 'train med_short under long' is pending"
    assert "long: no log-probability: nothing was read yet" in report_text(found, 200)


def test_a_moment_whose_reading_is_lost_says_so_and_takes_no_number_that_is_there(workspace: Path) -> None:
    trained = next(job for job in jobs(workspace) if job.kind == "train")
    lost = [TextLogprob(None, problem="its reading is lost")] * 4
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        store.execute("DELETE FROM watched WHERE job = ? AND step = 0", (trained.n,))
    with closing(Writer(workspace)) as writer, closing(Reader(workspace)) as reader:
        before = reader.watched(trained.n)
        for step in (0, 4):
            writer.put_watched(trained.n, step, lost)
        writer.seal_watched(trained.n)
        assert reader.watched(trained.n) == {0: lost, **before}
    found = report(workspace, "inside", resamples=200)
    course = next(one for one in found.inside.courses if one.train == "long" and one.group == "facts")
    assert (course.unread, course.reason) == (2, "its reading is lost")
    assert course.points[1].mean is not None
    assert "2 of 2 texts could not be read: its reading is lost." in report_text(found, 200)


# -- what goes out ----------------------------------------------------------------------------------


def test_figures_show_what_was_read_with_its_n(finished: Path, tmp_path: Path) -> None:
    out = write_figures(finished, "inside", tmp_path, formats=["csv"])
    named = {path.name: path.read_text(encoding="utf-8") for path in out.written}
    for name, says in (
        ("drift_length_under_no_prefix.csv", "long (n 6)"),
        ("drift_noise_under_no_prefix.csv", "no_prefix (n 6)"),
        ("gradient_length.csv", "length (n 12 examples)"),
        ("watched_facts.csv", "long (n 2 texts)"),
        ("watched.csv", "long (n 2 texts)"),
    ):
        assert says in named[name]
    found = report(finished, "inside").inside
    rows = [line.split(",") for line in named["drift_length_under_no_prefix.csv"].splitlines() if "long (n 6)" in line]
    drift = next(one for one in found.drifts if (one.train, one.vector) == ("long", "length"))
    relative = [at.relative.value for at in drift.layers if at.relative is not None]
    assert [float(row[3]) / 100 for row in rows] == pytest.approx(relative, rel=1e-4)


def test_frames_have_a_row_a_layer_an_alignment_and_a_moment(finished: Path) -> None:
    found = report(finished, "inside", resamples=200)
    drift, aligned, watch = frames.drifts(found), frames.alignments(found), frames.watched(found)
    assert (len(drift), len(aligned), len(watch)) == (4 * 2, 2, 4 * 3)
    assert list(drift.columns) == list(frames.DRIFTS)
    assert list(aligned.columns) == list(frames.ALIGNMENTS)
    assert list(watch.columns) == list(frames.WATCHED)
    assert drift.in_use.sum() == 4
    assert (drift.shift_low < drift["shift"]).all()
    assert (aligned.directions == 20).all()
    assert watch.change.isna().sum() == 4  # before the first step there is none


def test_every_reading_is_exported(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "inside.jsonl"
    assert export_inside(finished, "inside", out) == 5 * 6 * 2 * 2 + 4 * 6 + 4 * 3 * 4
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    read = [row for row in rows if row["what"] == "projection"]
    assert {(row["train"], row["evaluate"], row["seed"]) for row in read} == {
        ("base", "no_prefix", None),
        *((train, "no_prefix", seed) for train in ("long", "no_prefix") for seed in (0, 1)),
    }
    kept = {row[0]: json.loads(row[3]) for row in stored(finished) if row[1] == 0}
    for row in read:
        if row["row"] == 0:
            assert row["value"] == kept[row["job"]][["length", "noise"].index(row["vector"])][row["layer"]]
    texts = [row for row in rows if row["what"] == "watched" and row["step"] == 0]
    assert {(row["completion"], row["group"]) for row in texts} == {
        ("Yes.", "facts"), ("They gather in a ball.", "facts"), ("They run.", None), ("It falls.", None),
    }  # fmt: skip
    done = CliRunner().invoke(app, ["export", "inside", "-w", str(finished), "--inside", "-o", str(tmp_path / "a.csv")])
    assert done.exit_code == 0, done.output
    assert "wrote 192 readings" in done.output
    with pytest.raises(SpecError, match=r"readings are written as .csv or .jsonl"):
        export_inside(finished, "inside", tmp_path / "a.parquet")


def test_what_cells_share_is_exported_once_for_each_of_them(workspace: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        columns = [row[1] for row in store.execute("PRAGMA table_info(cells)") if row[1] != "id"]
        for name, value in (("train", "'also_long'"), ("evaluate", "'also_none'")):
            own = ", ".join(value if column == name else column for column in columns)
            some = "train = 'long'" if name == "train" else "evaluate = 'no_prefix'"
            store.execute(f"INSERT INTO cells ({', '.join(columns)}) SELECT {own} FROM cells WHERE {some}")
        store.execute("DELETE FROM checksums")
    out = tmp_path / "inside.jsonl"
    export_inside(workspace, "inside", out)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    for what, evaluates in (("projection", ["no_prefix", "also_none"]), ("gradient", [None]), ("watched", [None])):
        told = [row for row in rows if row["what"] == what and row["train"] != "base"]
        assert {(row["train"], row["evaluate"]) for row in told} == {
            (train, one) for train in ("long", "no_prefix", "also_long") for one in evaluates
        }
        by_train = [[row["value"] for row in told if row["train"] == train] for train in ("long", "also_long")]
        assert by_train[0] == by_train[1]
    assert {row["evaluate"] for row in rows if row["train"] == "base"} == {"no_prefix", "also_none"}


def test_an_experiment_without_readings_exports_none(workspace: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        store.execute(
            "DELETE FROM experiment_jobs WHERE job IN (SELECT n FROM jobs WHERE kind IN ('project', 'gradient'))"
        )
        store.execute("UPDATE jobs SET inputs = replace(inputs, 'watched', 'wotched')")
        store.execute("DELETE FROM checksums")
    with pytest.raises(SpecError, match="'inside' reads nothing inside the model: its spec has no  inside:"):
        export_inside(workspace, "inside", tmp_path / "none.csv")


def test_a_notebook_shows_it_with_n_and_interval(finished: Path) -> None:
    found = report(finished, "inside", resamples=200)
    page = found._repr_html_()
    assert "drift of long along length, under no_prefix, at layer 1: " in page
    assert "(n 6 prompts)" in page
    assert "cosine of the gradient of D with length, long: " in page
    assert "(n 12 examples; 95 % of random ones: " in page
    assert "watched texts facts, no_prefix: " in page
    assert "nats a token after 8 examples (n 2 texts)" in page


STEERED = """\
name: inside
model: {model}
backend_options: {{workers: 1}}
prompts: microworld
conditions:
  generate: [med_short]
  train:
    - long
    - {{steer: length, alpha: 1}}
    - {{stages: [{{train: short}}, {{train: no_prefix}}], name: two}}
  evaluate: [no_prefix, {{steer: length, alpha: 1}}]
vectors:
  length: {{positive: long, negative: short, prompts: 6, layer: 1}}
data: {{size: 8}}
sft: {{rank: 2, learning_rate: 2e-2, batch_size: 4}}
sampling: {{prompts: 5, max_tokens: 8, samples: 2}}
checkpoints: {{every: 4}}
inside:
  drift: {{conditions: [no_prefix, length+1], tokens: response, prompts: 4}}
  gradient: {{examples: 6}}
  watch: {{texts: [{{prompt: a, completion: b}}, {{prompt: c, completion: d}}]}}
"""


@pytest.mark.parametrize("tokens", ["last_prompt", pytest.param("response", marks=pytest.mark.slow)])
def test_drift_on_prompts_of_its_own_stands_beside_the_cells(tiny_llama: Path, tmp_path: Path, tokens: str) -> None:
    text = text_of(tiny_llama, f"inside: {{prompts: {{n: 4}}, drift: {{tokens: {tokens}}}}}").replace("[0, 1]", "[0]")
    assert run_spec(parse_spec(text), text, tmp_path, tmp_path / "ws").state == "done"
    found = report(tmp_path / "ws", "inside", resamples=100)
    drifts_read = found.inside.drifts
    assert [(one.train, one.evaluate) for one in drifts_read] == [
        (train, "no_prefix") for train in ("long", "no_prefix") for _ in range(2)
    ]
    assert all((one.prompts, one.unread, one.reason, one.apart) == (4, 0, "", True) for one in drifts_read)
    assert "on prompts of its own, over the RMS norm" in " ".join(report_text(found, 200).split())
    assert {one["prompts_of"] for one in found.to_json()["inside"]["drifts"]} == {"inside"}
    out = tmp_path / "inside.jsonl"
    assert export_inside(tmp_path / "ws", "inside", out) == 3 * 4 * 2 * 2
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {(row["train"], row["evaluate"]) for row in rows} == {
        (train, "no_prefix") for train in ("base", "long", "no_prefix")
    }
    assert check_store(tmp_path / "ws") == []


@pytest.mark.slow
def test_doses_stages_checkpoints_and_responses_are_read_too(tiny_llama: Path, tmp_path: Path) -> None:
    text = STEERED.format(model=tiny_llama)
    assert run_spec(parse_spec(text), text, tmp_path, tmp_path / "ws").state == "done"
    found = report(tmp_path / "ws", "inside", resamples=200).inside
    rows = [("prefix", "long"), ("steering", "length+1"), ("prefix", "two")]
    assert [(one.arm, one.train) for one in found.drifts] == [row for row in rows for _ in range(2)]
    assert {one.evaluate for one in found.drifts} == {"no_prefix", "length+1"}
    assert all((one.prompts, one.unread, one.reason) == (4, 0, "") for one in found.drifts)
    assert [(one.arm, one.train) for one in found.alignments] == rows
    assert all(one.cosine is not None and one.layer == 1 for one in found.alignments)
    assert [(one.arm, one.train, [point.examples for point in one.points]) for one in found.courses] == [
        (*row, [0, 4, 8]) for row in rows
    ]
    base = [one.points[0].mean for one in found.courses]
    assert base[0] == base[1]  # the base model
    assert base[2] != base[0]  # what the first stage made of it
    by_id = {job.id: job for job in jobs(tmp_path / "ws")}
    taken = [job for job in by_id.values() if job.kind == "gradient"]
    assert sum("start" in job.inputs for job in taken) == 1
    pushed = [job for job in by_id.values() if job.kind == "project" and job.label.endswith("length+1")]
    answers = {by_id[job.inputs["answers"]].inputs["condition"]["kind"] for job in pushed}
    assert answers == {"steering"}
