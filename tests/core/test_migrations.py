"""Migrations of the store are atomic, and old stores open."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.store_rows import put_experiment
from windowshift.core.contract.errors import StoreError, WorkspaceBusyError
from windowshift.core.run.run import preview
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store import schema
from windowshift.core.store.connection import store_path, to_json
from windowshift.core.store.lock import hold
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path)
    yield made
    made.close()


def version(path: Path) -> tuple[int, set[str]]:
    connection = sqlite3.connect(path)
    try:
        (number,) = connection.execute("PRAGMA user_version").fetchone()
        return number, {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    finally:
        connection.close()


def test_version_one_opens_and_migrates_with_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
    monkeypatch.setattr(schema, "VERSION", 1)
    writer = Writer(tmp_path)
    put_experiment(writer)
    writer.close()
    assert version(store_path(tmp_path))[0] == 1
    monkeypatch.undo()
    later = (*schema.MIGRATIONS, "CREATE TABLE later (id INTEGER); -- a remark; with a semicolon\nDROP TABLE later;")
    for migrations in (schema.MIGRATIONS, later):
        monkeypatch.setattr(schema, "MIGRATIONS", migrations)
        monkeypatch.setattr(schema, "VERSION", len(migrations))
        if len(migrations) > 1:
            with pytest.raises(StoreError, match="older windowshift"):
                Reader(tmp_path)
        Writer(tmp_path).close()
        assert version(store_path(tmp_path))[0] == len(migrations)
        reader = Reader(tmp_path)
        assert [row.name for row in reader.experiments()] == ["one"]
        reader.close()


SPEC = """\
name: x
model: microworld
conditions: {generate: [short], train: [short], evaluate: [short]}
data: {size: 2}
sampling: {prompts: 2}
"""


@pytest.mark.parametrize("older", [0, 1])
def test_plan_migrates_as_the_refusal_of_an_older_store_says(
    older: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if older:
        monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:older])
        monkeypatch.setattr(schema, "VERSION", older)
        with closing(Writer(tmp_path)) as writer:
            put_experiment(writer)
        monkeypatch.undo()
    else:
        store_path(tmp_path).touch()
    with pytest.raises(StoreError, match=r"or 'plan' (migrates|fills) it"):
        Reader(tmp_path)
    busy = r"'run one'.*plan again once that has ended"
    with hold(tmp_path, "run one"), pytest.raises(WorkspaceBusyError, match=busy):
        preview(parse_spec(SPEC), SPEC, Path(), tmp_path)
    found = preview(parse_spec(SPEC), SPEC, Path(), tmp_path)
    assert found.estimate.jobs["train"] == (0, 1)
    with closing(Reader(tmp_path)) as reader:
        assert [row.name for row in reader.experiments()] == ["one"][:older]


@pytest.mark.parametrize("existing", [True, False])
def test_failing_migration_leaves_the_version_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    if existing:
        writer = Writer(tmp_path)
        put_experiment(writer)
        writer.close()
    good = len(schema.MIGRATIONS)
    broken = "CREATE TABLE half (id INTEGER); INSERT INTO half VALUES (1); CREATE TABLE half (id INTEGER);"
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
        patched.setattr(schema, "VERSION", good + 1)
        with pytest.raises(StoreError, match="half already exists") as caught:
            Writer(tmp_path)
        assert str(store_path(tmp_path)) in str(caught.value)
    number, tables = version(store_path(tmp_path))
    assert number == good
    assert "half" not in tables
    writer = Writer(tmp_path)
    assert len(Reader(tmp_path, writer.connection).experiments()) == existing
    writer.close()


def test_page_size_and_journal_are_the_fast_ones(writer: Writer) -> None:
    assert writer.connection.execute("PRAGMA page_size").fetchone() == (16384,)
    assert writer.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_json_is_canonical() -> None:
    assert to_json({"b": [1, "é"], "a": None}) == '{"a":null,"b":[1,"é"]}'
    with pytest.raises(ValueError, match="JSON"):
        to_json(float("nan"))
