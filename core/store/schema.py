"""The store's tables, as numbered migrations."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from windowshift.core.store.failure import UnusableError

APPLICATION_ID = 0x77736866  # "wshf": tells a windowshift store from any other SQLite file

# One entry a version. Never edit an entry that was released: append one.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE experiments (
        id INTEGER PRIMARY KEY AUTOINCREMENT, -- a deleted one's number is never used again
        name TEXT NOT NULL UNIQUE,
        spec TEXT NOT NULL,             -- the YAML as it was given
        setting TEXT NOT NULL,
        model TEXT NOT NULL,            -- what people read
        fingerprint TEXT NOT NULL,
        rehearsal INTEGER NOT NULL,     -- 1: the embedded model, no evidence about LLMs
        backend TEXT NOT NULL,
        behaviours TEXT NOT NULL,       -- JSON list of {name, unit, scale, role}
        conditions TEXT NOT NULL,       -- JSON {generate, train, evaluate: [{name, arm, ...}]}
        channels TEXT NOT NULL,         -- JSON {generate, train, evaluate: user|system}
        data_size INTEGER NOT NULL,     -- examples in D
        state TEXT NOT NULL,            -- planned running paused done failed interrupted cancelled
        created REAL NOT NULL,
        started REAL,
        ended REAL,
        error TEXT
    );
    CREATE TABLE jobs (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,        -- hash of everything that determines the result
        kind TEXT NOT NULL,             -- generate train evaluate score filter extract sweep dose match iso_kl
        label TEXT NOT NULL,
        inputs TEXT NOT NULL,           -- JSON: what was hashed
        parents TEXT NOT NULL,          -- JSON list of job ids
        state TEXT NOT NULL,            -- pending running paused done failed cancelled
        done INTEGER NOT NULL DEFAULT 0,
        total INTEGER NOT NULL,
        loss REAL,
        rate REAL,                      -- tokens per second while training, rows per second otherwise
        usd REAL,
        result TEXT,                    -- JSON: adapter path, selected prompts, ...
        error TEXT,
        priority INTEGER NOT NULL DEFAULT 0,
        started REAL,
        ended REAL
    );
    CREATE TABLE experiment_jobs (
        experiment INTEGER NOT NULL,
        job INTEGER NOT NULL,
        position INTEGER NOT NULL,
        PRIMARY KEY (experiment, job)   -- leading columns: SQLite 3.40 checks others' NULLs wrongly
    ) WITHOUT ROWID;
    CREATE TABLE cells (
        id INTEGER PRIMARY KEY,
        experiment INTEGER NOT NULL,
        arm TEXT NOT NULL,              -- prefix steering
        generate TEXT NOT NULL,         -- '' for base cells
        train TEXT NOT NULL,            -- 'base' for base cells
        evaluate TEXT NOT NULL,
        seed INTEGER NOT NULL,
        step INTEGER NOT NULL,          -- examples seen in training; 0 for base cells
        final INTEGER NOT NULL,         -- 0: a checkpoint during training
        job INTEGER NOT NULL,           -- the job that holds the completions
        UNIQUE (experiment, arm, generate, train, evaluate, seed, step)
    );
    CREATE INDEX cells_by_job ON cells (job);
    CREATE TABLE sources (              -- what D consists of, one row a part of a mix
        experiment INTEGER NOT NULL,
        arm TEXT NOT NULL,
        generate TEXT NOT NULL,         -- label of the grid row, as in cells
        train TEXT NOT NULL,
        seed INTEGER NOT NULL,
        part INTEGER NOT NULL,
        fraction REAL NOT NULL,
        part_generate TEXT NOT NULL,    -- conditions of this part
        part_train TEXT NOT NULL,
        job INTEGER NOT NULL,           -- the generate job
        first INTEGER NOT NULL,         -- rows first .. last - 1 of that job
        last INTEGER NOT NULL,
        reference INTEGER,              -- the job that samples the base model under part_train, as in training
        PRIMARY KEY (experiment, arm, generate, train, seed, part)
    ) WITHOUT ROWID;
    CREATE TABLE prompts (
        id INTEGER PRIMARY KEY,
        digest TEXT NOT NULL UNIQUE,    -- hash of key and text
        key TEXT NOT NULL,              -- the prompt's id in its source
        text TEXT NOT NULL
    );
    CREATE TABLE prompt_sets (
        digest TEXT NOT NULL,           -- hash of the prompts' digests in order
        position INTEGER NOT NULL,
        prompt INTEGER NOT NULL,
        PRIMARY KEY (digest, position)
    ) WITHOUT ROWID;
    CREATE TABLE phrases (
        id INTEGER PRIMARY KEY,
        text TEXT NOT NULL UNIQUE
    );
    CREATE TABLE completions (
        job INTEGER NOT NULL,
        row INTEGER NOT NULL,
        prompt INTEGER NOT NULL,
        phrase INTEGER,                 -- NULL: no phrase
        finish TEXT NOT NULL,           -- stop length failed
        tokens INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        logprob REAL,
        error TEXT,
        text TEXT NOT NULL,
        PRIMARY KEY (job, row)          -- a cell is one range scan
    ) WITHOUT ROWID;
    CREATE TABLE behaviours (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    );
    CREATE TABLE scores (
        job INTEGER NOT NULL,
        behaviour INTEGER NOT NULL,
        row INTEGER NOT NULL,
        value REAL,                     -- NULL: missing, `reason` says why
        reason TEXT,
        PRIMARY KEY (job, behaviour, row)
    ) WITHOUT ROWID;
    CREATE TABLE summaries (
        job INTEGER NOT NULL,
        behaviour INTEGER NOT NULL,
        n INTEGER NOT NULL,             -- completions with a score
        missing INTEGER NOT NULL,       -- without one: failed completions and failed judgements
        truncated INTEGER NOT NULL,     -- of n, cut off at max_tokens
        mean REAL,
        sd REAL,
        low REAL,                       -- 95 % interval of the mean, bootstrap clustered by prompt
        high REAL,
        PRIMARY KEY (job, behaviour)
    ) WITHOUT ROWID;
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, -- a deleted one's number is never used again
        at REAL NOT NULL,
        experiment INTEGER,
        job INTEGER,
        kind TEXT NOT NULL,             -- state progress loss checkpoint cost message error
        data TEXT NOT NULL              -- JSON
    );
    CREATE INDEX events_by_job ON events (job, id);
    CREATE TABLE control (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        experiment INTEGER NOT NULL,
        job INTEGER,                    -- NULL: the whole experiment
        action TEXT NOT NULL,           -- pause resume cancel retry
        handled REAL
    );
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        experiment INTEGER NOT NULL,
        pid INTEGER NOT NULL,
        host TEXT NOT NULL,
        started REAL NOT NULL,
        heartbeat REAL NOT NULL,
        ended REAL
    );
    """,
    """
    ALTER TABLE prompts ADD COLUMN payload TEXT; -- JSON object beside the text; NULL: none
    ALTER TABLE prompts ADD COLUMN turns TEXT;   -- JSON list of [role, content] before the text; NULL: none
    """,
    """
    ALTER TABLE completions ADD COLUMN reasoning TEXT; -- NULL: none, empty: not shown
    ALTER TABLE completions ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;
    """,
    """
    -- Behaviours declare a scale and a role in place of "compare".
    UPDATE experiments SET behaviours = (
        SELECT json_group_array(json_object(
            'name', json_extract(value, '$.name'), 'unit', json_extract(value, '$.unit'),
            'scale', json_object('kind', json_extract(value, '$.compare')),
            'role', CASE key WHEN 0 THEN 'primary' ELSE 'extra' END))
        FROM json_each(experiments.behaviours)
    ) WHERE json_valid(behaviours) AND json_array_length(behaviours)
        AND json_extract(behaviours, '$[0].compare') IS NOT NULL;
    """,
    """
    ALTER TABLE scores ADD COLUMN evidence TEXT; -- JSON, what a person may want to see of how it was scored
    """,
    """
    CREATE TABLE checksums (
        owner INTEGER NOT NULL,         -- a job's n; of grid and experiment, the experiment's id
        part TEXT NOT NULL,             -- job, completions, scores of NAME, summary of NAME, grid, experiment
        sum TEXT NOT NULL,
        PRIMARY KEY (owner, part)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE scores ADD COLUMN weight INTEGER; -- how many things the value is a mean of; NULL: one
    """,
    """
    -- Intervals of means are others than the percentiles that were stored: the next run works them out anew.
    UPDATE summaries SET low = NULL, high = NULL;
    """,
    """
    CREATE TABLE guard_cells (          -- as cells, of guards: other prompts, never among the grid's
        id INTEGER PRIMARY KEY,
        experiment INTEGER NOT NULL,
        guard TEXT NOT NULL,            -- the guard's name in the spec
        arm TEXT NOT NULL,
        generate TEXT NOT NULL,
        train TEXT NOT NULL,
        evaluate TEXT NOT NULL,
        seed INTEGER NOT NULL,
        step INTEGER NOT NULL,
        final INTEGER NOT NULL,
        job INTEGER NOT NULL,
        UNIQUE (experiment, guard, arm, generate, train, evaluate, seed, step)
    );
    CREATE INDEX guard_cells_by_job ON guard_cells (job);
    """,
    """
    CREATE TABLE projections (          -- of residual streams onto vectors, a line a prompt: jobs `project`
        job INTEGER NOT NULL,
        row INTEGER NOT NULL,           -- the prompt's place, as in the job that samples it
        prompt INTEGER NOT NULL,
        tokens INTEGER NOT NULL,        -- averaged over
        along TEXT NOT NULL,            -- JSON, by vector of the job's inputs, then layer; null: no direction there
        rms TEXT NOT NULL,              -- JSON by layer: root mean square of the norm of the residual stream
        problem TEXT,                   -- why nothing was read; NULL: it was
        PRIMARY KEY (job, row)
    ) WITHOUT ROWID;
    CREATE TABLE gradients (            -- of the loss of examples of D on the residual stream: jobs `gradient`
        job INTEGER NOT NULL,
        row INTEGER NOT NULL,           -- the example's place in the order of training
        tokens INTEGER NOT NULL,        -- of its completion
        along REAL,                     -- descent along the unit vector, minus the product with the gradient
        random TEXT NOT NULL,           -- JSON: the same along random unit directions
        products TEXT NOT NULL,         -- JSON: products with the gradients of rows 0 .. row; null: unread
        problem TEXT,                   -- why there is none; NULL: there is
        PRIMARY KEY (job, row)
    ) WITHOUT ROWID;
    CREATE TABLE watched (              -- texts that the spec watches while a job trains
        job INTEGER NOT NULL,
        step INTEGER NOT NULL,          -- examples seen
        row INTEGER NOT NULL,           -- the text's place in the job's inputs
        logprob REAL,                   -- in nats, summed over the tokens
        tokens INTEGER NOT NULL,
        problem TEXT,                   -- why it could not be read; NULL: it was
        PRIMARY KEY (job, step, row)
    ) WITHOUT ROWID;
    """,
)

