"""Queries over a store, for screens, analysis, export and the runner. Never writes."""

from __future__ import annotations

import json
from typing import Any

from windowshift.core.contract.errors import SpecError, StoreError
from windowshift.core.contract.gates import Preflight
from windowshift.core.contract.looks import Look
from windowshift.core.contract.records import (
    Behaviour,
    CellRow,
    Event,
    ExperimentRow,
    JobRow,
    RunRow,
    SourceRow,
    Summary,
    instead_of,
)
from windowshift.core.store.result_reader import ResultReader

_JOB = (
    "n, id, kind, label, state, done, total, loss, rate, usd, error, started, ended, inputs, parents, result, priority"
)


class Reader(ResultReader):
    """Reads one workspace, for screens, analysis, export and the runner."""

    # -- experiments ----------------------------------------------------------------------------

    def experiments(self) -> list[ExperimentRow]:
        """Every experiment with its progress, newest first."""
        with self.snapshot():
            return self._experiments("1", ())

    def experiment(self, name: str) -> ExperimentRow | None:
        """One experiment by name; None where there is none."""
        with self.snapshot():
            return next(iter(self._experiments("e.name = ?", (name,))), None)

    def find_experiment(self, name: str) -> ExperimentRow:
        """One experiment by name.

        Raises:
            SpecError: there is none; the sentence names those there are.
        """
        found = self.experiment(name)
        if found is None:
            names = [experiment.name for experiment in self.experiments()]
            raise SpecError(f"there is no experiment '{name}' in {self.workspace}: {instead_of(name, names)}")
        return found

    def spent(self, experiment: int) -> float:
        """What an experiment's runs have paid, in USD, with what was thrown away and asked for again."""
        query = "SELECT sum(json_extract(data, '$.usd')) FROM events WHERE experiment = ? AND kind = 'cost'"
        return float(self._all(query, (experiment,))[0][0] or 0.0)

    def _experiments(self, where: str, parameters: tuple[Any, ...]) -> list[ExperimentRow]:
        rows = self._all(
            "SELECT id, name, state, setting, model, rehearsal, backend, behaviours, conditions, channels, "
            f"data_size, created, started, ended, error FROM experiments e WHERE {where} "
            "ORDER BY created DESC, id DESC",
            parameters,
        )
        jobs: dict[int, dict[str, int]] = {}
        usd: dict[int, float] = {}
        for experiment, state, count, cost in self._all(
            "SELECT x.experiment, j.state, count(*), sum(j.usd) FROM experiment_jobs x "
            f"JOIN jobs j ON j.n = x.job JOIN experiments e ON e.id = x.experiment "
            f"WHERE {where} GROUP BY x.experiment, j.state",
            parameters,
        ):
            jobs.setdefault(experiment, {})[state] = count
            if cost is not None:
                usd[experiment] = usd.get(experiment, 0.0) + cost
        cells = {
            experiment: (done or 0, total)
            for experiment, done, total in self._all(
                "SELECT c.experiment, sum(j.state = 'done'), count(*) FROM cells c "
                f"JOIN jobs j ON j.n = c.job JOIN experiments e ON e.id = c.experiment "
                f"WHERE {where} GROUP BY c.experiment",
                parameters,
            )
        }
        return [
            ExperimentRow(
                *[
                    *row[:5],
                    bool(row[5]),
                    row[6],
                    _behaviours(row[1], row[7]),
                    self._json(row[8], f"what conditions experiment '{row[1]}' has"),
                    self._json(row[9], f"what channels experiment '{row[1]}' has"),
                    *row[10:],
                    jobs.get(row[0], {}),
                    *cells.get(row[0], (0, 0)),
                    usd.get(row[0]),
                ]
            )
            for row in rows
        ]

    def spec_text(self, experiment: int) -> str:
        """The YAML an experiment was started with.

        Raises:
            StoreError: there is no such experiment (any more).
        """
        return str(self._one("SELECT spec FROM experiments WHERE id = ?", experiment, "experiment")[0])

    def run(self, experiment: int) -> RunRow | None:
        """The newest run of an experiment; None where it never ran."""
        rows = self._all(
            "SELECT id, experiment, pid, host, started, heartbeat, ended FROM runs WHERE experiment = ? "
            "ORDER BY id DESC LIMIT 1",
            (experiment,),
        )
        return RunRow(*rows[0]) if rows else None

    def asked(self, experiment: int) -> list[tuple[str, int | None]]:
        """(action, job) of what an experiment's run was asked and has not taken up yet, oldest first."""
        query = "SELECT action, job FROM control WHERE experiment = ? AND handled IS NULL ORDER BY id"
        return [(str(action), job) for action, job in self._all(query, (experiment,))]

    # -- jobs -----------------------------------------------------------------------------------

    def jobs(self, experiment: int) -> list[JobRow]:
        """An experiment's jobs in plan order."""
        columns = ", ".join(f"j.{name}" for name in _JOB.split(", "))
        rows = self._all(
            f"SELECT {columns} FROM experiment_jobs x JOIN jobs j ON j.n = x.job WHERE x.experiment = ? "
            "ORDER BY x.position",
            (experiment,),
        )
        return [self._job(row) for row in rows]

    def job(self, n: int) -> JobRow:
        """One job by number.

        Raises:
            StoreError: there is no such job (any more).
        """
        return self._job(self._one(f"SELECT {_JOB} FROM jobs WHERE n = ?", n, "job"))

    def job_states(self, ids: list[str]) -> dict[str, str]:
        """The states of the jobs that the store knows, by job id."""
        return {identifier: str(state) for identifier, state in self._of_jobs("state", ids)}

    def job_numbers(self, ids: list[str]) -> dict[str, int]:
        """The numbers of the jobs that the store knows, by job id."""
        return {identifier: int(number) for identifier, number in self._of_jobs("n", ids)}

    def _of_jobs(self, column: str, ids: list[str]) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        for start in range(0, len(ids), 500):
            chunk = tuple(ids[start : start + 500])
            marks = ", ".join("?" * len(chunk))
            found += self._all(f"SELECT id, {column} FROM jobs WHERE id IN ({marks})", chunk)
        return found

    def job_spans(self, fingerprint: str, kinds: tuple[str, ...]) -> list[tuple[float, float, int]]:
        """(started, ended, rows) of the finished jobs of some kinds, on one model."""
        return self._all(
            "SELECT DISTINCT j.started, j.ended, j.total FROM jobs j JOIN experiment_jobs x ON x.job = j.n "
            "JOIN experiments e ON e.id = x.experiment WHERE e.fingerprint = ? AND j.state = 'done' "
            f"AND j.started IS NOT NULL AND j.ended IS NOT NULL AND j.kind IN ({', '.join('?' * len(kinds))})",
            (fingerprint, *kinds),
        )

    def truncated_cells(self, fingerprint: str, least: int) -> list[tuple[str, int, int]]:
        """(label, truncated, completions) of a model's finished evaluations with a token limit of at least `least`.

        Fine-tunes of it count too: their jobs have its fingerprint.
        """
        return self._all(
            "SELECT j.label, max(s.truncated), max(s.n + s.missing) FROM summaries s JOIN jobs j ON j.n = s.job "
            "WHERE j.state = 'done' AND j.kind = 'evaluate' "
            "AND json_extract(j.inputs, '$.model.fingerprint') = ? "
            "AND json_extract(j.inputs, '$.sampling.max_tokens') >= ? GROUP BY j.n ORDER BY j.n",
            (fingerprint, least),
        )

    def without_interval(self, experiment: int) -> list[tuple[int, str]]:
        """(job, behaviour) of the summaries of done jobs that lack an interval and have scores enough for one."""
        return self._all(
            "SELECT s.job, b.name FROM summaries s JOIN behaviours b ON b.id = s.behaviour "
            "JOIN jobs j ON j.n = s.job JOIN experiment_jobs x ON x.job = s.job "
            "WHERE x.experiment = ? AND s.low IS NULL AND s.n > 1 AND j.state = 'done'",
            (experiment,),
        )

    # -- the grid -------------------------------------------------------------------------------

    def cells(self, experiment: int, behaviour: str, *, evaluate: str | None = None) -> list[CellRow]:
        """An experiment's cells, base cells first, with the summary of one behaviour.

        A behaviour of a guard has the guard's cells, which are never among those of the grid.
        `evaluate` leaves out those of other eval conditions: the whole of a large grid takes a while.
        """
        guard = self._guard_of(experiment, behaviour)
        table, only = ("guard_cells", " AND c.guard = ?") if guard else ("cells", "")
        rows = self._all(
            "SELECT c.id, c.arm, c.generate, c.train, c.evaluate, c.seed, c.step, c.final, c.job, j.state, "
            f"j.done, j.total, s.n, s.missing, s.truncated, s.mean, s.sd, s.low, s.high FROM {table} c "
            "JOIN jobs j ON j.n = c.job LEFT JOIN behaviours b ON b.name = ? "
            "LEFT JOIN summaries s ON s.job = c.job AND s.behaviour = b.id WHERE c.experiment = ? "
            f"AND (? IS NULL OR c.evaluate = ?){only} ORDER BY c.id",
            (behaviour, experiment, evaluate, evaluate, *([guard] if guard else [])),
        )
        return [
            CellRow(*[*row[:7], bool(row[7]), *row[8:12], Summary(*row[12:]) if row[12] is not None else None])
            for row in rows
        ]

    def _guard_of(self, experiment: int, behaviour: str) -> str:
        """The guard that measures a behaviour; empty where it is the grid's."""
        rows = self._all(
            "SELECT json_extract(b.value, '$.guard') FROM experiments e, json_each(e.behaviours) b "
            "WHERE e.id = ? AND json_valid(e.behaviours) AND json_extract(b.value, '$.name') = ?",
            (experiment, behaviour),
        )
        return str(rows[0][0] or "") if rows else ""

    def sources(self, experiment: int) -> list[SourceRow]:
        """What the D of each grid row consists of."""
        rows = self._all(
            "SELECT arm, generate, train, seed, part, fraction, part_generate, part_train, job, first, last, reference "
            "FROM sources WHERE experiment = ? ORDER BY arm, generate, train, seed, part",
            (experiment,),
        )
        return [SourceRow(*row) for row in rows]

    # -- events ---------------------------------------------------------------------------------

    def events(self, *, after: int = 0, experiment: int | None = None, limit: int = 1000) -> list[Event]:
        """Events with an id above `after`, oldest first."""
        rows = self._all(
            "SELECT id, at, experiment, job, kind, data FROM events WHERE id > ? "
            "AND (? IS NULL OR experiment = ?) ORDER BY id LIMIT ?",
            (after, experiment, experiment, limit),
        )
        return [self._event(row) for row in rows]

    def preflights(self, experiment: int) -> list[Preflight]:
        """What the pilots of an experiment came to, oldest first."""
        query = "SELECT data FROM events WHERE experiment = ? AND kind = 'preflight' ORDER BY id"
        return [Preflight.from_json(json.loads(row[0])) for row in self._all(query, (experiment,))]

    def looks(self, experiment: int) -> list[Look]:
        """The looks at an experiment's contrasts by runs that stop once they are decided, oldest first."""
        query = "SELECT data FROM events WHERE experiment = ? AND kind = 'look' ORDER BY id"
        return [Look.from_json(json.loads(row[0])) for row in self._all(query, (experiment,))]

    def job_events(self, job: int, kind: str | None = None, *, after: int = 0) -> list[Event]:
        """A job's events with an id above `after`, oldest first."""
        rows = self._all(
            "SELECT id, at, experiment, job, kind, data FROM events WHERE job = ? AND id > ? "
            "AND (? IS NULL OR kind = ?) ORDER BY id",
            (job, after, kind, kind),
        )
        return [self._event(row) for row in rows]

    def last_loss_step(self, job: int) -> int:
        """The highest step of a job whose loss is on record; 0 where none is."""
        query = "SELECT MAX(json_extract(data, '$.step')) FROM events WHERE job = ? AND kind = 'loss'"
        return int(self._all(query, (job,))[0][0] or 0)

    def data_version(self) -> int:
        """A number that changes whenever another connection commits: cheap to poll."""
        return int(self._all("PRAGMA data_version")[0][0])

    def _job(self, row: tuple[Any, ...]) -> JobRow:
        what = f"what job '{row[3]}' ({row[1]}) is made of"
        inputs, parents, result = (self._json(text, what) for text in (row[13], row[14], row[15] or "{}"))
        return JobRow(*[*row[:13], inputs, tuple(parents), result, row[16]])

    def _event(self, row: tuple[Any, ...]) -> Event:
        return Event(*[*row[:5], self._json(row[5], f"event {row[0]}")])


def _behaviours(experiment: str, text: str) -> tuple[Behaviour, ...]:
    try:
        return tuple(Behaviour.from_json(item, place) for place, item in enumerate(json.loads(text)))
    except (ValueError, TypeError) as error:
        raise StoreError(f"the behaviours of experiment '{experiment}' cannot be read: {error}") from error
