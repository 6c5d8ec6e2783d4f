"""Job ids of experiments of length are what they were before settings were a seam: what is done stays done.

Pinned from the last commit before the modules moved into rooms (2c3f24f). An id that changes makes people train, sample
and pay again: where the meaning of inputs has to change, `HASH_VERSION` says so, and a migration keeps finished work.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from windowshift.core.run.run import plan_spec
from windowshift.core.spec.spec import parse_spec
from windowshift.core.spec.template import rehearsals

GRID = """\
name: grid
model: microworld
conditions:
  generate: [med_short, long, mine]
  train:
    - short
    - no_prefix
    - mine
    - name: halves
      mix: [{fraction: 0.5, generate: med_short, train: med_long}, {fraction: 0.5, generate: long, train: long}]
  evaluate: [short, mine, very_long, no_prefix]
  groups: {mine: ["Be brief:", "In a word:"]}
channel: {train: system, evaluate: user}
data: {size: 60, seed: 3, filter: {candidates: 1.5}}
checkpoints: {every: 20, evaluate: [short, no_prefix]}
sft: {rank: 4, alpha: 8, learning_rate: 1.0e-3, batch_size: 4, epochs: 2}
sampling: {prompts: 30, temperature: 0.7, top_p: 0.9, max_tokens: 200}
seeds: [0, 1]
"""
STEERED = """\
name: steered
model: microworld
vectors:
  length:
    positive: very_long
    negative: short
    tokens: response
    layer: auto
    calibrate: {doses: [-0.25, -0.125, 0.125], prompts: 8, points: 3}
  asked: {positive: long, negative: short, tokens: last_prompt, layer: 1}
  far: {positive: very_long, negative: short, layer: 2, min_difference: 1.5, prompts: 24}
  both: {combine: {length: 1.0, asked: -0.5}, layer: 2}
  random: {control: random, of: length}
  right: {control: orthogonal, of: length, seed: 4}
  back: {control: flipped, of: length}
  low: {control: layer, of: length, source: 0}
conditions:
  generate: [med_short]
  train:
    - no_prefix
    - very_long
    - {steer: length, match: [short, long]}
    - {steer: length, alpha: [-1, 0]}
    - {steer: asked, dose: [0.2], prefix: short}
    - {steer: length, range: [-0.2, 0.2], unit: dose}
    - {steer: far, sample: [-1.0, 1.0]}
    - {steer: length, match: [very_long], tokens: prompt, name: very_long on the prompt}
    - {steer: both, alpha: 1}
    - {steer: length, ablate: true}
  evaluate: [short, very_long, no_prefix, {steer: length, match: [short, very_long]}, {steer: length, dose: 0.1}]
  cross: [very_long]
  base: [{steer: random, match: [short]}, {steer: right, dose: 0.1}, {steer: back, alpha: 1}, {steer: low, alpha: 1}]
data: {size: 40, seed: 0}
sampling: {prompts: 20, coherence: 8, max_tokens: 200}
"""
JUDGED = """\
name: judged
model: microworld
conditions: {generate: [med_short], train: [short], evaluate: [short, long]}
prompts: questions.jsonl
data: {size: 6, filter: {candidates: 2, judge: {model: microworld}}}
sampling: {prompts: 4, max_tokens: 64}
judges: [{name: clarity, rubric: clarity.yaml, model: microworld}]
"""
RUBRIC = """\
question: "Is {completion} a clear answer to {prompt}? 0 to 100:"
scale: [0, 100]
"""
SPECS = {"demo": rehearsals()["length"].text, "grid": GRID, "steered": STEERED, "judged": JUDGED}
PINNED = {
    "demo": {
        "dose": (1, "303372700a8fc5a1"),
        "evaluate": (110, "cd2cb87fee1ac6c0"),
        "extract": (2, "903f0f1392b161e2"),
        "generate": (3, "ee60f459ca5565db"),
        "match": (6, "cb91d9b2e098a546"),
        "score": (230, "c51f5feadb9f144a"),
        "sweep": (1, "488524117fd29ef3"),
        "train": (13, "f8acf7de3f23bd37"),
    },
    "grid": {
        "evaluate": (296, "0c504b432e859094"),
        "filter": (4, "2a5bd192a08617c5"),
        "generate": (6, "c5e04dafc5a0b4c8"),
        "score": (302, "6ee4e9d2eb5b70a8"),
        "train": (20, "a1c264dbf69afc5f"),
    },
    "steered": {
        "dose": (2, "9358a5f2e7f6f958"),
        "evaluate": (73, "98617c38c3fd7332"),
        "extract": (8, "a10834729fce92f9"),
        "generate": (5, "6e66f9e88ea8743e"),
        "match": (4, "399b5bca005e410f"),
        "score": (162, "3be021e35d8a0d62"),
        "sweep": (1, "e64580f4e43e7bc3"),
        "train": (11, "3e0353466c67ad9c"),
    },
    "judged": {
        "evaluate": (4, "919bd930b07c9eb9"),
        "filter": (2, "85202e6a99b219f7"),
        "generate": (1, "1b935585aabe212a"),
        "score": (10, "a6b852b96229845a"),
        "train": (1, "4d38ff33fb22d7aa"),
    },
}
"""By spec and kind of job: how many there are, and the hash of their sorted ids."""


@pytest.mark.parametrize("name", SPECS)
def test_ids_are_those_of_finished_work(name: str, tmp_path: Path) -> None:
    questions = [{"prompt": f"What is number {number}?"} for number in range(30)]
    (tmp_path / "questions.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in questions), encoding="utf-8")
    (tmp_path / "clarity.yaml").write_text(RUBRIC, encoding="utf-8")
    ids: dict[str, list[str]] = {}
    for job in plan_spec(parse_spec(SPECS[name]), SPECS[name], tmp_path).jobs:
        ids.setdefault(job.kind, []).append(job.id)
    found = {
        kind: (len(some), hashlib.sha256(" ".join(sorted(some)).encode()).hexdigest()[:16])
        for kind, some in sorted(ids.items())
    }
    assert found == PINNED[name]