VERSION = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a store to `VERSION`, each migration in a transaction of its own.

    Raises:
        StoreError: the store was written by a newer windowshift, or is not a windowshift store.
        sqlite3.Error: a migration failed; the store keeps the version before it.
    """
    while check(connection) < VERSION:
        # Not executescript: it commits what is open, and the version must be read inside the transaction,
        # because another process may migrate at the same time.
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = check(connection)
            if version < VERSION:
                for statement in _statements(MIGRATIONS[version]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={version + 1}")
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def check(connection: sqlite3.Connection) -> int:
    """Return the store's version; 0 for an empty file.

    Raises:
        StoreError: as `migrate`.
    """
    # One snapshot: another process may be creating the store right now.
    own = not connection.in_transaction
    if own:
        connection.execute("BEGIN")
    try:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
    finally:
        if own and connection.in_transaction:
            connection.execute("COMMIT")
    if tables and application != APPLICATION_ID:
        raise UnusableError("it is an SQLite file of another program; choose another workspace folder")
    if version > VERSION:
        raise UnusableError(
            f"it was written by a newer windowshift (store version {version}, this one reads up to "
            f"{VERSION}); upgrade windowshift to open it"
        )
    return int(version)


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for piece in script.split(";")[:-1]:
        statement += f"{piece};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
