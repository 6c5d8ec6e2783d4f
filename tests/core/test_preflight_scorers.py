"""A preflight with scorers that score beside the run, and with a judge: first rows are scored, none of them twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.core.test_preflight import GRID, PREFLIGHT, Answering, ran
from windowshift.core.contract.generation import Model, Sampling
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import BatchScorer, ModelScorer, Question, Sample, Score, Scorer
from windowshift.core.store.reader import Reader


@dataclass
class Beside:
    """Scores in threads, by length; counts what it scored."""

    scored: list[str] = field(default_factory=list)
    name: str = "beside"
    version: int = 1
    batch_size: int = 4
    workers: int = 1
    timeout: float | None = None
    process: bool = False

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        return (Behaviour("beside", "characters", Scale.ratio(), "primary"),)

    def identity(self) -> dict[str, object]:
        return {"scorer": self.name, "version": self.version}

    def score_batch(self, samples: Sequence[Sample]) -> list[Mapping[str, Score]]:
        self.scored += [sample.completion.text for sample in samples]
        return [{"beside": Score(float(len(sample.completion.text)))} for sample in samples]


@dataclass(frozen=True)
class Asking:
    """Asks the model itself how long an answer is."""

    name: str = "asked"
    version: int = 1
    backend: str = "local"

    @property
    def asked(self) -> Model:
        return Model("scripted")

    @property
    def sampling(self) -> Sampling:
        return Sampling(max_tokens=4)

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        return (Behaviour("asked", "characters", Scale.ratio(), "extra"),)

    def identity(self) -> dict[str, object]:
        return {
            "scorer": self.name, "version": self.version, "backend": self.backend,
            "model": {"base": "scripted", "revision": None, "fingerprint": "scripted"},
            "sampling": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 4},
        }  # fmt: skip

    def ask(self, sample: Sample) -> Question | Mapping[str, Score]:
        return Question(f"How long is this? {sample.completion.text}")

    def read(self, sample: Sample, answer: object) -> Mapping[str, Score]:
        return {"asked": Score(float(len(sample.completion.text)))}


@pytest.mark.parametrize("kind", ["beside", "asked"])
def test_first_rows_are_scored_and_none_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    beside = Beside()
    scorers: tuple[Scorer, ...] = (beside,) if kind == "beside" else (beside, Asking())
    assert isinstance(beside, BatchScorer)
    assert kind == "beside" or isinstance(scorers[-1], ModelScorer)
    backend = Answering(alike=True)
    stopped = ran(monkeypatch, tmp_path, backend, scorers=scorers)
    assert stopped.exit_code == 3
    assert stopped.preflight is not None
    assert [gate.name for gate in stopped.preflight.failed] == ["conditions"]
    pilot = 8 * 8  # eight jobs of eight rows
    assert len(beside.scored) == pilot
    asked = [key for _, keys in backend.calls for key in keys]
    assert len(asked) == pilot + (3 if kind == "asked" else 0)  # answers of three lengths: equal questions are one
    done = ran(monkeypatch, tmp_path, backend, scorers=scorers, anyway=True)
    assert (done.state, done.exit_code) == ("done", 0)
    asked = [key for _, keys in backend.calls for key in keys if ":" in key]
    assert len(asked) == len(set(asked))
    cells = 3 * 16 * 3 * 3  # seeds, prompts, rows with the base model, eval conditions
    assert len(beside.scored) == cells + 3 * 20
    with closing(Reader(tmp_path)) as reader:
        one = reader.find_experiment("piloted")
        for cell in reader.cells(one.id, kind):
            assert cell.state == "done"
            assert cell.summary is not None
            assert (cell.summary.n, cell.summary.missing) == (16, 0)


def test_the_pilot_of_what_was_run_without_one_is_there_already(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert ran(monkeypatch, tmp_path, Answering(), GRID).exit_code == 0
    again = Answering()
    found = ran(monkeypatch, tmp_path, again, GRID + PREFLIGHT)
    assert found.exit_code == 0
    assert found.preflight is not None
    assert not found.preflight.failed
    assert again.calls == []
