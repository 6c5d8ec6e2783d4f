"""One writer, many readers, real processes: nobody waits, nobody sees half a batch, kill -9 leaves whole ones."""

from __future__ import annotations

import random
import signal
from functools import partial
from pathlib import Path

from tests.processes import line, python, wait_until
from tests.store_rows import put_experiment
from windowshift.core.contract.prompts import Prompt
from windowshift.core.store.integrity import check_store
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

PER_BATCH = 50

# A batch is 50 completions with scores, the progress and an event: they must be seen together or not at all.
WRITE = """
import sys, time
from pathlib import Path
from windowshift.core.store.writer import Writer
workspace, batches = Path(sys.argv[1]), int(sys.argv[2])
writer = Writer(workspace)
done = writer.connection.execute("SELECT count(*) FROM completions").fetchone()[0]
slowest = 0.0
print("ready", flush=True)
for start in range(done, done + 50 * batches, 50):
    began = time.perf_counter()
    with writer.batch():
        writer.add_completions(
            (1, row, 1, None, "stop", 1, 1, None, None, "x" * 300) for row in range(start, start + 50)
        )
        writer.add_scores(1, [(row, "length_chars", 300.0, None) for row in range(start, start + 50)])
        writer.progress(1, start + 50)
        writer.event("progress", {"done": start + 50}, job=1)
    slowest = max(slowest, time.perf_counter() - began)
print(slowest, flush=True)
"""

READ = """
import sys
from pathlib import Path
from windowshift.core.store.reader import Reader
reader = Reader(Path(sys.argv[1]))
wanted, seen, looks = int(sys.argv[2]), -1, 0
print("ready", flush=True)
while seen < wanted:
    with reader.snapshot():
        rows = reader.scores(1, "length_chars")
        done = reader.job(1).done
        events = reader.job_events(1, "progress")
    assert len(rows) % 50 == 0, f"half a batch: {len(rows)} rows"
    assert all(value == 300.0 for _, _, value, _ in rows), "completions without scores"
    assert len(rows) == done == 50 * len(events), (len(rows), done, len(events))
    alone = len(reader.rows_done(1))
    assert alone % 50 == 0 and alone >= len(rows) >= seen, (alone, len(rows), seen)
    seen, looks = len(rows), looks + 1
print(looks, flush=True)
"""


def prepare(workspace: Path) -> None:
    writer = Writer(workspace)
    put_experiment(writer)
    writer.put_prompts("p", [Prompt("a", "b")])
    writer.close()


def test_readers_see_whole_batches_and_stop_nobody(tmp_path: Path) -> None:
    prepare(tmp_path)
    batches = 120
    with python(READ, tmp_path, PER_BATCH * batches) as one, python(READ, tmp_path, PER_BATCH * batches) as two:
        assert line(one) == line(two) == "ready"
        with python(WRITE, tmp_path, batches) as writer:
            assert line(writer) == "ready"
            slowest = float(line(writer))
        looks = [int(line(reader)) for reader in (one, two)]
    assert min(looks) > 1, "the readers looked while the writer wrote"
    assert slowest < 9.0, "a blocked writer waits for its ten seconds, or fails"
    assert check_store(tmp_path) == []


def test_a_reader_in_the_middle_of_its_rows_stops_nobody(tmp_path: Path) -> None:
    prepare(tmp_path)
    with python(WRITE, tmp_path, 4) as writer:
        assert line(writer) == "ready"
        line(writer)
    reader = Reader(tmp_path)
    rows = reader.iter_completions(1, "length_chars")
    assert next(rows).row == 0
    with python(WRITE, tmp_path, 20) as writer:
        assert line(writer) == "ready"
        assert float(line(writer)) < 9.0
    assert len(list(rows)) == 4 * PER_BATCH - 1, "it reads on in the state that it began with"
    assert len(reader.rows_done(1)) == 24 * PER_BATCH
    reader.close()


def reached(reader: Reader, rows: int) -> bool:
    return reader.job(1).done >= rows


def test_kill_in_the_middle_of_batches_leaves_whole_ones(tmp_path: Path) -> None:
    prepare(tmp_path)
    rng = random.Random(0)
    reader = Reader(tmp_path)  # open through all of it, as a screen is
    before = 0
    for _ in range(10):
        wanted = before + PER_BATCH * rng.randint(1, 12)
        with python(WRITE, tmp_path, 100_000) as writer:
            assert line(writer) == "ready"
            wait_until(partial(reached, reader, wanted), "batches")
            for _ in range(rng.randrange(2000)):  # somewhere inside a batch
                pass
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        rows = reader.scores(1, "length_chars")
        assert len(rows) % PER_BATCH == 0
        assert len(rows) >= wanted, "what was seen once stays"
        assert [row for row, *_ in rows] == list(range(len(rows)))
        assert {value for _, _, value, _ in rows} == {300.0}
        assert reader.job(1).done == len(rows) == PER_BATCH * len(reader.job_events(1))
        assert reader.data_version() > 0
        before = len(rows)
    reader.close()
    assert check_store(tmp_path) == []


def test_two_processes_may_open_a_new_store_at_once(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from windowshift.core.store.writer import Writer
sys.stdin.readline()
for turn in range(10):
    writer = Writer(Path(sys.argv[1]) / str(turn))
    writer.event("message", {"text": "here"})
    writer.close()
print("fine", flush=True)
"""
    with python(code, tmp_path) as one, python(code, tmp_path) as two:
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert line(one) == line(two) == "fine"
    for turn in range(10):
        assert len(Reader(tmp_path / str(turn)).events()) == 2
