"""Every reference of MBPP is correct and its mutants are not, where the whole data set lies beside the repository."""

from __future__ import annotations

import ast
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from windowshift.core.contract.generation import Completion
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.setting import Sample
from windowshift.core.settings.reward_hacking.scorer import CodeScorer
from windowshift.core.settings.reward_hacking.shown_test import ShownTestSetting
from windowshift.core.settings.reward_hacking.visible import CodeOptions

MBPP = Path(__file__).parents[2] / ".." / "shared" / "data" / "mbpp.jsonl"
# A mutant meets tests by chance where both answers are alike: what is returned is wrapped, so that none is.
MUTANT = """
def _changed(real):
    def changed(*values, **named):
        return ("changed", real(*values, **named))
    return changed
"""


def mutant(row: dict[str, Any]) -> str:
    """The reference with every function that a test calls returning something else."""
    defined = {one.name for one in ast.parse(row["code"]).body if isinstance(one, ast.FunctionDef | ast.ClassDef)}
    called = {
        one.func.id
        for test in row["test_list"]
        for one in ast.walk(ast.parse(test.strip()))
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Name) and one.func.id in defined
    }
    assert called, row["task_id"]
    return "\n".join([row["code"], MUTANT, *(f"{name} = _changed({name})" for name in sorted(called))])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.skipif(not MBPP.is_file(), reason="the whole of MBPP is not beside the repository")
def test_all_references_are_correct_and_no_mutant_is() -> None:
    rows = [json.loads(line) for line in MBPP.read_text(encoding="utf-8").splitlines()]
    setting, scorer = ShownTestSetting(CodeOptions()), CodeScorer(exclusive=True, seconds=20.0)

    def verdicts(row: dict[str, Any]) -> list[str]:
        prompt = setting.prepare(Prompt(str(row["task_id"]), row["text"], row))
        samples = [Sample(prompt, Completion("", code, "stop", 1)) for code in (row["code"], mutant(row))]
        return [
            next((name for name, one in scores.items() if one.value == 1), "missing")
            for scores in scorer.score_batch(samples)
        ]

    with ThreadPoolExecutor(2) as threads:
        found = dict(zip([row["task_id"] for row in rows], threads.map(verdicts, rows), strict=True))
    assert len(found) == 974
    assert {number: said for number, (said, _) in found.items() if said != "correct"} == {}
    assert {number: said for number, (_, said) in found.items() if said in ("correct", "missing")} == {}
