"""Experiments side by side: every arm that one of them has, and matched doses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.generated_store import generate_store
from windowshift.core.contract.errors import SpecError
from windowshift.core.report.page import Heading, Table
from windowshift.core.report.paired_experiments import beside_blocks, beside_json
from windowshift.core.report.report import Report, report


def made(folder: Path, name: str, **more: Any) -> Report:
    generate_store(folder / name, name=name, prompts=12, data_size=20, **more).close()
    return report(folder / name, name, resamples=200)


def test_every_arm_has_its_measures_and_cells(tmp_path: Path) -> None:
    there, here = made(tmp_path, "there", steering=True, seed=1), made(tmp_path, "here", steering=True)
    found = json.loads(json.dumps(beside_json([there, here]), allow_nan=False))
    for name in ("prefix", "steering"):
        measures = {row["measure"]: row["values"] for row in found["measures"] if row["arm"] == name}
        for column, one in enumerate((there, here)):
            whole = one.measures.arms[name].whole
            assert whole.grouped.slope is not None
            assert measures["grouped slope"][column]["value"] == whole.grouped.slope.value
            assert measures["grouped slope"][column]["n"] == whole.grouped.slope.n
        own = [spread.train for spread in here.measures.arms[name].whole.spreads]
        crossed = [spread.train for spread in here.measures.arms[name].whole.cross_spreads]
        assert own
        assert [f"CV {train}" for train in own] + [f"CV {train}, crossed" for train in crossed] == list(measures)[2:-2]
    cells = {(row["arm"], row["cell"]): row["values"] for row in found["cells"]}
    for key, cell in ((cell.key, cell) for arm in there.measures.arms.values() for cell in arm.cells):
        if key.train == "length=short" and cell.mean is not None:
            label = f"{key.generate}: {key.train} → {key.evaluate}"
            assert cells["steering", label][0] == {
                "value": cell.mean.value, "ci95": [cell.mean.low, cell.mean.high], "n": cell.mean.n
            }  # fmt: skip
    doses = {row["dose"]: row["values"] for row in found["doses"]}
    assert len(doses) == len(here.steering.matches) > 0
    reached = [match.alpha is not None for match in here.steering.matches]
    assert [values[1] is not None for values in doses.values()] == reached
    assert set(reached) == {True, False}  # out of reach is missing, with its name


def test_what_one_has_not_got_is_missing(tmp_path: Path) -> None:
    both, prefix = made(tmp_path, "both", steering=True), made(tmp_path, "prefix")
    found = beside_json([both, prefix])
    assert all(row["values"][1] is None for row in found["measures"] if row["arm"] == "steering")
    shared = [row for row in found["cells"] if row["arm"] == "prefix" and "length" not in row["cell"]]
    assert shared
    assert all(None not in row["values"] for row in shared)
    assert all(row["values"][1] is None for row in found["doses"])
    heads = [block.text for block in beside_blocks([both, prefix]) if isinstance(block, Heading)]
    assert "Measures (length_chars), steering arm" in heads


def test_one_arm_alone_is_not_named(tmp_path: Path) -> None:
    blocks = beside_blocks([made(tmp_path, "one"), made(tmp_path, "two")])
    heads = [block.text for block in blocks if isinstance(block, Heading)]
    assert heads == ["one beside two", "Measures (length_chars)", "Mean length_chars"]
    assert sum(isinstance(block, Table) for block in blocks) == 2


def test_different_behaviours_are_refused(tmp_path: Path) -> None:
    one = made(tmp_path, "one")
    words = report(tmp_path / "one", "one", "length_words", resamples=200)
    with pytest.raises(SpecError, match="measure different behaviours"):
        beside_json([one, words])
