"""Scales: round trips, bounds, what is written, and that a value lies inside its interval."""

from __future__ import annotations

import json
import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.generated_store import generate_store
from windowshift.core.contract.records import Behaviour, primary_of
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import Score
from windowshift.core.contract.stats import Estimate
from windowshift.core.run.scoring import checked
from windowshift.core.store import result_writer, schema, writer
from windowshift.core.store.connection import store_path
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

SCALES = [Scale.ratio(), Scale.difference(), Scale.rate()]
COUNTS = st.integers(1, 5000)


def array(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(values, dtype=np.float64)


@given(st.lists(st.floats(1e-6, 1e9), min_size=1), COUNTS)
def test_ratios_come_back(means: list[float], n: int) -> None:
    scale = Scale.ratio()
    assert scale.back(scale.forward(array(*means), n), n) == pytest.approx(means, rel=1e-9)


@given(st.integers(0, 500), st.integers(1, 500))
def test_rates_come_back_from_their_log_odds_at_the_bounds_too(hits: int, n: int) -> None:
    scale = Scale.rate()
    mean = array(min(hits, n) / n)
    linked = scale.forward(mean, n)
    assert np.isfinite(linked).all()
    assert scale.back(linked, n) == pytest.approx(mean, abs=1e-12)


@given(st.floats(-1e3, 1e3), COUNTS)
def test_what_comes_back_is_a_rate(linked: float, n: int) -> None:
    assert 0 <= float(Scale.rate().back(array(linked), n)[0]) <= 1


def test_what_has_no_place_on_a_scale_is_missing() -> None:
    assert np.isnan(Scale.ratio().forward(array(0.0, -1.0), 3)).all()
    assert np.isnan(Scale.rate().forward(array(-0.1, 1.1, np.nan), 3)).all()
    assert np.isnan(Scale.rate().forward(array(0.5), 0)).all()
    assert np.isnan(Scale.ratio().change(array(1.0), array(0.0))).all()
    assert Scale.ratio().effect_of(0.0, 1.0) is None
    assert Scale.ratio().spread_of([0.0, 0.0]) is None
    assert math.isnan(Scale.ratio().distance(0.0, 1.0, 3, 3))


@given(st.floats(0.01, 1), st.floats(0.01, 1), COUNTS)
def test_with_and_without_arrays_is_the_same(own: float, base: float, n: int) -> None:
    for scale in SCALES:
        assert scale.effect(array(own), n, array(base), n)[0] == pytest.approx(scale.effect_of(own, base))
        assert scale.spread(array(own, base)) == pytest.approx(scale.spread_of([own, base]), abs=1e-12)
        factor = math.log(2) if scale.kind == "ratio" else 1.0
        linked = scale.linked(array(own), n, array(base), n)[0]
        assert scale.distance(base, own, n, n) == pytest.approx(factor * linked, abs=1e-9)


def test_a_score_outside_its_bounds_is_no_score() -> None:
    assert Scale.rate().problem(0.0) is Scale.rate().problem(1.0) is None
    assert Scale.rate().problem(1.5) == "the score 1.5 lies outside 0 … 1"
    assert Scale.ratio().problem(-1.0) == "the score -1 lies outside 0 … ∞"
    assert Scale.difference().problem(float("inf")) == "inf is not a score"
    assert Scale.difference(low=0, high=100).span == 25


def test_what_truncation_means() -> None:
    kept, missing = Scale.rate(), Scale.rate(truncation="missing")
    assert [kept.counted(1.0, finish) for finish in ("stop", "length", "failed")] == [1.0, 1.0, None]
    assert [missing.counted(1.0, finish) for finish in ("stop", "length", "failed")] == [1.0, None, None]


def test_numbers_are_written_with_their_interval_and_unit() -> None:
    rate = Scale.rate().words
    assert rate.value_format.whole(Estimate(0.375, 0.25, 0.5, 40), unit=True) == "37.5% [25.0, 50.0]"
    assert rate.effect_format.whole(Estimate(0.125, -0.03, 0.2, 40), unit=True) == "+12.5 pp [−3.0, 20.0]"
    for narrow in (False, True):  # the same digits on a screen and in a report
        assert rate.value_format.text(0.375, narrow=narrow) == "37.5"
        assert rate.link_format.text(0.5, narrow=narrow) == "+0.50"
    ratio = Scale.ratio().words
    assert ratio.effect_format.whole(Estimate(0.891, 0.5, 1.2, 9)) == "0.89 [0.50, 1.20]"
    assert ratio.effect_format.whole(Estimate(0.891, 0.5, 1.2, 9), narrow=True) == "+.89 [+.50, +1.20]"
    assert ratio.value_format.whole(Estimate(30.24, 28.0, 120.5, 9)) == "30.2 [28.0, 120.5]"
    assert ratio.value_format.whole(Estimate(30.24, None, None, 9)) == "30.2 [no interval]"
    assert Scale.rate(percent=False).words.value_format.text(0.375) == "0.38"
    assert (Scale.ratio().ends, Scale.rate().ends) == (("÷2", "×2"), ("−50", "+50"))
    assert Scale.rate(higher_is_more=False).level(0.5) == -1


def test_json_there_and_back() -> None:
    for scale in (*SCALES, Scale.rate(truncation="missing", percent=False), Scale.difference(low=0, high=10)):
        assert Scale.from_json(json.loads(json.dumps(scale.to_json()))) == scale
        assert Scale.from_json(scale.kind).kind == scale.kind
    for wrong in ("log", {"kind": "rate", "colour": 1}, None, 3):
        with pytest.raises(ValueError, match="scale"):
            Scale.from_json(wrong)


def test_the_primary_behaviour_has_the_role_or_comes_first() -> None:
    one, two = Behaviour("a", "u", Scale.rate()), Behaviour("b", "u", Scale.rate(), "primary")
    assert primary_of([one, two]) == two
    assert primary_of([one]) == one


def test_a_store_from_before_there_were_scales_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = next(n for n, script in enumerate(schema.MIGRATIONS) if "declare a scale" in script)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:before])
        patched.setattr(schema, "VERSION", before)
        for room, name in ((writer, "seal"), (writer, "unseal"), (result_writer, "seal"), (result_writer, "unseal")):
            patched.setattr(room, name, lambda *_: None)  # such a store has no checksums yet
        patched.setattr(Writer, "_put_guards", lambda *_: None)  # nor cells of guards
        generate_store(tmp_path, prompts=2, data_size=2).close()
    old = [{"name": "length_chars", "unit": "characters", "compare": "ratio"},
           {"name": "repetition", "unit": "share", "compare": "difference"}]  # fmt: skip
    connection = sqlite3.connect(store_path(tmp_path))
    connection.execute("UPDATE experiments SET behaviours = ?", (json.dumps(old),))
    connection.commit()
    connection.close()
    Writer(tmp_path).close()
    reader = Reader(tmp_path)
    (row,) = reader.experiments()
    reader.close()
    assert row.behaviours == (
        Behaviour("length_chars", "characters", Scale.ratio(), "primary"),
        Behaviour("repetition", "share", Scale.difference()),
    )


def test_a_score_that_its_scale_cannot_have_is_missing_and_says_why() -> None:
    class Wild:
        name = "wild"
        behaviours = (Behaviour("hack", "share", Scale.rate()), Behaviour("grade", "points", Scale.difference()))

    found = checked(Wild(), {"hack": Score(1.7), "grade": Score(1.7)})  # type: ignore[arg-type]  # as far as it is used
    assert (found["hack"].value, found["grade"].value) == (None, 1.7)
    assert "the score 1.7 lies outside 0 … 1" in str(found["hack"].reason)
