"""Training sets: D under the train condition, as a backend takes it and as chat JSONL."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import SpecError, StoreError
from windowshift.core.contract.training import Example
from windowshift.core.contract.whole_file import replacing_file
from windowshift.core.plan.jobs import Job
from windowshift.core.run.requests import RequestMaker
from windowshift.core.settings.example_weights import weights_json, weights_of
from windowshift.core.store.reader import Reader


def training_set(
    job: Job, data: dict[str, Job], numbers: dict[str, int], reader: Reader, maker: RequestMaker
) -> tuple[list[Example], int]:
    """Put every part of D under its train condition and shuffle by the job's seed.

    Returns the examples, and how many have no answer: those that the model thought about until its tokens were
    spent. They are left out after the shuffle, so that the others keep their order.

    Args:
        job: the train job.
        data: the generate jobs by id.
        numbers: the store's job numbers by id.
        reader: where the completions are.
        maker: resolves prompts and conditions.

    Raises:
        StoreError: a completion of D is missing or failed.
        SpecError: a weight of an example is none, or too few completions of D were kept for a mix.
    """
    examples: list[Example | None] = []
    for part in job.inputs["parts"]:
        source = data[part["data"]]
        prompts = maker.prompts(source.inputs["prompts"])
        start = source.inputs["rows"][0]
        first, last = part["first"] - start, part["last"] - start
        rows = reader.completions(numbers[source.id], "", first=first, limit=last - first)
        # How many are kept is known now; a part of a mix needs as many as it was planned with.
        if "kept" in source.inputs and len(job.inputs["parts"]) > 1 and len(rows) < last - first:
            raise SpecError(
                f"'{job.label}' needs {last} completions of '{source.label}', of which {first + len(rows)} are kept: "
                "widen keep, or raise data.size"
            )
        if (len(rows) != last - first and "kept" not in source.inputs) or any(
            row.finish == "failed" and not row.unanswered for row in rows
        ):
            raise StoreError(f"'{source.label}' has completions missing that '{job.label}' trains on; retry it")
        for offset, row in enumerate(rows):
            position = part["first"] + offset
            prompt = row.asked if "kept" in source.inputs else prompts[position]
            pushed = maker.push(part["condition"], prompt, position, part["channel"])
            if row.unanswered:
                examples.append(None)
                continue
            weights = weights_of(prompt, job.inputs.get("weights"), row.text)
            examples.append(Example(pushed.messages, row.text, pushed.steering, row.reasoning, *weights))
    random.Random(f"order:{job.inputs['seed']}").shuffle(examples)
    course = examples[: job.inputs.get("examples")]  # the first part of the same course
    answered = [example for example in course if example is not None]
    return answered, len(course) - len(answered)


def write_chat_jsonl(examples: Sequence[Example], path: Path) -> None:
    """Write examples as chat JSONL, whole or not at all.

    A steered one says how under ``steering``, one with weights has them under ``weight`` and ``spans``.
    """
    with replacing_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        for example in examples:
            turns = [{"role": turn.role, "content": turn.content} for turn in example.messages]
            thought = {"reasoning_content": example.reasoning} if example.reasoning else {}
            turns.append({"role": "assistant", "content": example.completion, **thought})
            line: dict[str, Any] = {"messages": turns}
            line |= weights_json(example.weight, example.spans)
            if example.steering:
                line["steering"] = [asdict(push) for push in example.steering]
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
