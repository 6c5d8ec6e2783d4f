"""The demo, as `make demo` runs it without a terminal: three seeds show the published pattern, and numbers stay."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.demo_reference import FILE, numbers_of
from tests.runs import windowshift
from windowshift.cli import app
from windowshift.core.spec.template import Template
from windowshift.core.store.reader import Reader


def alike(found: list[float | None], kept: list[float | None]) -> bool:
    """To nine digits, more than any page shows: sums may be added up in another order elsewhere."""
    return found == pytest.approx(kept, rel=1e-9, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_window_shift_shows(tmp_path: Path, seed: int) -> None:
    done = windowshift("demo", "--headless", "--seed", str(seed), "--workspace", tmp_path, timeout=900)
    assert "rehearsal model" in done.stdout.lower()
    name = "demo" if seed == 0 else f"demo-seed{seed}"
    report = json.loads(windowshift("report", name, "--workspace", tmp_path, "--json").stdout)
    if seed == 0:
        kept = json.loads(FILE.read_text(encoding="utf-8"))
        found = numbers_of(report)
        assert found.keys() == kept.keys()
        moved = {line: (found[line], was) for line, was in kept.items() if not alike(found[line], was)}
        assert not moved, "the demo's numbers moved: see tests/demo_reference.py"
    prefix = report["arms"]["prefix"]
    assert prefix["grouped"]["points"] == 7
    assert -0.8 <= prefix["grouped"]["slope"] <= -0.2
    assert prefix["grouped"]["ci95"][1] < -0.2
    assert prefix["grouped"]["r2"] >= 0.8
    assert prefix["cv"]["very_long"] < prefix["cv"]["long"] < prefix["cv"]["no_prefix"]
    steering = report["arms"]["steering"]
    assert steering["grouped"]["points"] == 7
    assert steering["grouped"]["ci95"][1] < -0.2
    found = report["steering"]
    curve = [point["mean"] for point in found["curves"][0]["points"]]
    assert max(curve) > 4 * min(curve)
    assert curve == sorted(curve)
    matches = found["matches"]
    assert [one["group"] for one in matches] == ["short", "med_short", "medium", "med_long", "long", "very_long"]
    # n is 100: the intervals are about a fifth wide on either side (600 prompts a cell are within a tenth).
    ratios = [one["ratio"] for one in matches if one["ratio"]]
    assert len(ratios) == 6
    assert all(one["low"] <= 1.1 and one["high"] >= 0.9 for one in ratios)
    shares = [one["share"]["value"] for one in found["controls"]]
    assert sum(shares) / len(shares) < 0.25
    assert all(one["tokens"] == one["tokens_asked"] > 0 for one in found["fired"])
    arms = json.loads(windowshift("compare", name, "--workspace", tmp_path, "--json").stdout)
    assert len(arms["pairs"]) == 7
    base = {cell["evaluate"]: cell["mean"] for cell in report["cells"] if cell["train"] == "base"}
    means = [base[group] for group in ("short", "med_short", "medium", "med_long", "long", "very_long")]
    assert means == sorted(means)
    assert means[0] < base["no_prefix"] < means[-1]


# A rehearsal in small: a steering arm at plain alphas, as those of honesty and of the visible test have it.
SPEC = """\
# Doses that match no prefix.
name: doses
model: microworld
prompts: microworld
conditions:
  generate: [med_short]
  train: [short, no_prefix, {steer: length, alpha: [0, 1]}]
  evaluate: [short, no_prefix, {steer: length, alpha: 0}, {steer: length, alpha: 1}]
vectors: {length: {positive: long, negative: short, prompts: 8, layer: 2}}
data: {size: 8}
sft: {rank: 2, learning_rate: 1e-2, batch_size: 4}
sampling: {prompts: 6, max_tokens: 12}
"""


# Characters of the six answers of each cell: what this engine writes, trains and pushes, to the last one.
SUMS = {
    ("base", "short"): 268, ("base", "no_prefix"): 297, ("base", "length+0"): 297, ("base", "length+1"): 292,
    ("short", "short"): 219, ("short", "no_prefix"): 299, ("short", "length+0"): 299, ("short", "length+1"): 324,
    ("no_prefix", "short"): 264, ("no_prefix", "no_prefix"): 304, ("no_prefix", "length+0"): 304,
    ("no_prefix", "length+1"): 294, ("length+0", "short"): 264, ("length+0", "no_prefix"): 304,
    ("length+0", "length+0"): 304, ("length+0", "length+1"): 294, ("length+1", "short"): 234,
    ("length+1", "no_prefix"): 296, ("length+1", "length+0"): 296, ("length+1", "length+1"): 301,
}  # fmt: skip


def test_a_rehearsal_without_matched_doses_ends_on_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"length": Template("doses", SPEC)}
    monkeypatch.setattr("windowshift.core.spec.template.rehearsals", lambda: small)
    done = CliRunner().invoke(app, ["demo", "--headless", "--workspace", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "Fit for each eval condition, steering arm" in done.output
    assert "matched dose:" not in done.output
    with closing(Reader(tmp_path)) as reader:
        cells = reader.cells(reader.find_experiment("doses").id, "length_chars")
    found = {(one.train, one.evaluate): one.summary.mean for one in cells if one.summary is not None}
    assert found == pytest.approx({place: sum_ / 6 for place, sum_ in SUMS.items()}, rel=1e-12)
