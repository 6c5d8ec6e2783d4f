"""The store: what the writer writes is what the reader reads, in whole batches."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.generated_store import LENGTHS, generate_store
from tests.store_rows import EXPERIMENT, JSON_LISTS, completion, put_experiment
from windowshift.core.contract.errors import StoreError
from windowshift.core.contract.prompts import Prompt, set_digest
from windowshift.core.contract.records import Summary
from windowshift.core.store import control
from windowshift.core.store.integrity import check_store
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path)
    yield made
    made.close()


@pytest.fixture
def reader(writer: Writer) -> Iterator[Reader]:
    made = Reader(writer.workspace)
    yield made
    made.close()


def test_generated_store_reads_back_and_is_sound(tmp_path: Path) -> None:
    generate_store(tmp_path, running=3).close()
    reader = Reader(tmp_path)
    (experiment,) = reader.experiments()
    assert reader.experiment("med-short") == experiment
    assert reader.experiment("nothing") is None
    assert (experiment.state, experiment.cells_total, experiment.cells_done) == ("running", 56, 52)
    cells = reader.cells(experiment.id, LENGTHS[0])
    cell = cells[10]
    rows = reader.completions(cell.job, LENGTHS[0])
    assert len(rows) == 40
    assert cell.summary is not None
    assert sum(row.score or 0 for row in rows) / 40 == pytest.approx(cell.summary.mean)
    assert reader.summary(cell.job, LENGTHS[0]) == cell.summary
    assert reader.completions(cell.job, LENGTHS[0], first=7, limit=3) == rows[7:10]
    assert reader.completion_of_prompt(cell.job, rows[5].prompt_id, LENGTHS[0]) == rows[5]
    assert reader.completion_of_prompt(cell.job, "nowhere", LENGTHS[0]) is None
    assert [row.score for row in reader.completions(cell.job, "no such behaviour")] == [None] * 40
    reader.close()
    assert check_store(tmp_path) == []


# -- batches --------------------------------------------------------------------------------------


def test_failed_batch_leaves_nothing_and_forgets_its_numbers(writer: Writer, reader: Reader) -> None:
    def write_and_fail() -> None:
        with writer.batch():
            put_experiment(writer)
            writer.phrase("gone:")
            writer.behaviour("gone")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert reader.experiments() == []
    assert reader.behaviours() == []
    _, (job, _) = put_experiment(writer)
    writer.put_prompts("p", [Prompt("a", "b")])
    phrase = writer.phrase("gone:")
    writer.add_completions([(*completion(job, 0)[:3], phrase, *completion(job, 0)[4:])])
    writer.add_scores(job, [(0, "gone", 1.0, None)])
    assert [(row.phrase, row.score) for row in reader.completions(job, "gone")] == [("gone:", 1.0)]


def test_nested_failure_undoes_the_nested_part_alone(writer: Writer, reader: Reader) -> None:
    _, (job, _) = put_experiment(writer)
    writer.put_prompts("p", [Prompt("a", "b")])

    def write_and_fail() -> None:
        with writer.batch():
            writer.add_completions([completion(job, 1)])
            with writer.batch():
                writer.add_completions([completion(job, 2)])
            raise ZeroDivisionError

    with writer.batch():
        writer.add_completions([completion(job, 0)])
        with pytest.raises(ZeroDivisionError):
            write_and_fail()
        writer.add_completions([completion(job, 3)])
    assert reader.rows_done(job) == {0, 3}


def test_method_that_fails_half_way_leaves_no_half(writer: Writer, reader: Reader) -> None:
    _, (job, _) = put_experiment(writer)
    with writer.batch():
        with pytest.raises(StoreError, match="NOT NULL"):
            writer.add_completions([completion(job, 0), (job, 1, None, None, "stop", 1, 1, None, None, "x")])
        writer.progress(job, 1)
    assert reader.rows_done(job) == set()
    assert reader.job(job).done == 1


def test_batch_that_sqlite_undid_does_not_go_on_row_by_row(writer: Writer, reader: Reader) -> None:
    # A full disk makes SQLite roll back by itself; the same is done here by hand.
    _, (job, _) = put_experiment(writer)

    def write_around_a_rollback() -> None:
        with writer.batch() as connection:
            writer.add_completions([completion(job, 0)])
            connection.execute("ROLLBACK")
            writer.add_completions([completion(job, 1)])

    with pytest.raises(StoreError, match="undid all of it"):
        write_around_a_rollback()
    assert reader.rows_done(job) == set()


def test_interrupted_transaction_does_not_block_the_next(writer: Writer, reader: Reader) -> None:
    writer.connection.execute("BEGIN IMMEDIATE")
    put_experiment(writer)
    assert len(reader.experiments()) == 1


def test_threads_share_one_writer(writer: Writer, reader: Reader) -> None:
    _, (job, _) = put_experiment(writer)

    def write(first: int) -> None:
        for row in range(first, first + 40):
            with writer.batch():
                writer.add_completions([completion(job, row)])
                writer.progress(job, row)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reader.rows_done(job)) == 120


def test_control_is_written_beside_a_reading_writer(writer: Writer, reader: Reader) -> None:
    experiment, (job, _) = put_experiment(writer)
    with reader.snapshot():  # an open read transaction is in nobody's way
        reader.experiments()
        control.request(writer.workspace, experiment, "pause")
        control.request(writer.workspace, experiment, "retry", job)
        control.request(writer.workspace, experiment + 1, "cancel")
        assert writer.take_controls(experiment) == [("pause", None), ("retry", job)]
    assert writer.take_controls(experiment) == []


def test_snapshot_sees_one_state(writer: Writer, reader: Reader) -> None:
    put_experiment(writer)
    with reader.snapshot():
        before = reader.experiments()
        put_experiment(writer, "two", 3)
        assert reader.experiments() == before
    assert len(reader.experiments()) == 2


# -- results --------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(["\0", "a\0b", "\x1b[31m", "‮", ""])
keys = texts.filter(lambda key: "\0" not in key)  # ends the key in a prompt's digest
row_numbers = st.integers(0, 2**40)
numbers = st.none() | st.floats(allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(row_numbers, st.tuples(texts, texts, st.sampled_from(["stop", "length"]), numbers), max_size=8),
    st.dictionaries(st.sampled_from(LENGTHS), numbers, max_size=3),
)
def test_completions_and_scores_read_back(
    rows: dict[int, tuple[str, str, str, float | None]], scores: dict[str, float | None]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder))
        _, (job, other) = put_experiment(writer)
        (prompt,) = writer.put_prompts("p", [Prompt("k", "the prompt")])
        stored = [
            (job, row, prompt, writer.phrase(phrase), finish, 1, 2, logprob, None, text)
            for row, (text, phrase, finish, logprob) in rows.items()
        ]
        writer.add_completions(stored)
        writer.add_completions(completion(other, row, prompt) for row in rows)
        writer.add_scores(job, [(row, name, value, None) for row in rows for name, value in scores.items()])
        reader = Reader(Path(folder), writer.connection)
        for name in LENGTHS:
            found = reader.completions(job, name)
            assert [row.row for row in found] == sorted(rows)
            for row in found:
                assert (row.text, row.phrase, row.finish, row.logprob) == rows[row.row]
                assert row.score == scores.get(name)
        assert reader.rows_done(other) == set(rows)
        writer.close()


def test_lone_surrogates_are_stored_as_replacement_characters(writer: Writer, reader: Reader) -> None:
    experiment, (job, _) = put_experiment(writer)
    writer.put_prompts("p", [Prompt("a", "b")])
    writer.add_completions([completion(job, 0), completion(job, 1, text="bad \ud800 text"), completion(job, 2)])
    writer.add_scores(job, [(1, "judge", None, "said \udcff")])
    writer.set_job(job, "failed", error="file \udcff", experiment=experiment)
    rows = reader.completions(job, "judge")
    assert [row.text for row in rows] == ["text", "bad \ufffd text", "text"]
    assert rows[1].reason == "said \ufffd"
    assert reader.job(job).error == "file \ufffd"
    assert reader.events()[-1].data["error"] == "file \ufffd"


def test_completion_stays_unless_it_failed(writer: Writer, reader: Reader) -> None:
    _, (job, _) = put_experiment(writer)
    writer.put_prompts("p", [Prompt("a", "b")])
    writer.add_completions([completion(job, 0, text="first"), completion(job, 1, text="", finish="failed")])
    assert reader.failures(job) == (1, "timed out")
    writer.add_completions([completion(job, 0, text="second"), completion(job, 1, text="retried")])
    rows = reader.completions(job, "")
    assert [(row.text, row.finish, row.error) for row in rows] == [("first", "stop", None), ("retried", "stop", None)]


def test_dropping_failed_completions_drops_their_scores_and_the_summaries(writer: Writer, reader: Reader) -> None:
    _, (job, other) = put_experiment(writer)
    writer.put_prompts("p", [Prompt("a", "b")])
    for number in (job, other):
        writer.add_completions([completion(number, 0), completion(number, 1, finish="failed"), completion(number, 2)])
        writer.add_scores(number, [(row, name, 1.0, None) for row in range(3) for name in ("a", "b")])
        writer.put_summary(number, "a", Summary(2, 1, 0, 1.0, 0.0, 1.0, 1.0))
        writer.progress(number, 3)
    assert writer.drop_failed_completions(job) == 1
    assert writer.drop_failed_completions(job) == 0
    assert reader.rows_done(job) == {0, 2}
    assert (reader.job(job).done, reader.job(other).done) == (2, 3)
    assert reader.summary(job, "a") is None
    assert reader.summary(other, "a") is not None
    assert reader.rows_done(other) == {0, 1, 2}
    assert check_store(writer.workspace) == []


def test_scores_are_replaced_in_any_number(writer: Writer, reader: Reader) -> None:
    _, (job, _) = put_experiment(writer)
    writer.put_prompts("p", [Prompt("a", "b")])
    writer.add_completions(completion(job, row) for row in range(200))
    writer.add_scores(job, [(row, name, 0.0, None) for row in range(200) for name in LENGTHS])
    writer.add_scores(job, [(row, name, row + 0.1, "why") for row in range(0, 200, 2) for name in LENGTHS])
    for name in LENGTHS:
        found = reader.scores(job, name)
        assert [value for _, _, value, _ in found] == [0.0 if row % 2 else row + 0.1 for row in range(200)]


def in_order(reader: Reader, digest: str) -> list[int]:
    query = "SELECT prompt FROM prompt_sets WHERE digest = ? ORDER BY position"
    return [number for (number,) in reader.connection.execute(query, (digest,))]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.tuples(keys, texts), max_size=6), min_size=1, max_size=4))
def test_prompt_sets_keep_order_and_share_prompts(sets: list[list[tuple[str, str]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder))
        reader = Reader(Path(folder), writer.connection)
        for chosen in [*sets, *sets]:
            prompts = [Prompt(key, text) for key, text in chosen]
            numbers = writer.put_prompts(set_digest(prompts), prompts)
            assert numbers == writer.number_prompts(prompts)
            assert in_order(reader, set_digest(prompts)) == numbers
        kept = writer.connection.execute("SELECT count(*) FROM prompts").fetchone()[0]
        assert kept == len({Prompt(*pair).digest for chosen in sets for pair in chosen})
        writer.close()


def test_many_prompts_and_jobs(writer: Writer, reader: Reader) -> None:
    """Beyond the number of variables that one statement of SQLite may have."""
    prompts = [Prompt(f"p{n}", f"What is {n}?") for n in range(40_000)]
    digest = set_digest(prompts)
    numbers = writer.put_prompts(digest, prompts)
    assert len(set(numbers)) == 40_000
    assert in_order(reader, digest) == numbers
    jobs = [(f"{n:032x}", "evaluate", f"label {n}", "{}", "[]", 100) for n in range(10_000)]
    experiment = writer.put_experiment({"name": "many", **EXPERIMENT, **JSON_LISTS, "data_size": 1})
    assert len(set(writer.put_jobs(experiment, jobs).values())) == 10_000
