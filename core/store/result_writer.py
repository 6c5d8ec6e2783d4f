"""Writes of results: prompts, phrases, completions, scores and summaries."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from windowshift.core.contract.inside import Gradient, Projection
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Summary
from windowshift.core.contract.setting import Score
from windowshift.core.contract.training import TextLogprob
from windowshift.core.store.checksums import SCORES, SUMMARY, seal, unseal
from windowshift.core.store.connection import storable, to_json
from windowshift.core.store.transaction import Transactions

ScoreRow = tuple[int, str, float | None, str | None]
"""A score: row, behaviour, value (None: missing), reason."""

# Tokens that nobody counted are -1: the column is older than servers that do not say how many there are.
_ADD_COMPLETION = (
    "INSERT INTO completions (job, row, prompt, phrase, finish, tokens, prompt_tokens, logprob, error, text, "
    "reasoning, reasoning_tokens) VALUES (?, ?, ?, ?, ?, coalesce(?, -1), ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (job, row) DO UPDATE SET prompt = excluded.prompt, "
    "phrase = excluded.phrase, finish = excluded.finish, tokens = excluded.tokens, "
    "prompt_tokens = excluded.prompt_tokens, logprob = excluded.logprob, error = excluded.error, "
    "text = excluded.text, reasoning = excluded.reasoning, reasoning_tokens = excluded.reasoning_tokens "
    "WHERE completions.finish = 'failed'"
)

_COLUMNS = 12
_SCORES_A_STATEMENT = 64


@cache
def _add_scores(count: int) -> str:
    rows = (f"(?1, ?2, ?{at}, ?{at + 1}, ?{at + 2})" for at in range(3, 3 + 3 * count, 3))
    return f"INSERT OR REPLACE INTO scores (job, behaviour, row, value, reason) VALUES {', '.join(rows)}"


class ResultWriter(Transactions):
    """Writes what jobs produce. Every public method is one transaction, or part of `batch()`."""

    def __init__(self, workspace: Path, *, timeout: float = 10.0) -> None:
        super().__init__(workspace, timeout=timeout)
        self._behaviours: dict[str, int] = {}
        self._phrases: dict[str, int] = {}

    def _forget(self) -> None:
        self._behaviours.clear()
        self._phrases.clear()

    def put_prompts(self, digest: str, prompts: Sequence[Prompt]) -> list[int]:
        """Store a prompt set under its digest and return the prompts' numbers in order."""
        with self.batch() as connection:
            numbers = self.number_prompts(prompts)
            connection.executemany(
                "INSERT INTO prompt_sets (digest, position, prompt) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [(digest, position, number) for position, number in enumerate(numbers)],
            )
        return numbers

    def number_prompts(self, prompts: Sequence[Prompt]) -> list[int]:
        """Store prompts that are new and return every one's number in order; keeps no set."""
        with self.batch() as connection:
            connection.executemany(
                "INSERT INTO prompts (digest, key, text, payload, turns) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (digest) DO NOTHING",
                [(prompt.digest, prompt.id, prompt.text, prompt.payload_json, prompt.turns_json) for prompt in prompts],
            )
            # CROSS JOIN keeps the order of the loops: one index look-up a prompt.
            rows = connection.execute(
                "SELECT p.id FROM json_each(?) wanted CROSS JOIN prompts p ON p.digest = wanted.value "
                "ORDER BY wanted.key",
                (json.dumps([prompt.digest for prompt in prompts]),),
            )
            return [number for (number,) in rows]

    def phrase(self, text: str | None) -> int | None:
        """Return the number of a phrase, storing it if it is new."""
        if text is None:
            return None
        if text not in self._phrases:
            with self.batch() as connection:
                connection.execute("INSERT INTO phrases (text) VALUES (?) ON CONFLICT DO NOTHING", (text,))
                row = connection.execute("SELECT id FROM phrases WHERE text = ?", (text,)).fetchone()
            self._phrases[text] = int(row[0])
        return self._phrases[text]

    def behaviour(self, name: str) -> int:
        """Return the number of a behaviour, storing it if it is new."""
        if name not in self._behaviours:
            with self.batch() as connection:
                connection.execute("INSERT INTO behaviours (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
                row = connection.execute("SELECT id FROM behaviours WHERE name = ?", (name,)).fetchone()
            self._behaviours[name] = int(row[0])
        return self._behaviours[name]

    def add_completions(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Insert completions: tuples in the order of the table's columns; those of a reasoning may be left out.

        A row that is there stays as it is, unless it failed: then the new one takes its place.
        """
        kept = [row if len(row) == _COLUMNS else (*row, None, 0) for row in rows]
        with self.batch() as connection:
            try:
                connection.executemany(_ADD_COMPLETION, kept)
            except UnicodeEncodeError:  # rare, so the rows are looked at only when it happens
                connection.executemany(
                    _ADD_COMPLETION,
                    [tuple(storable(item) if isinstance(item, str) else item for item in row) for row in kept],
                )

    def drop_failed_completions(self, job: int) -> int:
        """Forget completions that failed, so that a retry asks for them again; return how many they were.

        Those that a model thought about until its tokens were spent stay: it would do so again.
        Their scores go too, and the job's summaries, which counted them.
        """
        with self.batch() as connection:
            pairs = connection.execute(
                "SELECT job, row FROM completions WHERE job = ? AND finish = 'failed' AND reasoning IS NULL", (job,)
            ).fetchall()
            if not pairs:
                return 0
            kept = "('job', 'grid', 'experiment')"  # the last two are of an experiment of the same number
            connection.execute(f"DELETE FROM checksums WHERE owner = ? AND part NOT IN {kept}", (job,))
            connection.executemany("DELETE FROM completions WHERE job = ? AND row = ?", pairs)
            connection.executemany(
                "DELETE FROM scores WHERE job = ? AND row = ? AND behaviour IN (SELECT id FROM behaviours)",
                pairs,
            )
            connection.execute("DELETE FROM summaries WHERE job = ?", (job,))
            connection.execute(
                "UPDATE jobs SET done = (SELECT count(*) FROM completions WHERE job = n) WHERE n = ?", (job,)
            )
        return len(pairs)

    def put_projections(self, job: int, prompts: Sequence[Prompt], rows: Sequence[Projection]) -> None:
        """Store what a job read of each prompt, in place of what is there of it."""
        with self.batch() as connection:
            unseal(connection, job, ["projections"])
            connection.execute("DELETE FROM projections WHERE job = ?", (job,))
            connection.executemany(
                "INSERT INTO projections (job, row, prompt, tokens, along, rms, problem) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (job, row, prompt, one.tokens, to_json(one.along), to_json(one.rms),
                     None if one.problem is None else storable(one.problem))
                    for row, (prompt, one) in enumerate(zip(self.number_prompts(prompts), rows, strict=True))
                ],
            )  # fmt: skip
            seal(connection, job, "projections")

    def put_gradients(self, job: int, rows: Sequence[Gradient]) -> None:
        """Store the gradients of a job, in place of what is there of it."""
        with self.batch() as connection:
            unseal(connection, job, ["gradients"])
            connection.execute("DELETE FROM gradients WHERE job = ?", (job,))
            connection.executemany(
                "INSERT INTO gradients (job, row, tokens, along, random, products, problem) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (job, row, one.tokens, one.along, to_json(one.random), to_json(one.inner),
                     None if one.problem is None else storable(one.problem))
                    for row, one in enumerate(rows)
                ],
            )  # fmt: skip
            seal(connection, job, "gradients")

    def put_watched(self, job: int, step: int, texts: Sequence[TextLogprob]) -> None:
        """Store how likely the texts are that a training watches, after so many examples.

        A number that is there stays where a training that goes on can only say that its reading is lost.
        """
        with self.batch() as connection:
            unseal(connection, job, ["watched"])
            connection.executemany(
                "INSERT INTO watched (job, step, row, logprob, tokens, problem) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (job, step, row) DO UPDATE SET logprob = excluded.logprob, tokens = excluded.tokens, "
                "problem = excluded.problem WHERE excluded.logprob IS NOT NULL OR watched.logprob IS NULL",
                [
                    (job, step, row, one.logprob, one.tokens, None if one.problem is None else storable(one.problem))
                    for row, one in enumerate(texts)
                ],
            )

    def seal_watched(self, job: int) -> None:
        """Take the checksum of what a training watched: it is all there."""
        with self.batch() as connection:
            seal(connection, job, "watched")

    def add_scores(self, job: int, scores: Iterable[ScoreRow]) -> None:
        """Insert or replace scores of one job's completions."""
        with self.batch() as connection:
            by_name: dict[str, list[Any]] = {}
            for row, name, value, reason in scores:
                flat = by_name.get(name)
                if flat is None:
                    flat = by_name[name] = []
                flat += (row, value, reason if reason is None else storable(reason))
            unseal(connection, job, [SCORES + name for name in by_name])
            for name, flat in by_name.items():
                shared = (job, self.behaviour(name))
                # Many rows a statement: twice as fast as executemany, which starts the statement for each row.
                for start in range(0, len(flat), 3 * _SCORES_A_STATEMENT):
                    chunk = flat[start : start + 3 * _SCORES_A_STATEMENT]
                    connection.execute(_add_scores(len(chunk) // 3), (*shared, *chunk))

    def put_scores(self, job: int, rows: Iterable[tuple[int, Mapping[str, Score]]]) -> None:
        """Insert or replace scores of one job's completions, as (row, score by behaviour), with evidence and weight."""
        flat: list[ScoreRow] = []
        further: list[tuple[str | None, int | None, int, int, int]] = []
        with self.batch() as connection:
            for row, scores in rows:
                for name, score in scores.items():
                    flat.append((row, name, score.value, score.reason))
                    if score.evidence is not None or score.weight != 1:
                        said = None if score.evidence is None else storable(to_json(score.evidence))
                        weight = None if score.weight == 1 else score.weight
                        further.append((said, weight, job, self.behaviour(name), row))
            self.add_scores(job, flat)
            if further:
                connection.executemany(
                    "UPDATE scores SET evidence = ?, weight = ? WHERE job = ? AND behaviour = ? AND row = ?", further
                )

    def move_scores(self, job: int, to: int) -> None:
        """Give the scores that one job gathered to the completions of another one, all at once."""
        with self.batch() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO scores (job, behaviour, row, value, reason, evidence, weight) "
                "SELECT ?, behaviour, row, value, reason, evidence, weight FROM scores WHERE job = ?",
                (to, job),
            )
            connection.execute("DELETE FROM scores WHERE job = ?", (job,))

    def copy_scores(self, job: int, to: int, behaviours: Iterable[str], rows: Sequence[int]) -> None:
        """Give one job's completions 0, 1, ... the scores of some rows of another one, in this order, as they are."""
        with self.batch() as connection:
            for name in behaviours:
                connection.execute(
                    "INSERT OR REPLACE INTO scores (job, behaviour, row, value, reason, evidence, weight) "
                    "SELECT ?, s.behaviour, kept.key, s.value, s.reason, s.evidence, s.weight FROM json_each(?) kept "
                    "CROSS JOIN scores s ON s.job = ? AND s.behaviour = ? AND s.row = kept.value",
                    (to, json.dumps(list(rows)), job, self.behaviour(name)),
                )

    def drop_scores(self, job: int, behaviours: Iterable[str], reason: str) -> int:
        """Forget scores that are missing for a reason that begins so, so that they are made anew; how many.

        An empty reason: all scores, the ones with a value too.
        """
        dropped = 0
        names = list(behaviours)
        with self.batch() as connection:
            unseal(connection, job, [SCORES + name for name in names])
            for name in names:
                dropped += connection.execute(
                    "DELETE FROM scores WHERE job = ? AND behaviour = ? "
                    "AND (? = '' OR (value IS NULL AND substr(reason, 1, length(?)) = ?))",
                    (job, self.behaviour(name), reason, reason, reason),
                ).rowcount
        return dropped

    def seal_scores(self, job: int, behaviours: Iterable[str]) -> None:
        """Take checksums of the scores of some behaviours on one job's completions: they are all there."""
        with self.batch() as connection:
            for name in behaviours:
                seal(connection, job, SCORES + name)

    def put_summary(self, job: int, behaviour: str, summary: Summary) -> None:
        """Store the summary of one behaviour over one job's completions."""
        with self.batch() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO summaries "
                "(job, behaviour, n, missing, truncated, mean, sd, low, high) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job,
                    self.behaviour(behaviour),
                    summary.n,
                    summary.missing,
                    summary.truncated,
                    summary.mean,
                    summary.sd,
                    summary.low,
                    summary.high,
                ),
            )
            seal(connection, job, SUMMARY + behaviour)
