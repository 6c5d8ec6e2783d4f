"""Checksums of finished work: a bit that flips on a disk changes no export unseen.

One checksum for each job's completions, for the scores of each behaviour on them and for their summary, for the job
itself, and for each experiment's grid. They are taken when the work is done, and taken away where it is changed
afterwards; prompts have digests of their own. What pointed to a prompt or a phrase is summed as what it pointed to, so
that a pointer that flips is found too.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

from windowshift.core.contract.prompts import stored_prompt
from windowshift.core.contract.records import ExperimentState, JobState

SummedPart = Literal["job", "completions", "grid", "experiment"] | str
"""What is summed: a job, its completions, what it read inside the model (`INSIDE`), ``scores of BEHAVIOUR``, their
``summary of BEHAVIOUR``; a grid, and what is told of its experiment beside."""
OF_EXPERIMENTS = ("grid", "experiment")
SCORES = "scores of "
SUMMARY = "summary of "
INSIDE = ("projections", "gradients", "watched")
"""Parts, and tables, of what jobs read inside the model."""

_COMPLETIONS = (
    "SELECT c.row, p.digest, f.text, c.phrase IS NULL, c.finish, c.tokens, c.prompt_tokens, c.logprob, c.error, "
    "c.text, c.reasoning, c.reasoning_tokens FROM completions c LEFT JOIN prompts p ON p.id = c.prompt "
    "LEFT JOIN phrases f ON f.id = c.phrase WHERE c.job = ? ORDER BY c.row"
)
_SCORES = (
    "SELECT row, value, reason, evidence FROM scores WHERE job = ? "
    "AND behaviour = (SELECT id FROM behaviours WHERE name = ?) ORDER BY row"
)
# A query of its own, whose sum is there only where there are weights: older stores had none.
_WEIGHTS = (
    "SELECT row, weight FROM scores WHERE job = ? AND weight IS NOT NULL "
    "AND behaviour = (SELECT id FROM behaviours WHERE name = ?) ORDER BY row"
)
_SUMMARY = (
    "SELECT n, missing, truncated, mean, sd, low, high FROM summaries WHERE job = ? "
    "AND behaviour = (SELECT id FROM behaviours WHERE name = ?)"
)
_PROJECTIONS = (
    "SELECT r.row, p.digest, r.tokens, r.along, r.rms, r.problem FROM projections r "
    "LEFT JOIN prompts p ON p.id = r.prompt WHERE r.job = ? ORDER BY r.row"
)
_GRADIENTS = "SELECT row, tokens, along, random, products, problem FROM gradients WHERE job = ? ORDER BY row"
_WATCHED = "SELECT step, row, logprob, tokens, problem FROM watched WHERE job = ? ORDER BY step, row"
_INSIDE = dict(zip(INSIDE, (_PROJECTIONS, _GRADIENTS, _WATCHED), strict=True))
_JOB = "SELECT id, kind, inputs, parents, total, result FROM jobs WHERE n = ?"
_GRID = (
    "SELECT 'cell', c.arm, c.generate, c.train, c.evaluate, c.seed, c.step, c.final, j.id, 0, 0, 0, 0 "
    "FROM cells c LEFT JOIN jobs j ON j.n = c.job WHERE c.experiment = :experiment UNION ALL "
    "SELECT 'source', s.arm, s.generate, s.train, s.part_generate, s.seed, s.part, s.fraction, j.id, s.part_train, "
    "s.first, s.last, r.id FROM sources s LEFT JOIN jobs j ON j.n = s.job LEFT JOIN jobs r ON r.n = s.reference "
    "WHERE s.experiment = :experiment ORDER BY 1, 2, 3, 4, 5, 6, 7"
)
# As those of weights: there only where there are guards.
_GUARDS = (
    "SELECT c.guard, c.arm, c.generate, c.train, c.evaluate, c.seed, c.step, c.final, j.id FROM guard_cells c "
    "LEFT JOIN jobs j ON j.n = c.job WHERE c.experiment = ? ORDER BY 1, 2, 3, 4, 5, 6, 7"
)
# Apart from the grid's, whose sums older stores have: the order of cells, and what was run.
_ORDER = "SELECT id FROM {table} WHERE experiment = ? ORDER BY arm, generate, train, evaluate, seed, step{more}"
_RUN = "SELECT spec, fingerprint, backend, data_size FROM experiments WHERE id = ?"
_EXPERIMENT = "SELECT name, behaviours, conditions, channels, setting, model, rehearsal FROM experiments WHERE id = ?"


def _sum(*queries: Iterable[Sequence[Any]]) -> str:
    """Digest rows: 16 hex digits of BLAKE2b over their values, with what separates them."""
    digest = hashlib.blake2b(digest_size=8)
    for rows in queries:
        for row in rows:
            digest.update(repr(row).encode("utf-8", "surrogatepass"))
        digest.update(b"\x00")
    return digest.hexdigest()


def sum_of(connection: sqlite3.Connection, owner: int, part: SummedPart) -> str:
    """The checksum of a part as the store has it now; `owner` is a job's number, or of a grid its experiment's."""
    if part == "grid":
        grid = connection.execute(_GRID, {"experiment": owner})
        guards = connection.execute(_GUARDS, (owner,)).fetchall()
        return _sum(grid, connection.execute(_EXPERIMENT, (owner,)), *([guards] if guards else []))
    if part == "experiment":
        orders = (_ORDER.format(table="cells", more=""), _ORDER.format(table="guard_cells", more=", guard"))
        return _sum(*(connection.execute(query, (owner,)) for query in (*orders, _RUN)))
    if part == "job":
        return _sum(connection.execute(_JOB, (owner,)))
    if part in INSIDE:
        return _sum(connection.execute(_INSIDE[part], (owner,)))
    if part == "completions":
        return _sum(connection.execute(_COMPLETIONS, (owner,)))
    if part.startswith(SUMMARY):
        return _sum(connection.execute(_SUMMARY, (owner, part.removeprefix(SUMMARY))))
    of = (owner, part.removeprefix(SCORES))
    weights = connection.execute(_WEIGHTS, of).fetchall()
    return _sum(connection.execute(_SCORES, of), *([weights] if weights else []))


def seal(connection: sqlite3.Connection, owner: int, part: SummedPart) -> None:
    """Take the checksum of a part and keep it."""
    connection.execute(
        "INSERT OR REPLACE INTO checksums (owner, part, sum) VALUES (?, ?, ?)",
        (owner, part, sum_of(connection, owner, part)),
    )


def unseal(connection: sqlite3.Connection, owner: int, parts: Iterable[SummedPart]) -> None:
    """Take checksums away: what they are of is about to change."""
    connection.executemany("DELETE FROM checksums WHERE owner = ? AND part = ?", [(owner, part) for part in parts])


def compare(connection: sqlite3.Connection, experiment: int | None = None) -> list[str]:
    """Compare every checksum with what the store holds, and every prompt with its digest.

    Args:
        connection: a reader's, within a snapshot.
        experiment: its number; None looks through the whole store.

    Returns:
        One sentence for each thing that was changed since it was stored.
    """
    names = dict(connection.execute("SELECT id, name FROM experiments"))
    jobs = {n: (identifier, label) for n, identifier, label in connection.execute("SELECT n, id, label FROM jobs")}
    own: set[int] | None = None
    if experiment is not None:
        own = {n for (n,) in connection.execute("SELECT job FROM experiment_jobs WHERE experiment = ?", (experiment,))}
    problems: list[str] = []
    rows = connection.execute("SELECT owner, part, sum FROM checksums ORDER BY owner, part").fetchall()
    for owner, part, kept in rows:
        if part in OF_EXPERIMENTS:
            if experiment in (None, owner) and sum_of(connection, owner, part) != kept:
                name = names.get(owner, f"number {owner}")
                what = "the grid of experiment" if part == "grid" else "what was run, or the order of cells, of"
                problems.append(f"{what} '{name}' is not what was stored: {_RUN_AGAIN}")
            continue
        if own is not None and owner not in own:
            continue
        if sum_of(connection, owner, part) != kept:
            identifier, label = jobs.get(owner, ("?", f"number {owner}"))
            verb = "is" if part.startswith(SUMMARY) else "are"
            what = "is not what was stored" if part == "job" else f"has {part} that {verb} not what was stored"
            problems.append(f"job '{label}' ({identifier}) {what}: {_REMEDY}")
    return [*problems, *_states(connection, experiment), *_prompts(connection, own)]


def _states(connection: sqlite3.Connection, experiment: int | None) -> list[str]:
    """States that there are none of: they change while a run goes on, so that no checksum is of them."""
    problems = []
    for number, name, state in connection.execute("SELECT id, name, state FROM experiments"):
        if experiment in (None, number) and state not in get_args(ExperimentState):
            problems.append(f"experiment '{name}' is '{state}', which is no state: {_RUN_AGAIN}")
    of = "" if experiment is None else " WHERE n IN (SELECT job FROM experiment_jobs WHERE experiment = :experiment)"
    query = f"SELECT id, label, state FROM jobs{of}"
    for identifier, label, state in connection.execute(query, {"experiment": experiment}):
        if state not in get_args(JobState):
            problems.append(f"job '{label}' ({identifier}) is '{state}', which is no state: {_REMEDY}")
    return problems


_REMEDY = "restore the store from a copy, or delete the experiment and run it again"
_RUN_AGAIN = "run its spec again, which writes the grid anew"


def _prompts(connection: sqlite3.Connection, jobs: set[int] | None) -> list[str]:
    """Prompts whose text is not that of their digest; of some jobs, or of all."""
    where = ""
    if jobs is not None:
        listed = ", ".join(map(str, jobs)) or "-1"
        where = f" WHERE id IN (SELECT prompt FROM completions WHERE job IN ({listed}))"
    problems = []
    for key, text, payload, turns, digest in connection.execute(
        f"SELECT key, text, payload, turns, digest FROM prompts{where}"
    ):
        try:
            same = stored_prompt(key, text, payload, turns).digest == digest
        except (ValueError, TypeError):
            same = False
        if not same:
            problems.append(f"prompt '{key}' is not what was stored: {_REMEDY}")
    return problems
