"""The numbers of the demo that are kept, so that no change of the engine or of the measures moves them unseen.

After a change that is meant to move them:  windowshift demo --headless --workspace demo,  then
python -m tests.demo_reference demo,  and the commit says why.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from windowshift.core.report.report import report

FILE = Path(__file__).with_suffix(".json")
Numbers = dict[str, list[float | None]]
"""A name for each line of the report, and its numbers."""


def numbers_of(found: Mapping[str, Any]) -> Numbers:
    """What a report says in JSON: every cell, fit and point, the dose curve and the matched doses."""
    return {name: [_number(one) for one in values] for name, values in _lines(found)}


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    for cell in found["cells"]:
        place = "/".join(str(cell[part]) for part in ("arm", "generate", "train", "evaluate", "seed"))
        yield f"cell {place}", [cell["mean"], *cell["ci95"], cell["uplift_log2"], *(cell["uplift_ci95"] or ())]
    for arm, one in found["arms"].items():
        fit = one["grouped"]
        yield f"fit of {arm}", [fit["slope"], *fit["ci95"], fit["r2"], fit["intercept"], *fit["intercept_ci95"]]
        for train, cv in one["cv"].items():
            yield f"CV of {arm} {train}", [cv]
    for curve in found["steering"]["curves"]:
        for point in curve["points"]:
            yield f"dose {curve['vector']} {point['alpha']:.6g}", [point["mean"], point["low"], point["high"]]
    for match in found["steering"]["matches"]:
        yield f"match of {match['group']}", [match["alpha"], match["alpha_low"], match["alpha_high"]]


def _number(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.10g}")


if __name__ == "__main__":
    lines = numbers_of(report(Path(sys.argv[1]), "demo").to_json())
    body = ",\n".join(
        f" {json.dumps(name, ensure_ascii=False)}: {json.dumps(values)}" for name, values in lines.items()
    )
    FILE.write_text(f"{{\n{body}\n}}\n", encoding="utf-8")
