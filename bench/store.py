"""The store under load: inserting in batches, and opening one cell of a million completions."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench.measurement import Measurement, median, milliseconds, percentile
from windowshift.core.contract.prompts import Prompt, set_digest
from windowshift.core.contract.records import Summary
from windowshift.core.store.connection import to_json
from windowshift.core.store.reader import Reader
from windowshift.core.store.result_writer import ScoreRow
from windowshift.core.store.writer import Writer

BEHAVIOURS = ("length_chars", "length_words", "length_tokens")
CELL_ROWS = 500
WORDS = ("the", "warm", "glacier", "slowly", "carries", "small", "stones", "to", "a", "quiet", "valley", "of", "honey")

Batch = tuple[list[tuple[Any, ...]], dict[int, list[ScoreRow]]]


def texts(count: int, seed: int = 0) -> list[str]:
    """Return `count` texts of about 300 characters, cut from one long one: making them must cost little."""
    rng = random.Random(seed)
    long = " ".join(rng.choice(WORDS) for _ in range(20_000))
    starts = [rng.randrange(len(long) - 500) for _ in range(count)]
    return [long[start : start + 150 + start % 300] for start in starts]


def fill(writer: Writer, cells: int, rows: int = CELL_ROWS, behaviours: tuple[str, ...] = BEHAVIOURS[:1]) -> list[int]:
    """Write one finished experiment of `cells` cells with `rows` completions each; return the cells' jobs."""
    experiment = writer.put_experiment(
        {
            "name": "bench",
            "spec": "name: bench\n",
            "setting": "length",
            "model": "bench",
            "fingerprint": "0",
            "rehearsal": 1,
            "backend": "local",
            "behaviours": to_json([{"name": name, "unit": "chars", "scale": {"kind": "ratio"}} for name in behaviours]),
            "conditions": to_json({"generate": [], "train": [], "evaluate": []}),
            "channels": to_json({"generate": "user", "train": "user", "evaluate": "user"}),
            "data_size": rows,
        }
    )
    side = max(1, round(cells**0.5))
    names = [f"cell{n:06d}" for n in range(cells)]
    numbers = writer.put_jobs(experiment, [(name, "evaluate", name, "{}", "[]", rows) for name in names])
    writer.put_grid(
        experiment,
        [
            ("prefix", "data", f"train{n // side}", f"eval{n % side}", 0, rows, 1, numbers[name])
            for n, name in enumerate(names)
        ],
        [],
    )
    prompts = [Prompt(f"p{row}", f"What is {WORDS[row % len(WORDS)]} number {row}?") for row in range(rows)]
    ids = writer.put_prompts(set_digest(prompts), prompts)
    phrases = [writer.phrase(f"phrase {n}:") for n in range(4)]
    pool = texts(20_000)
    for start in range(0, cells, 10):
        with writer.batch():
            for n in range(start, min(cells, start + 10)):
                job = numbers[names[n]]
                chosen = [pool[(n * 7919 + row * 31) % len(pool)] for row in range(rows)]
                writer.add_completions(
                    (job, row, ids[row], phrases[row % 4], "stop", len(text) // 5, 20, None, None, text)
                    for row, text in enumerate(chosen)
                )
                for name in behaviours:
                    writer.add_scores(job, ((row, name, float(len(text)), None) for row, text in enumerate(chosen)))
                    mean = sum(map(len, chosen)) / rows
                    writer.put_summary(job, name, Summary(rows, 0, 0, mean, 80.0, mean - 7, mean + 7))
                writer.set_job(job, "done", experiment=experiment)
    writer.set_experiment(experiment, "done")
    return [numbers[name] for name in names]


def measure_inserts(folder: Path, runs: int = 5, batches: int = 60, size: int = 1000) -> Iterator[Measurement]:
    """Insert batches of `size` completions, one transaction each, without and with three scores a completion."""
    pool = texts(5000)
    for scored in (False, True):
        made = list(_batches(pool, batches, size, scored))
        ours, bare, cpu = [], [], []
        for run in range(runs):  # one after the other, so that a busy machine slows both
            bare.append(_insert_bare(folder / f"bare-{scored}-{run}.db", made))
            start = time.process_time()
            ours.append(_insert(folder / f"inserts-{scored}-{run}", made))
            cpu.append(batches * size / (time.process_time() - start))
        yield Measurement(
            f"insert completions, batches of {size:,}, {'3 scores each' if scored else 'no scores'}",
            median(ours),
            "rows/s",
            "higher",
            50_000,
            median(bare),
            "sqlite3 executemany into bare tables without index",
            f"{runs} runs of {batches} batches; {median(cpu):,.0f} rows a second of CPU time",
        )


def _batches(pool: list[str], batches: int, size: int, scored: bool) -> Iterator[Batch]:
    for batch in range(batches):
        rows: list[tuple[Any, ...]] = []
        scores: dict[int, list[ScoreRow]] = {}
        for at in range(0, size, CELL_ROWS):
            job = 1 + batch * (size // CELL_ROWS) + at // CELL_ROWS
            chosen = [(row, pool[(batch * size + at + row) % len(pool)]) for row in range(CELL_ROWS)]
            rows += [(job, row, row + 1, row % 4 + 1, "stop", 60, 20, None, None, text) for row, text in chosen]
            if scored:
                scores[job] = [(row, name, float(len(text)), None) for row, text in chosen for name in BEHAVIOURS]
        yield rows, scores


def _insert(workspace: Path, batches: list[Batch]) -> float:
    writer = Writer(workspace)
    start = time.perf_counter()
    for rows, scores in batches:
        with writer.batch():
            writer.add_completions(rows)
            for job, found in scores.items():
                writer.add_scores(job, found)
    seconds = time.perf_counter() - start
    writer.close()
    return sum(len(rows) for rows, _ in batches) / seconds


def _insert_bare(path: Path, batches: list[Batch]) -> float:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(
        "CREATE TABLE completions (job, row, prompt, phrase, finish, tokens, prompt_tokens, logprob, error, text)"
    )
    connection.execute("CREATE TABLE scores (row, behaviour, value, reason)")
    start = time.perf_counter()
    for rows, scores in batches:
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO completions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        for found in scores.values():
            connection.executemany("INSERT INTO scores VALUES (?, ?, ?, ?)", found)
        connection.execute("COMMIT")
    seconds = time.perf_counter() - start
    connection.close()
    return sum(len(rows) for rows, _ in batches) / seconds


def _fetch(connection: sqlite3.Connection, query: str, job: int) -> list[Any]:
    return connection.execute(query, (job,)).fetchall()


def measure_opening(folder: Path, cells: int = 2000, chosen: int = 100) -> Iterator[Measurement]:
    """Open random cells, each once, out of a generated store of `cells` times 500 completions."""
    workspace = folder / "million"
    writer = Writer(workspace)
    start = time.perf_counter()
    jobs = fill(writer, cells)
    writer.close()
    made = time.perf_counter() - start
    picked = random.Random(0).sample(jobs, min(chosen, len(jobs)))
    reader, plain = Reader(workspace), Reader(workspace)
    query = "SELECT * FROM completions WHERE job = ? ORDER BY row"
    ours: list[float] = []
    bare: list[float] = []
    for turn, job in enumerate(picked):
        runs: list[tuple[list[float], Callable[[], object]]] = [
            (ours, partial(reader.completions, job, BEHAVIOURS[0])),
            (bare, partial(_fetch, plain.connection, query, job)),
        ]
        for times, run in runs if turn % 2 else runs[::-1]:  # neither always finds the pages warm
            times.append(milliseconds(run))
    started = milliseconds(lambda: Reader(workspace).experiments())
    grid = milliseconds(lambda: reader.cells(1, BEHAVIOURS[0]))
    reader.close()
    plain.close()
    size = f"{cells * CELL_ROWS:,} completions in {cells:,} cells"
    for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0)):
        yield Measurement(
            f"open one cell, {name}",
            percentile(ours, share),
            "ms",
            target=20,
            baseline=percentile(bare, share),
            against="bare SELECT of the same rows",
            note=f"{size}, {len(picked)} random cells",
        )
    yield Measurement("open the store and list experiments", started, "ms", note=size)
    yield Measurement("read the whole grid with summaries", grid, "ms", note=size)
    yield Measurement(
        "write that store",
        cells * CELL_ROWS / made,
        "rows/s",
        "higher",
        note=f"texts, 1 score, summaries and states too: {made:.1f} s",
    )
