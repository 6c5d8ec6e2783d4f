"""Damaged stores, other programs' and other versions' files, and other processes: one sentence, untouched."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import line, python
from tests.store_rows import PER_BATCH, put_experiment, rows_of, sentence_of, small_store
from windowshift.core.store import control, schema
from windowshift.core.store.connection import open_writer, store_path
from windowshift.core.store.integrity import check_store
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer


def everything(workspace: Path) -> list[Callable[[], object]]:
    return [
        lambda: Writer(workspace),
        lambda: Reader(workspace),
        lambda: control.request(workspace, 1, "pause"),
        lambda: check_store(workspace),
    ]


@pytest.mark.parametrize("content", [b"not a database at all\n" * 100, b"x", b"SQLite format 3\0", b"\0" * 8192])
def test_garbage_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    store_path(tmp_path).write_bytes(content)
    for call in everything(tmp_path):
        sentence = sentence_of(call, store_path(tmp_path))
        assert "corrupt" in sentence
        assert "restore it from a copy, or move it away" in sentence
    assert store_path(tmp_path).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [store_path(tmp_path).name]


def test_header_of_garbage_is_refused(tmp_path: Path) -> None:
    small_store(tmp_path)
    content = store_path(tmp_path).read_bytes()
    store_path(tmp_path).write_bytes(content[:16] + b"\xff" * 4080 + content[4096:])
    for call in everything(tmp_path):
        assert "corrupt" in sentence_of(call, tmp_path)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_truncated_store_is_refused_and_left_alone(tmp_path: Path, keep: float) -> None:
    small_store(tmp_path, rows=200)
    content = store_path(tmp_path).read_bytes()
    cut = content[: int(len(content) * keep)]
    store_path(tmp_path).write_bytes(cut)
    for call in everything(tmp_path):
        sentence = sentence_of(call, tmp_path)
        assert "corrupt (cut off after" in sentence
    assert store_path(tmp_path).read_bytes() == cut


def test_damaged_page_is_a_sentence_where_it_is_read(tmp_path: Path) -> None:
    job = small_store(tmp_path, rows=400)
    writer = Writer(tmp_path)
    _, numbers = put_experiment(writer, "two", 2)
    writer.close()
    content = bytearray(store_path(tmp_path).read_bytes())
    middle = (len(content) // 16384 // 2) * 16384
    content[middle : middle + 16384] = b"\xa5" * 16384
    store_path(tmp_path).write_bytes(content)
    reader = Reader(tmp_path)
    for call in (lambda: reader.completions(job, ""), lambda: reader.rows_done(job)):
        assert "is corrupt" in sentence_of(call, tmp_path)
    assert len(reader.experiments()) == 2, "what is not damaged can be read"
    assert reader.rows_done(numbers[1]) == set()
    reader.close()
    problems = check_store(tmp_path)
    assert problems
    assert all("corrupt" in problem and str(tmp_path) in problem for problem in problems)
    writer = Writer(tmp_path)
    assert "is corrupt" in sentence_of(lambda: writer.drop_failed_completions(job), tmp_path)
    writer.set_experiment(1, "failed")  # the writer still works where the store does
    writer.close()


def test_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    small_store(tmp_path)
    connection = sqlite3.connect(store_path(tmp_path))
    connection.execute(f"PRAGMA user_version={schema.VERSION + 1}")
    connection.close()
    before = store_path(tmp_path).read_bytes()
    for call in everything(tmp_path):
        sentence = sentence_of(call, tmp_path)
        assert f"store version {schema.VERSION + 1}, this one reads up to {schema.VERSION}" in sentence
        assert "upgrade windowshift" in sentence
    assert store_path(tmp_path).read_bytes() == before


def test_newer_version_in_a_log_that_was_never_merged_is_left_alone(tmp_path: Path) -> None:
    # As after kill -9 of the newer program: the version stands in the log, not yet in the file.
    small_store(tmp_path)
    code = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute(f"PRAGMA user_version={sys.argv[2]}")
print("written", flush=True)
os.kill(os.getpid(), 9)
"""
    with python(code, store_path(tmp_path), schema.VERSION + 1) as process:
        assert line(process) == "written"
        process.wait()
    log = store_path(tmp_path).with_name(store_path(tmp_path).name + "-wal")
    before, logged = store_path(tmp_path).read_bytes(), log.read_bytes()
    assert logged
    for call in everything(tmp_path):
        assert "newer windowshift" in sentence_of(call, tmp_path)
    assert (store_path(tmp_path).read_bytes(), log.read_bytes()) == (before, logged)


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_another_programs_file_is_left_alone(tmp_path: Path, journal: str) -> None:
    connection = sqlite3.connect(store_path(tmp_path))
    connection.execute(f"PRAGMA journal_mode={journal}")
    connection.execute("CREATE TABLE recipes (name)")
    connection.close()
    before = store_path(tmp_path).read_bytes()
    for call in everything(tmp_path):
        assert "another program; choose another workspace" in sentence_of(call, tmp_path)
    assert store_path(tmp_path).read_bytes() == before


def test_missing_store_names_the_command_that_makes_one(tmp_path: Path) -> None:
    for call in everything(tmp_path / "nowhere")[1:]:
        assert "start one with 'windowshift run'" in sentence_of(call, tmp_path)
    assert not (tmp_path / "nowhere").exists()


def test_empty_file_is_a_store_to_be(tmp_path: Path) -> None:
    store_path(tmp_path).write_bytes(b"")
    assert "it is empty" in sentence_of(lambda: Reader(tmp_path), tmp_path)
    small_store(tmp_path)
    assert len(rows_of(tmp_path)) == PER_BATCH


def test_folder_in_place_of_the_file(tmp_path: Path) -> None:
    store_path(tmp_path).mkdir()
    for call in everything(tmp_path):
        assert "it is a folder; move it away" in sentence_of(call, tmp_path)


def test_file_in_place_of_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for call in everything(tmp_path / "file"):
        assert "is a file: choose a folder" in sentence_of(call, tmp_path)


def test_store_locked_by_another_process(tmp_path: Path) -> None:
    job = small_store(tmp_path)
    writer = Writer(tmp_path, timeout=0.05)
    code = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
"""
    with python(code, store_path(tmp_path)) as process:
        assert line(process) == "locked"
        for call in (lambda: open_writer(tmp_path, timeout=0.05), lambda: writer.progress(job, 1)):
            assert "is locked by another process: wait for it" in sentence_of(call, tmp_path)
        assert len(rows_of(tmp_path)) == PER_BATCH, "readers go on"
    writer.progress(job, 1)  # the same writer goes on
    writer.close()


def test_store_that_was_removed_under_a_run(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    experiment, _ = put_experiment(writer)
    run = writer.start_run(experiment)
    writer.heartbeat(run)
    store_path(tmp_path).rename(tmp_path / "elsewhere.db")
    assert "moved, replaced or deleted" in sentence_of(lambda: writer.heartbeat(run), tmp_path)
    writer.close()
