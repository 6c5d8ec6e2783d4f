"""The demo, as `make demo` runs it without a terminal: three seeds show the published pattern."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import windowshift


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_window_shift_shows(tmp_path: Path, seed: int) -> None:
    done = windowshift("demo", "--headless", "--seed", str(seed), "--workspace", tmp_path, timeout=900)
    assert "rehearsal model" in done.stdout.lower()
    name = "demo" if seed == 0 else f"demo-seed{seed}"
    report = json.loads(windowshift("report", name, "--workspace", tmp_path, "--json").stdout)
    prefix = report["arms"]["prefix"]
    assert prefix["grouped"]["points"] == 7
    assert -0.8 <= prefix["grouped"]["slope"] <= -0.2
    assert prefix["grouped"]["ci95"][1] < -0.2
    assert prefix["grouped"]["r2"] >= 0.8
    assert prefix["cv"]["very_long"] < prefix["cv"]["long"] < prefix["cv"]["no_prefix"]
    base = {cell["evaluate"]: cell["mean"] for cell in report["cells"] if cell["train"] == "base"}
    means = [base[group] for group in ("short", "med_short", "medium", "med_long", "long", "very_long")]
    assert means == sorted(means)
    assert means[0] < base["no_prefix"] < means[-1]
