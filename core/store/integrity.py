"""The store's integrity: damaged pages, rows that point nowhere, and what is not what was stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from windowshift.core.contract.errors import StoreError, WindowshiftError
from windowshift.core.store.checksums import compare
from windowshift.core.store.connection import open_reader, store_path
from windowshift.core.store.failure import meaning

_DAMAGE_SHOWN = 20

# What is counted, what it lacks, and the rows.
_POINTERS: tuple[tuple[str, str, str], ...] = (
    ("completions", "a job", "completions WHERE job NOT IN (SELECT n FROM jobs)"),
    ("completions", "a prompt", "completions WHERE prompt NOT IN (SELECT id FROM prompts)"),
    (
        "completions",
        "the phrase they name",
        "completions WHERE phrase IS NOT NULL AND phrase NOT IN (SELECT id FROM phrases)",
    ),
    ("scores", "a behaviour", "scores WHERE behaviour NOT IN (SELECT id FROM behaviours)"),
    (
        "scores",
        "a completion",
        "scores s WHERE NOT EXISTS (SELECT 1 FROM completions c WHERE c.job = s.job AND c.row = s.row) "
        # A slow scorer's scores are with its own job until all are there.
        "AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.n = s.job AND j.kind = 'score' AND j.state != 'done')",
    ),
    ("summaries", "a job", "summaries WHERE job NOT IN (SELECT n FROM jobs)"),
    ("summaries", "a behaviour", "summaries WHERE behaviour NOT IN (SELECT id FROM behaviours)"),
    ("projections", "a job", "projections WHERE job NOT IN (SELECT n FROM jobs)"),
    ("projections", "a prompt", "projections WHERE prompt NOT IN (SELECT id FROM prompts)"),
    ("gradients", "a job", "gradients WHERE job NOT IN (SELECT n FROM jobs)"),
    ("watched texts", "a job", "watched WHERE job NOT IN (SELECT n FROM jobs)"),
    ("cells", "a job", "cells WHERE job NOT IN (SELECT n FROM jobs)"),
    ("cells", "an experiment", "cells WHERE experiment NOT IN (SELECT id FROM experiments)"),
    ("guard cells", "a job", "guard_cells WHERE job NOT IN (SELECT n FROM jobs)"),
    ("guard cells", "an experiment", "guard_cells WHERE experiment NOT IN (SELECT id FROM experiments)"),
    ("sources", "a job", "sources WHERE job NOT IN (SELECT n FROM jobs)"),
    ("sources", "an experiment", "sources WHERE experiment NOT IN (SELECT id FROM experiments)"),
    ("plan entries", "a job", "experiment_jobs WHERE job NOT IN (SELECT n FROM jobs)"),
    ("plan entries", "an experiment", "experiment_jobs WHERE experiment NOT IN (SELECT id FROM experiments)"),
    ("prompt set entries", "a prompt", "prompt_sets WHERE prompt NOT IN (SELECT id FROM prompts)"),
    ("runs", "an experiment", "runs WHERE experiment NOT IN (SELECT id FROM experiments)"),
)


def check_store(workspace: Path) -> list[str]:
    """Look through a whole store beside a running writer; return one sentence for each thing wrong.

    Reads every page: about a second for each gigabyte on a fast disk.

    Raises:
        StoreError: there is no store, or it cannot even be opened.
    """
    path = store_path(workspace)
    connection = open_reader(workspace)
    try:
        # One snapshot: beside a writer, rows and what they point to must be of the same moment.
        connection.execute("BEGIN")
        lines = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({_DAMAGE_SHOWN})")]
        if lines != ["ok"]:
            remedy = "restore it from a copy, or move it away and run again"
            return [f"the store {path} is corrupt ({' '.join(line.split())}): {remedy}" for line in lines]
        problems = []
        for what, lacking, rows in _POINTERS:
            (count,) = connection.execute(f"SELECT count(*) FROM {rows}").fetchone()
            if count:
                problems.append(f"the store {path} has {count:,} {what} without {lacking}")
        return [*problems, *(f"the store {path}: {each}" for each in compare(connection))]
    except sqlite3.Error as error:
        return [f"the store {path} {meaning(error, path)}"]
    finally:
        connection.close()


@contextmanager
def explained(workspace: Path) -> Iterator[None]:
    """Read a workspace; where that breaks on what the store holds, say so in place of the error that it came to.

    Raises:
        StoreError: in place of any error that is no sentence, where the store is found to be damaged.
    """
    try:
        yield
    except WindowshiftError:
        raise
    except Exception as error:
        if isinstance(error, RuntimeError | BrokenPipeError):  # how the command line ends, too
            raise
        try:
            damage = check_store(workspace)
        except StoreError:
            damage = []
        if not damage:
            raise
        raise StoreError(damage[0]) from error


def unsealed(workspace: Path) -> int:
    """How many finished jobs have no checksum: they were made before there were any.

    Raises:
        StoreError: the store cannot be read.
    """
    sealed = "SELECT owner FROM checksums WHERE part = 'job'"
    with closing(open_reader(workspace)) as connection:
        query = f"SELECT count(*) FROM jobs WHERE state = 'done' AND n NOT IN ({sealed})"
        return int(connection.execute(query).fetchone()[0])
