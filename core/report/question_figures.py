"""The figure of single questions: one bar a question, where few questions are answered many times each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from windowshift.core.contract.number_format import interval
from windowshift.core.contract.records import BASE, Behaviour, CellRow, ExperimentRow, JobRow
from windowshift.core.report.behaviour_figures import written
from windowshift.core.report.figure import Plot, Rule, Series
from windowshift.core.settings.open_questions import FAMILY

if TYPE_CHECKING:
    from windowshift.core.contract.estimate import Estimate
    from windowshift.core.contract.prompts import Prompt
    from windowshift.core.measure.measures import ArmMeasures
    from windowshift.core.store.reader import Reader

MOST = 64
"""Questions of one figure: of more, a bar is no longer told from the next."""


def question_figures(
    reader: Reader,
    experiment: ExperimentRow,
    behaviour: Behaviour,
    found: ArmMeasures,
    generate: str,
    evaluates: Iterable[str],
) -> tuple[Plot, ...]:
    """Return a figure for the base model and each train condition, under each eval condition.

    None where no question has two answers under a condition, and none where there are more than `MOST`. A bar is the
    mean over the answers to one question, of all training runs, in the order of the questions; its interval says what
    other answers to that question would give. The line is the mean of the cell, whose interval is over questions.

    Args:
        reader: of the store.
        experiment: the experiment.
        behaviour: that is drawn.
        found: its measures in one arm.
        generate: the generation condition of D.
        evaluates: the eval conditions.
    """
    jobs = {job.n: job for job in reader.jobs(experiment.id)}
    if not any(int(job.inputs.get("samples") or 1) > 1 for job in jobs.values() if job.kind == "evaluate"):
        return ()
    means = {
        (cell.key.train, cell.key.evaluate): cell.mean
        for cell in found.cells
        if cell.mean is not None and cell.key.final and (cell.key.train == BASE or cell.key.generate == generate)
    }
    cells = [
        cell
        for cell in reader.cells(experiment.id, behaviour.name)
        if cell.final
        and cell.state == "done"
        and (cell.train == BASE or (cell.arm, cell.generate) == (found.arm, generate))
    ]
    plots = []
    for evaluate in evaluates:
        for train in dict.fromkeys(cell.train for cell in cells if cell.evaluate == evaluate):
            own = [cell for cell in cells if (cell.train, cell.evaluate) == (train, evaluate)]
            plot = _by_question(reader, jobs, behaviour, own, means.get((train, evaluate)), generate)
            plots += [] if plot is None else [plot]
    return tuple(plots)


def _by_question(
    reader: Reader,
    jobs: Mapping[int, JobRow],
    behaviour: Behaviour,
    cells: list[CellRow],
    mean: Estimate | None,
    generate: str,
) -> Plot | None:
    from windowshift.core.measure.summarise import summary_of

    questions: dict[str, Prompt] = {}
    answers: dict[str, list[tuple[float | None, str]]] = {}
    for number in dict.fromkeys(cell.job for cell in cells):
        prompts = dict(reader.prompt_set(_set(jobs[number].inputs)))
        for _, prompt, score, finish in reader.scores(number, behaviour.name):
            if prompt in prompts:
                questions.setdefault(prompts[prompt].id, prompts[prompt])
                answers.setdefault(prompts[prompt].id, []).append((score, finish))
    scored = {one: said for one, said in answers.items() if any(score is not None for score, _ in said)}
    if not 2 <= len(scored) <= MOST:
        return None
    percent = behaviour.scale.percent
    bars: list[tuple[str, tuple[float, float | None, float | None], int]] = []
    for one, said in scored.items():
        # Every answer is a cluster of its own: the interval is over answers to this question.
        summary = summary_of(behaviour.scale, [(row, row, score, end) for row, (score, end) in enumerate(said)])
        if summary.estimate is not None:
            bars.append((one, written(summary.estimate, percent), summary.n))
    families = [str(questions[one].payload.get(FAMILY) or one) for one, *_ in bars]
    train, evaluate = cells[0].train, cells[0].evaluate
    counts = Counter(n for *_, n in bars)
    span = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    trained = "of the base model" if train == BASE else f"trained under {train} ({generate} data)"
    rules: tuple[Rule, ...] = ()
    if mean is not None:
        value, low, high = written(mean, percent)
        over = f"all {len(bars)} questions: {value:.1f} {interval(low, high)}".rstrip()
        rules = (Rule(over, value),)
    return Plot(
        f"questions-{train}-under-{evaluate}",
        f"{behaviour.name} by question, {trained}, under {evaluate}: {span} answers a bar",
        "",
        f"{behaviour.name}, {behaviour.mean_label}",
        (
            Series(
                behaviour.name,
                "bars",
                tuple(float(place) for place in range(len(bars))),
                tuple(value for _, (value, *_), _ in bars),
                tuple(one for one, *_ in bars),
                tuple(low for _, (_, low, _), _ in bars),
                tuple(high for _, (*_, high), _ in bars),
            ),
        ),
        _middles(families),
        rules=rules,
    )


def _set(inputs: Mapping[str, Any]) -> str:
    prompts = inputs.get("prompts")
    return str(prompts.get("set", "")) if isinstance(prompts, Mapping) else ""


def _middles(families: list[str]) -> tuple[tuple[float, str], ...]:
    """Where the name of each run of questions of one family stands: in its middle."""
    found, place = [], 0
    for family, some in groupby(families):
        count = len(list(some))
        found.append((place + (count - 1) / 2, family.replace("_", " ")))
        place += count
    return tuple(found)
