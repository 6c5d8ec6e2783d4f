"""`make bench-engine`: every way that it measures runs, also the one to a GPU, as far as a CPU goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.engine import measure_engine

pytestmark = pytest.mark.slow


def test_every_way_is_measured_beside_its_baseline(tmp_path: Path) -> None:
    found = {one.name: one for one in measure_engine(tmp_path, small=True)}
    assert len(found) == 10
    assert all(one.value > 0 and one.baseline for one in found.values())
    for device in ("CPU, microworld", "CPU, random model"):
        limit = found[f"{device}: the products of a step of batch 2 alone"]
        for count in (1, 2):
            assert found[f"{device}: adapter-steps, batch 2, {count} in a pass"].value < limit.value
        assert found[f"{device}: tokens sampled from 2 adapters"].value > 0
