"""A spec that asks to be read inside the model, for a tiny one."""

from __future__ import annotations

from pathlib import Path

SPEC = """\
name: inside
model: {model}
backend: {backend}
{options}
prompts: microworld
conditions:
  generate: [med_short]
  train: [long, no_prefix]
  evaluate: [long, no_prefix]
{vectors}
data: {{size: 8}}
sft: {{rank: 2, learning_rate: 2e-2, batch_size: 4}}
sampling: {{prompts: 6, max_tokens: 8}}
seeds: [0, 1]
{more}
"""
VECTORS = """\
vectors:
  length: {positive: long, negative: short, prompts: 6, tokens: last_prompt, layer: 1}
  noise: {control: random, of: length}
"""
WATCH = """\
  watch:
    every: 4
    texts:
      - {prompt: "Are bees warm?", completion: "Yes.", group: facts}
      - {prompt: "How do bees keep warm?", completion: "They gather in a ball.", group: facts}
      - {file: TEXTS}
"""
DRIFT = "inside:\n  drift: {conditions: [no_prefix]}\n"
GRADIENT = "  gradient: {examples: 6, random: 20}\n"


def text_of(model: Path | str, more: str = DRIFT, **changes: str) -> str:
    settings = {"backend": "local", "options": "backend_options: {workers: 1}", "vectors": VECTORS}
    return SPEC.format(model=model, more=more, **(settings | changes))
