"""Queries for results: prompts, completions, scores and summaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from windowshift.core.contract.generation import Completion
from windowshift.core.contract.inside import Gradient, Projection
from windowshift.core.contract.prompts import Prompt, stored_prompt
from windowshift.core.contract.records import CompletionRow, Summary
from windowshift.core.contract.training import TextLogprob
from windowshift.core.store.connection import naming
from windowshift.core.store.queries import Queries


class ResultReader(Queries):
    """Reads what jobs produced."""

    def prompt_set(self, digest: str) -> list[tuple[int, Prompt]]:
        """A prompt set's (number, prompt) in order; empty where the store does not hold it."""
        rows = self._all(
            "SELECT p.id, p.key, p.text, p.payload, p.turns FROM prompt_sets s JOIN prompts p ON p.id = s.prompt "
            "WHERE s.digest = ? ORDER BY s.position",
            (digest,),
        )
        return [(number, stored_prompt(*stored)) for number, *stored in rows]

    def completions(self, job: int, behaviour: str, *, first: int = 0, limit: int | None = None) -> list[CompletionRow]:
        """A job's completions from row `first` on, with one behaviour's scores, in row order."""
        return list(self.iter_completions(job, behaviour, first=first, limit=limit))

    def iter_completions(
        self, job: int, behaviour: str, *, first: int = 0, limit: int | None = None
    ) -> Iterator[CompletionRow]:
        """As `completions`, one at a time."""
        with naming(self.path):
            found = self.connection.execute("SELECT id FROM behaviours WHERE name = ?", (behaviour,)).fetchone()
            cursor = self.connection.execute(
                "SELECT c.row, p.key, p.text, f.text, c.finish, nullif(c.tokens, -1), c.prompt_tokens, c.logprob, "
                "c.error, c.text, s.value, s.reason, p.payload, p.turns, c.reasoning, c.reasoning_tokens, s.evidence "
                "FROM completions c JOIN prompts p ON p.id = c.prompt "
                "LEFT JOIN phrases f ON f.id = c.phrase "
                "LEFT JOIN scores s ON s.job = c.job AND s.behaviour = ? AND s.row = c.row "
                "WHERE c.job = ? AND c.row >= ? ORDER BY c.row LIMIT ?",
                (found[0] if found else -1, job, first, -1 if limit is None else limit),
            )
            for row in cursor:
                evidence = row[-1]
                yield CompletionRow(*(*row[:-1], None if evidence is None else self._json(evidence, "evidence")))

    def completion_of_prompt(self, job: int, prompt_id: str, behaviour: str) -> CompletionRow | None:
        """A job's completion for one prompt; None where it is not there (yet)."""
        rows = self._all(
            "SELECT c.row FROM completions c JOIN prompts p ON p.id = c.prompt WHERE c.job = ? AND p.key = ? "
            "ORDER BY c.row LIMIT 1",
            (job, prompt_id),
        )
        return self.completions(job, behaviour, first=rows[0][0], limit=1)[0] if rows else None

    def projections(self, job: int) -> list[tuple[str, Projection]]:
        """(prompt id, what was read) of a job that projects, in the order of its prompts."""
        rows = self._all(
            "SELECT p.key, r.along, r.rms, r.tokens, r.problem FROM projections r "
            "JOIN prompts p ON p.id = r.prompt WHERE r.job = ? ORDER BY r.row",
            (job,),
        )
        return [
            (
                key,
                Projection(
                    tuple(map(tuple, self._json(along, "projections"))),
                    tuple(self._json(rms, "projections")),
                    tokens,
                    problem,
                ),
            )
            for key, along, rms, tokens, problem in rows
        ]

    def gradients(self, job: int) -> list[Gradient]:
        """The gradients of a job, in the order of its examples."""
        query = "SELECT along, random, products, tokens, problem FROM gradients WHERE job = ? ORDER BY row"
        return [
            Gradient(
                along, tuple(self._json(random, "gradients")), tuple(self._json(inner, "gradients")), tokens, problem
            )
            for along, random, inner, tokens, problem in self._all(query, (job,))
        ]

    def watched(self, job: int) -> dict[int, list[TextLogprob]]:
        """How likely the texts are that a training watches, by the examples seen."""
        found: dict[int, list[TextLogprob]] = {}
        query = "SELECT step, logprob, tokens, problem FROM watched WHERE job = ? ORDER BY step, row"
        for step, logprob, tokens, problem in self._all(query, (job,)):
            found.setdefault(step, []).append(TextLogprob(logprob, tokens, problem))
        return found

    def scores(self, job: int, behaviour: str) -> list[tuple[int, int, float | None, str]]:
        """(row, prompt number, value, finish) of a job's completions; value None where it is missing."""
        return self._all(
            "SELECT c.row, c.prompt, s.value, c.finish FROM completions c "
            "LEFT JOIN scores s ON s.job = c.job AND s.row = c.row "
            "AND s.behaviour = (SELECT id FROM behaviours WHERE name = ?) "
            "WHERE c.job = ? ORDER BY c.row",
            (behaviour, job),
        )

    def weights(self, job: int, behaviour: str) -> dict[int, int]:
        """How many things the scores of a job's rows are means of, where it is more than one."""
        return dict(
            self._all(
                "SELECT row, weight FROM scores WHERE job = ? AND weight IS NOT NULL "
                "AND behaviour = (SELECT id FROM behaviours WHERE name = ?)",
                (job, behaviour),
            )
        )

    def weighted_scores(self, job: int, behaviour: str) -> list[tuple[int, int, float | None, str]]:
        """As `scores`; one that is a mean of several things stands there so often."""
        rows, weights = self.scores(job, behaviour), self.weights(job, behaviour)
        return [row for row in rows for _ in range(weights.get(row[0], 1))] if weights else rows

    def phrased_scores(
        self, job: int, behaviour: str, *, weighted: bool = False
    ) -> list[tuple[int, int, float | None, str, int]]:
        """As `scores`, or `weighted_scores`, with the number of the phrase that was asked for with; 0: none."""
        rows: list[tuple[int, int, float | None, str, int]] = self._all(
            "SELECT c.row, c.prompt, s.value, c.finish, coalesce(c.phrase, 0) FROM completions c "
            "LEFT JOIN scores s ON s.job = c.job AND s.row = c.row "
            "AND s.behaviour = (SELECT id FROM behaviours WHERE name = ?) "
            "WHERE c.job = ? ORDER BY c.row",
            (behaviour, job),
        )
        weights = self.weights(job, behaviour) if weighted else {}
        return [row for row in rows for _ in range(weights.get(row[0], 1))] if weights else rows

    def score_index(self, job: int, behaviour: str) -> list[tuple[int, int, str | None, str, float | None]]:
        """(row, prompt number, phrase, finish, value) of a job's completions, without their texts."""
        return self._all(
            "SELECT c.row, c.prompt, f.text, c.finish, s.value FROM completions c "
            "LEFT JOIN phrases f ON f.id = c.phrase LEFT JOIN scores s ON s.job = c.job "
            "AND s.row = c.row AND s.behaviour = (SELECT id FROM behaviours WHERE name = ?) "
            "WHERE c.job = ? ORDER BY c.row",
            (behaviour, job),
        )

    def completions_at(self, job: int, behaviour: str, rows: Sequence[int]) -> list[CompletionRow]:
        """A job's completions of some rows, a page of a sorted list, in that order; missing ones are left out."""
        return [
            found for row in rows for found in self.completions(job, behaviour, first=row, limit=1) if found.row == row
        ]

    def text_sizes(self, job: int) -> list[tuple[int, int, int | None]]:
        """(row, characters, tokens) of a job's completions; tokens None where nobody counted them."""
        with naming(self.path):
            # SQLite's own length() ends at a NUL, which a completion may contain.
            query = "SELECT row, text, nullif(tokens, -1) FROM completions WHERE job = ? ORDER BY row"
            return [(row, len(text), tokens) for row, text, tokens in self.connection.execute(query, (job,))]

    def rows_by_text(self, job: int) -> list[int]:
        """The rows of a job's completions in the order of their texts, whatever the case of ASCII letters."""
        query = "SELECT row FROM completions WHERE job = ? ORDER BY text COLLATE NOCASE, row"
        return [row for (row,) in self._all(query, (job,))]

    def rows_done(self, job: int) -> set[int]:
        """The row numbers that a job's completions have."""
        return {row for (row,) in self._all("SELECT row FROM completions WHERE job = ?", (job,))}

    def samples(
        self, job: int, unscored: tuple[str, int] | None = None, *, after: int = -1, limit: int = -1
    ) -> list[tuple[int, str | None, Prompt, Completion]]:
        """(row, phrase, prompt, completion) of completions that did not fail, in row order.

        Args:
            job: the job.
            unscored: (behaviour, score job): only those without a score of it, missing or not, with either job.
            after: rows above this one.
            limit: so many at most; below 0: all.
        """
        unless = ""
        values: tuple[object, ...] = ()
        if unscored is not None:
            unless = (
                "AND NOT EXISTS (SELECT 1 FROM scores s WHERE s.job IN (c.job, ?) AND s.row = c.row "
                "AND s.behaviour = (SELECT id FROM behaviours WHERE name = ?)) "
            )
            values = (unscored[1], unscored[0])
        rows = self._all(
            "SELECT c.row, f.text, p.key, p.text, p.payload, p.turns, c.finish, nullif(c.tokens, -1), "
            "c.prompt_tokens, c.logprob, "
            "c.text, c.reasoning, c.reasoning_tokens FROM completions c JOIN prompts p ON p.id = c.prompt "
            "LEFT JOIN phrases f ON f.id = c.phrase "
            f"WHERE c.job = ? AND c.row > ? AND c.finish != 'failed' {unless}ORDER BY c.row LIMIT ?",
            (job, after, *values, limit),
        )
        return [
            (
                row,
                phrase,
                stored_prompt(key, prompt, payload, turns),
                Completion(
                    "", text, finish, tokens, prompt_tokens, logprob, reasoning=thought, reasoning_tokens=thought_tokens
                ),
            )
            for (
                row,
                phrase,
                key,
                prompt,
                payload,
                turns,
                finish,
                tokens,
                prompt_tokens,
                logprob,
                text,
                thought,
                thought_tokens,
            ) in rows
        ]

    def scored(self, job: int, behaviour: str) -> int:
        """How many of a job's completions have a score of a behaviour, missing ones among them."""
        query = "SELECT count(*) FROM scores WHERE job = ? AND behaviour = (SELECT id FROM behaviours WHERE name = ?)"
        return int(self._all(query, (job, behaviour))[0][0])

    def missing_scores(self, job: int, behaviour: str, reason: str) -> tuple[int, str] | None:
        """How many of a job's scores are missing for a reason that begins so, and the first one's; None: none."""
        rows = self._all(
            "SELECT reason FROM scores WHERE job = ? AND behaviour = (SELECT id FROM behaviours WHERE name = ?) "
            "AND value IS NULL AND substr(reason, 1, ?) = ? ORDER BY row",
            (job, behaviour, len(reason), reason),
        )
        return (len(rows), str(rows[0][0])) if rows else None

    def mean_tokens(self, job: int) -> float | None:
        """The mean number of tokens of a job's completions that did not fail; None: there are none."""
        query = "SELECT avg(tokens) FROM completions WHERE job = ? AND finish != 'failed' AND tokens >= 0"
        mean = self._all(query, (job,))[0][0]
        return None if mean is None else float(mean)

    def failures(self, job: int) -> tuple[int, str] | None:
        """How many of a job's completions failed, and the first one's error; None where none did.

        Those that the model thought about and did not answer count only where it answered none at all: they are
        missing, and asking again would not change it.
        """
        query = "SELECT error FROM completions WHERE job = ? AND finish = 'failed' AND reasoning IS NULL ORDER BY row"
        rows = self._all(query, (job,)) or self._only_unanswered(job)
        return (len(rows), str(rows[0][0])) if rows else None

    def unanswered(self, job: int) -> tuple[int, str] | None:
        """How many completions a model thought about without answering, and the first one's reason; None: none."""
        query = (
            "SELECT error FROM completions WHERE job = ? AND finish = 'failed' AND reasoning IS NOT NULL ORDER BY row"
        )
        rows = self._all(query, (job,))
        return (len(rows), str(rows[0][0])) if rows else None

    def _only_unanswered(self, job: int) -> list[tuple[str]]:
        answered = "SELECT 1 FROM completions WHERE job = ? AND finish != 'failed'"
        query = f"SELECT error FROM completions WHERE job = ? AND NOT EXISTS ({answered}) ORDER BY row"
        return self._all(query, (job, job))

    def behaviours(self) -> list[str]:
        """The names of every behaviour that the store has scores of."""
        return [name for (name,) in self._all("SELECT name FROM behaviours ORDER BY id")]

    def summary(self, job: int, behaviour: str) -> Summary | None:
        """The summary of one behaviour over one job's completions."""
        rows = self._all(
            "SELECT s.n, s.missing, s.truncated, s.mean, s.sd, s.low, s.high FROM summaries s "
            "JOIN behaviours b ON b.id = s.behaviour WHERE s.job = ? AND b.name = ?",
            (job, behaviour),
        )
        return Summary(*rows[0]) if rows else None
