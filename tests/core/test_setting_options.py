"""Options of a setting, and prompts that a setting makes of rows: a plugin, found through a real entry point."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from windowshift.core.contract.errors import SpecError
from windowshift.core.plan.plan import Plan
from windowshift.core.run.run import plan_spec
from windowshift.core.spec.spec import parse_spec

PLUGIN = """
from dataclasses import replace
from windowshift.core.contract.prompts import Prompt
from windowshift.core.settings.length import LengthScorer, LengthSetting
from windowshift.core.spec.section import Positive, Section, SpecFile

class Options(Section):
    timeout: Positive = 30
    tests: int = 3
    facts: SpecFile | None = None

class Sums:
    name = "sums"
    scorers = (LengthScorer(),)
    Options = Options
    def __init__(self, options):
        self.options = options
    def conditions(self):
        return LengthSetting().conditions()
    def default_prompts(self):
        return None
    def prepare(self, prompt):
        tests = prompt.payload["tests"][: self.options.tests]
        if not tests:
            raise ValueError("a problem needs a test")
        text = prompt.text + "\\n" + "\\n".join(tests)
        return replace(prompt, text=text, payload={"tests": tests})
"""
SPEC = """\
name: x
setting: {setting}
model: microworld
prompts: p.jsonl
conditions: {{generate: [short], train: [short], evaluate: [short]}}
data: {{size: 1}}
sampling: {{prompts: 1}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "sums_plugin.py").write_text(PLUGIN, encoding="utf-8")
    info = tmp_path / "sums_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sums-plugin\nVersion: 1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[windowshift.settings]\nsums = sums_plugin:Sums\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    rows = [{"id": i, "problem": f"p{i}", "tests": [f"t{i}", "u"], "more": 1} for i in range(2)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    yield tmp_path
    sys.modules.pop("sums_plugin", None)


def plan(folder: Path, setting: str) -> Plan:
    text = SPEC.format(setting=setting)
    return plan_spec(parse_spec(text), text, folder)


def test_options_reach_the_setting_and_its_prompts(folder: Path) -> None:
    (folder / "facts.txt").write_text("x", encoding="utf-8")
    found = plan(folder, "{name: sums, timeout: 10, tests: 1, facts: facts.txt}")
    options = found.setting.options  # type: ignore[attr-defined] # the plugin's own
    assert (options.timeout, options.tests, options.facts) == (10, 1, folder / "facts.txt")
    prompts = [prompt for prompts in found.prompts.values() for prompt in prompts]
    assert sorted(prompt.text for prompt in prompts) == ["p0\nt0", "p1\nt1"]
    assert sorted(prompt.payload["tests"] for prompt in prompts) == [["t0"], ["t1"]]


def test_an_option_is_part_of_what_it_changes_and_of_nothing_else(folder: Path) -> None:
    ids = [{job.id for job in plan(folder, choice).jobs} for choice in
           ("sums", "{name: sums}", "{name: sums, timeout: 10}", "{name: sums, tests: 1}")]  # fmt: skip
    assert ids[0] == ids[1] == ids[2]
    assert not ids[0] & ids[3]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("{name: sums, timout: 10}", "setting sums: unknown key 'timout': did you mean 'timeout'?"),
        ("{name: sums, timeout: 0}", "setting sums: timeout must be above 0, but it is 0"),
        ("{name: sums, timeout: ten}", "setting sums: timeout must be a whole number, but it is 'ten'"),
        ("{name: sum}", "there is no setting 'sum': did you mean 'sums'?"),
        ("{name: length, timeout: 1}", "setting: 'length' takes no options: leave out 'timeout'"),
        ("{timeout: 1}", "setting.name"),
        ("[sums]", "setting"),
    ],
)
def test_what_plan_refuses(folder: Path, setting: str, says: str) -> None:
    with pytest.raises(SpecError) as told:
        plan(folder, setting)
    assert says in str(told.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"problem": "p", "tests": []}, "line 2: a problem needs a test"),
        ({"problem": "p", "test": ["a"]}, "line 2 has no 'tests', which the setting needs (it has test)"),
    ],
)
def test_a_row_that_the_setting_cannot_use_is_named(folder: Path, row: dict[str, object], says: str) -> None:
    lines = (folder / "p.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "p.jsonl").write_text(f"{lines[0]}\n{json.dumps(row)}\n", encoding="utf-8")
    with pytest.raises(SpecError) as told:
        plan(folder, "sums")
    assert str(told.value).startswith(f"{folder / 'p.jsonl'} {says}")


def test_the_primary_behaviour_comes_first_or_the_setting_is_refused(folder: Path) -> None:
    """Screens go by the role, doses by the order: they must mean the same behaviour."""
    turned = PLUGIN.replace("(LengthScorer(),)", "(LengthScorer(behaviours=(WORDS, CHARS)),)")
    turned = turned.replace("import LengthScorer", "import CHARS, WORDS, LengthScorer")
    (folder / "sums_plugin.py").write_text(turned, encoding="utf-8")
    with pytest.raises(SpecError, match="declares 'length_chars' as its primary behaviour and measures 'length_words'"):
        plan(folder, "sums")
