"""An experiment as logs of Inspect, one a cell, for `inspect view` and whatever else reads them."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windowshift.core.contract.errors import MissingExtraError, SpecError
from windowshift.core.contract.records import CellRow, CompletionRow, ExperimentRow
from windowshift.core.contract.whole_file import replacing_folder
from windowshift.core.store.reader import Reader

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample


def export_inspect(workspace: Path, name: str, out: Path, *, force: bool = False) -> int:
    """Write a log of every cell that is done into a folder; return how many.

    A score that is missing is no score of the sample; its reason stands in the sample's metadata. The mean of a
    behaviour is over those that there are, and how many there are not stands beside it.

    Raises:
        SpecError: there is no such experiment, no cell is done, or the folder is there already.
        MissingExtraError: Inspect is not installed.
    """
    try:
        from inspect_ai.log import write_eval_log
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting logs of Inspect", "inspect", error.name or "inspect_ai") from error
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not force:
        raise SpecError(f"{out} is there already: choose another folder, or --force to overwrite it")
    count = 0
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment(name)
        done = [cell for cell in reader.cells(experiment.id, "") if cell.state == "done"]
        if not done:
            raise SpecError(f"no cell of {name} is done yet: there is nothing to log")
        # Built in full before anything takes the place of what is there.
        with replacing_folder(out) as partial:
            for cell in done:
                write_eval_log(_log(reader, experiment, cell), str(partial / f"{_file(cell)}.eval"))
                count += 1
    return count


def _file(cell: CellRow) -> str:
    parts = (f"{cell.id:05d}", cell.arm, cell.generate, cell.train, cell.evaluate, f"seed-{cell.seed}")
    said = [*parts, *([] if cell.final else [f"step-{cell.step}"])]
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", "_".join(part for part in said if part))[:150]


def _log(reader: Reader, experiment: ExperimentRow, cell: CellRow) -> EvalLog:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalMetric, EvalResults, EvalScore, EvalSpec, EvalStats
    from inspect_ai.model import GenerateConfig

    job = reader.job(cell.job)
    began, ended = (_time(at) for at in (job.started or experiment.created, job.ended or experiment.created))
    samples = list(_samples(reader, experiment, cell))
    place = {
        "arm": cell.arm,
        "generate": cell.generate,
        "train": cell.train,
        "evaluate": cell.evaluate,
        "seed": cell.seed,
        "step": cell.step,
        "job": job.id,
        "rehearsal": experiment.rehearsal,
    }
    sampling = job.inputs.get("sampling", {})
    scores = []
    for behaviour in experiment.behaviours:
        summary = reader.summary(cell.job, behaviour.name)
        n = 0 if summary is None else summary.n
        missing = len(samples) - n
        ends = {} if summary is None else {"mean": summary.mean, "low": summary.low, "high": summary.high}
        metrics = {name: EvalMetric(name=name, value=value) for name, value in ends.items() if value is not None}
        scores.append(
            EvalScore(
                name=behaviour.name,
                scorer=behaviour.name,
                scored_samples=n,
                unscored_samples=missing,
                metrics=metrics,
                metadata={
                    "unit": behaviour.unit,
                    "n": n,
                    "missing": missing,
                    "interval": "low and high are the ends of the 95 % interval, over prompts",
                },
            )
        )
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=began,
            task=f"{experiment.name}/{cell.evaluate}",
            task_id=f"{experiment.name}-{cell.id}",
            run_id=f"{experiment.name}-{experiment.id}",
            eval_id=f"{experiment.name}-{cell.id}",
            dataset=EvalDataset(
                name=experiment.setting, samples=len(samples), sample_ids=[sample.id for sample in samples]
            ),
            model=f"windowshift/{experiment.model}/{cell.train}",
            model_generate_config=GenerateConfig(**{key: sampling[key] for key in _SAMPLING if key in sampling}),
            config=EvalConfig(),
            packages={"windowshift": importlib.metadata.version("windowshift")},
            metadata=place,
        ),
        results=EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=scores),
        stats=EvalStats(started_at=began, completed_at=ended),
        samples=samples,
    )


_SAMPLING = ("temperature", "top_p", "max_tokens")


def _samples(reader: Reader, experiment: ExperimentRow, cell: CellRow) -> Iterator[EvalSample]:
    from inspect_ai.log import EvalError, EvalSample
    from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import Score

    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    names = [behaviour.name for behaviour in experiment.behaviours]
    columns = [reader.iter_completions(cell.job, name) for name in names or [""]]
    for rows in zip(*columns, strict=True):
        row: CompletionRow = rows[0]
        turns = [(str(role), str(said)) for role, said in json.loads(row.turns or "[]")]
        asked: list[ChatMessage] = [kinds[role](content=said) for role, said in [*turns, ("user", row.prompt)]]
        failed = row.finish == "failed"
        output = ModelOutput.from_content(
            experiment.model, row.text or "", "max_tokens" if row.finish == "length" else "stop"
        )
        missing = {name: one.reason for name, one in zip(names, rows, strict=False) if one.score is None and one.reason}
        metadata: dict[str, Any] = {"phrase": row.phrase, "payload": json.loads(row.payload or "{}")}
        if row.reasoning:
            metadata["reasoning"] = row.reasoning
        if missing:
            metadata["missing_scores"] = missing
        yield EvalSample(
            id=f"{row.row}:{row.prompt_id}",
            epoch=1,
            input=asked if turns else row.prompt,
            target="",
            messages=[*asked, *([] if failed else [output.message])],
            output=ModelOutput(model=experiment.model, error=row.error) if failed else output,
            scores={
                name: Score(value=one.score, answer=row.text, metadata=dict(one.evidence) if one.evidence else None)
                for name, one in zip(names, rows, strict=False)
                if one.score is not None
            },
            metadata=metadata,
            error=EvalError(message=row.error or "it failed", traceback="", traceback_ansi="") if failed else None,
        )


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
