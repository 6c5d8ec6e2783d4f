"""A bit that flips in a store changes no export unseen, and doctor names what was changed."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.scripted_backend import scripted
from windowshift.cli import app
from windowshift.core.contract.errors import StoreError, WindowshiftError
from windowshift.core.report.export import export
from windowshift.core.run.doctor import examine
from windowshift.core.store import schema
from windowshift.core.store.connection import open_writer, store_path
from windowshift.core.store.integrity import check_store, unsealed
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sums")
    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(scripted(patch, folder, train="[short, long]", prompts=12, size=8).go())
    with closing(sqlite3.connect(store_path(folder))) as store:
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.execute("PRAGMA journal_mode = DELETE")
    return folder


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "ws"))


def exported(workspace: Path) -> bytes:
    out = workspace / "out.csv"
    export(workspace, "scripted", out, force=True)
    return out.read_bytes()


def test_a_store_that_was_left_alone_has_nothing_to_tell(made: Path) -> None:
    assert check_store(made) == []
    assert unsealed(made) == 0  # every finished job has its checksum


def test_no_bit_that_flips_changes_an_export_unseen(made: Path, workspace: Path) -> None:
    whole, path = exported(made), store_path(workspace)
    content = path.read_bytes()
    rng = random.Random(3)
    said = 0
    for _ in range(300):
        flipped = bytearray(content)
        flipped[rng.randrange(100, len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            assert exported(workspace) == whole
        except WindowshiftError:
            said += 1
    assert said > 5  # some did hit what is exported


CHANGES: dict[str, str] = {
    "has completions": "UPDATE completions SET text = text || '!' WHERE job = :job AND row = 1",
    "has completions ": "UPDATE completions SET finish = 'length' WHERE job = :job AND row = 1",
    "has completions  ": "UPDATE completions SET prompt = (SELECT max(id) FROM prompts) WHERE job = :job AND row = 1",
    "has completions   ": "UPDATE phrases SET text = text || '!'",
    "has completions    ": "DELETE FROM completions WHERE job = :job AND row = 3",
    "has scores of length_chars": "UPDATE scores SET value = value + 1 WHERE job = :job AND row = 2",
    "has scores of length_chars ": "UPDATE scores SET value = NULL, reason = 'no' WHERE job = :job AND row = 2",
    "has scores of length_words": "UPDATE behaviours SET name = 'length_wordz' WHERE name = 'length_words'",
    "the grid of experiment 'scripted'": "UPDATE cells SET train = 'shorT' WHERE train = 'short'",
    "the grid of experiment 'scripted' ": "UPDATE cells SET seed = 7 WHERE id = (SELECT max(id) FROM cells)",
    "the grid of experiment 'scripted'  ": "UPDATE experiments SET behaviours = replace(behaviours, 'chars', 'charz')",
    "the grid of experiment 'scripted'   ": "UPDATE sources SET fraction = 0.5",
    "what was run, or the order of cells": "UPDATE experiments SET spec = replace(spec, 'short', 'shorT')",
    "what was run, or the order of cells ": "UPDATE experiments SET fingerprint = 'scripteD'",
    "what was run, or the order of cells  ": "UPDATE cells SET id = id + 1000 WHERE id = 2",
    "has summary of length_chars that is": "UPDATE summaries SET mean = mean + 1 WHERE job = :job",
    "is 'dooe', which is no state": "UPDATE jobs SET state = 'dooe' WHERE n = :job",
    "experiment 'scripted' is 'dnne'": "UPDATE experiments SET state = 'dnne'",
    "prompt ": "UPDATE prompts SET text = text || '?'",
    "prompt  ": "UPDATE prompts SET key = key || 'x'",
    "job ": "UPDATE jobs SET inputs = replace(inputs, 'prefix', 'prefiX') WHERE n = :job",
}


@pytest.mark.parametrize("said", CHANGES)
def test_what_was_changed_is_named_and_not_exported(workspace: Path, said: str) -> None:
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        (job,) = store.execute("SELECT job FROM cells WHERE train = 'short' AND evaluate = 'short'").fetchone()
        assert store.execute(CHANGES[said], {"job": job}).rowcount != 0
    problems = check_store(workspace)
    assert any(said.strip() in one for one in problems), problems
    assert all("\n" not in one for one in problems)
    with pytest.raises(StoreError, match="nothing was exported from"):
        exported(workspace)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE jobs SET inputs = '{' || inputs WHERE n = :job", "what job '.*' .* is made of cannot be read"),
        ("UPDATE jobs SET parents = '[' WHERE n = :job", "is made of cannot be read; 'windowshift doctor"),
        ("UPDATE experiments SET channels = ''", "what channels experiment 'scripted' has cannot be read"),
        ("UPDATE experiments SET conditions = '[' || conditions", "what conditions experiment"),
        ("UPDATE experiments SET behaviours = '7'", "the behaviours of experiment 'scripted'"),
        ("UPDATE cells SET job = (SELECT min(n) FROM jobs) WHERE train != 'base'", "is not what was stored"),
        ("UPDATE sources SET job = 9999", "is not what was stored|without a job"),
    ],
)
def test_what_breaks_on_a_damaged_store_is_one_sentence(workspace: Path, change: str, says: str) -> None:
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        (job,) = store.execute("SELECT job FROM cells WHERE train = 'short' AND evaluate = 'short'").fetchone()
        store.execute(change, {"job": job})
    commands = [
        ["report"], ["compare"], ["export", "-o", "x.jsonl"], ["bundle", "-o", "x.zip"],
        ["export", "--dataset", "med_short/short", "-o", "d.jsonl"], ["figures", "--formats", "csv", "-o", "f.out"],
    ]  # fmt: skip
    told = []
    for command, *rest in commands:
        arguments = [str(workspace / one) if "." in one else one for one in rest]
        result = CliRunner().invoke(app, [command, "scripted", *arguments, "-w", str(workspace)])
        assert result.exception is None or isinstance(result.exception, WindowshiftError), repr(result.exception)
        told.append(str(result.exception))
    assert any(re.search(says, one) for one in told), told


def test_scores_made_anew_have_a_checksum_of_their_own(workspace: Path) -> None:
    with closing(Writer(workspace)) as writer:
        (job,) = writer.connection.execute("SELECT job FROM cells LIMIT 1").fetchone()
        writer.add_scores(job, [(0, "length_chars", 9.0, None)])
        assert check_store(workspace) == []  # in work: nothing is claimed of them
        writer.seal_scores(job, ["length_chars"])
    assert check_store(workspace) == []


def test_deleting_an_experiment_takes_its_checksums_along(workspace: Path) -> None:
    with closing(Writer(workspace)) as writer:
        row = Reader(workspace, writer.connection).find_experiment("scripted")
        writer.delete_experiment(row.id)
        assert writer.connection.execute("SELECT count(*) FROM checksums").fetchone() == (0,)


def test_a_store_from_before_is_read_and_said_not_to_be_checked(workspace: Path) -> None:
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        before = next(n for n, script in enumerate(schema.MIGRATIONS) if "CREATE TABLE checksums" in script)
        store.execute("DROP TABLE checksums")
        store.execute("ALTER TABLE scores DROP COLUMN weight")  # what came after them
        for table in ("guard_cells", "projections", "gradients", "watched"):
            store.execute(f"DROP TABLE {table}")
        store.execute(f"PRAGMA user_version = {before}")
    open_writer(workspace).close()
    assert check_store(workspace) == []
    assert unsealed(workspace) > 10
    assert exported(workspace)


def test_a_retry_takes_the_checksum_of_what_it_drops(workspace: Path) -> None:
    with closing(Writer(workspace)) as writer:
        (job,) = writer.connection.execute("SELECT job FROM cells LIMIT 1").fetchone()
        failed = "UPDATE completions SET finish = 'failed', error = 'x' WHERE job = ? AND row = 0"
        writer.connection.execute(failed, (job,))
        assert check_store(workspace)
        writer.drop_failed_completions(job)
        assert check_store(workspace) == []


def test_doctor_says_what_was_not_compared(workspace: Path) -> None:
    assert examine(workspace).workspace_note == ""
    with closing(sqlite3.connect(store_path(workspace))) as store, store:
        store.execute("DELETE FROM checksums WHERE part = 'job'")
    assert "finished jobs from before there were checksums are not compared" in examine(workspace).text()
