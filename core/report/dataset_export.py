"""Export of D: a row's training set as chat JSONL, as OpenAI fine-tuning takes it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from windowshift.core.contract.conditions import Condition, NoPrefix, PrefixGroup
from windowshift.core.contract.errors import SpecError, StoreError
from windowshift.core.contract.records import BASE, CompletionRow, JobRow
from windowshift.core.contract.selective import Selective
from windowshift.core.contract.whole_file import whole_file
from windowshift.core.settings.example_weights import weights_json, weights_of
from windowshift.core.store.reader import Reader

ChatLine = dict[str, Any]


def export_dataset(
    workspace: Path,
    name: str,
    generate: str,
    train: str,
    out: Path,
    *,
    seed: int | None = None,
    arm: str = "prefix",
    force: bool = False,
    details: bool = False,
) -> int:
    """Write the D of one grid row, under its train condition and in training order; return the examples.

    Args:
        workspace: the folder.
        name: of the experiment.
        generate: the row's generation condition.
        train: the row's train condition.
        out: a .jsonl file; written whole or not at all.
        seed: the row's seed; None: the first one.
        arm: the row's arm.
        force: overwrite a file that is there.
        details: beside `messages`, what is known of each example: `prompt_id`, `payload`, `scores`, `missing_scores`
            (why) and `evidence`, by behaviour. Services refuse keys that they do not know: these are for people.

    Raises:
        SpecError: no such experiment or row, or the file cannot be written there.
        StoreError: completions of D are missing.
    """
    if out.suffix.lower() != ".jsonl":
        raise SpecError(f"a dataset is written as chat JSONL: {out} must end in .jsonl")
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment(name)
        rows = [
            cell
            for cell in reader.cells(experiment.id, "")
            if cell.train != BASE and (cell.arm, cell.generate, cell.train) == (arm, generate, train)
        ]
        chosen = next((cell for cell in rows if seed is None or cell.seed == seed), None)
        if chosen is None:
            of = "" if seed is None else f" with seed {seed}"
            raise SpecError(f"experiment '{name}' has no row trained on {generate} data under '{train}'{of}")
        by_id = {job.id: job for job in reader.jobs(experiment.id)}
        parents = [by_id[parent] for parent in reader.job(chosen.job).parents if parent in by_id]
        trained = next(job for job in parents if job.kind == "train")
        names = [behaviour.name for behaviour in experiment.behaviours] if details else None
        found = list(_examples(reader, trained, by_id, names))
    # The order of training, as core.run.training_set shuffles it and leaves out what has no answer.
    random.Random(f"order:{trained.inputs['seed']}").shuffle(found)
    examples = [example for example in found if example is not None]
    with whole_file(out, force) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            file.write(json.dumps(example, ensure_ascii=False) + "\n")
    return len(examples)


def _examples(
    reader: Reader, trained: JobRow, by_id: dict[str, JobRow], names: Sequence[str] | None
) -> Iterator[ChatLine | None]:
    for part in trained.inputs.get("parts", ()):
        data = by_id[part["data"]]
        start = data.inputs["rows"][0]
        count = part["last"] - part["first"]
        rows = reader.completions(data.n, "", first=part["first"] - start, limit=count)
        if (len(rows) < count and "kept" not in data.inputs) or any(
            row.finish == "failed" and not row.unanswered for row in rows
        ):
            raise StoreError(f"'{data.label}' has completions missing: finish the run, or retry it, before exporting D")
        condition = trained_condition(part["condition"], trained.label)
        known = _details(reader, data.n, rows, names)
        for position, row in enumerate(rows, part["first"]):
            if row.unanswered:
                yield None
                continue
            pushed = condition.push(row.asked, position, part["channel"])
            turns = [{"role": turn.role, "content": turn.content} for turn in pushed.messages]
            thought = {"reasoning_content": row.reasoning} if row.reasoning else {}
            messages = [*turns, {"role": "assistant", "content": row.text, **thought}]
            weights = weights_of(row.asked, trained.inputs.get("weights"), row.text)
            yield {"messages": messages, **weights_json(*weights), **known.get(row.row, {})}


def _details(
    reader: Reader, job: int, rows: Sequence[CompletionRow], names: Sequence[str] | None
) -> dict[int, dict[str, Any]]:
    """What is known of each row besides its chat; nothing where nobody asks."""
    if names is None or not rows:
        return {}
    known: dict[int, dict[str, Any]] = {
        row.row: {
            "prompt_id": row.prompt_id, "payload": dict(row.asked.payload), "scores": {}, "missing_scores": {},
            "evidence": {},
        }
        for row in rows
    }  # fmt: skip
    for name in names:
        for row in reader.iter_completions(job, name, first=rows[0].row, limit=len(rows)):
            found = known[row.row]
            found["scores"][name] = row.score
            if row.score is None and row.reason is not None:
                found["missing_scores"][name] = row.reason
            if row.evidence is not None:
                found["evidence"][name] = row.evidence
    return known


def trained_condition(identity: Mapping[str, Any], label: str) -> Condition:
    """The condition that a job's inputs name, for the train job of that label.

    Raises:
        SpecError: chat JSONL cannot hold what it does.
    """
    if identity["kind"] == "none":
        return NoPrefix()
    if identity["kind"] == "prefix":
        return PrefixGroup("", tuple(identity["phrases"]), slot=identity.get("slot", ""), after="after" in identity)
    if identity["kind"] == "selective":
        then, otherwise = (trained_condition(identity[key], label) for key in ("then", "else"))
        noise = identity.get("noise", 0.0), identity.get("noise_seed", 0)
        return Selective("", identity["where"], then, otherwise, *noise)
    raise SpecError(f"'{label}' trains under a {identity['kind']}, which chat JSONL cannot hold")
