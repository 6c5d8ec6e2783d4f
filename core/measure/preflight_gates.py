"""The gates of a preflight: from the first completions of the base model and of D, and from the rows it trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from windowshift.core.contract.gates import Gate
from windowshift.core.contract.proof import fired_from_json
from windowshift.core.contract.records import BASE, Behaviour, ExperimentRow, JobRow, primary_of
from windowshift.core.contract.stats import Floats
from windowshift.core.measure.grid import Grid, load_grid
from windowshift.core.measure.power import MOST_SEEDS, detectable, seeds_for, variances
from windowshift.core.settings.soundness import COHERENCE
from windowshift.core.store.reader import Reader

MOST_MISSING = 0.2
"""The share of completions without a score above which a cell cannot be read."""
MOST_AT_AN_END = 0.5
"""The share of conditions under which the base model is at 0 or at 1, from which on an experiment sees little."""
LEVEL = 0.05
"""The p value from which on the base model does not tell the conditions apart."""
FEWEST_PROMPTS = 6
"""Prompts below which no test can come out: of five signs that agree, p is 0.06."""

PilotScores = list[tuple[int, float | None]]
"""(prompt number, score) of some completions."""


@dataclass(frozen=True, slots=True)
class _Piloted:
    """The completions of one job that a pilot looks at; `condition` is empty for D."""

    label: str
    condition: str
    number: int
    limit: int


def preflight_gates(
    reader: Reader,
    experiment: ExperimentRow,
    seeds: Sequence[int],
    prompts: int,
    samples: int = 1,
    scored: Callable[[int], Sequence[str]] | None = None,
) -> tuple[Gate, ...]:
    """What the pilot of an experiment shows.

    Args:
        reader: the store.
        experiment: whose base cells and D are there, or their first rows.
        seeds: the seeds of the pilot.
        prompts: how many prompts of each it has.
        samples: completions of each eval prompt.
        scored: the behaviours that a job, by its number, is scored by; None: every one of the grid.

    Returns:
        The gates `answers`, `base rates` and `conditions`, of the primary behaviour the last two, and `hooks` where
        something is steered.
    """
    behaviours = _asked_of_all(experiment)
    primary = primary_of(behaviours)
    parts = list(_parts(reader, experiment, primary, seeds, prompts, samples))
    asked: dict[tuple[int, str], PilotScores] = {}
    for part in parts:
        names = scored(part.number) if scored else [one.name for one in behaviours]
        for behaviour in behaviours:
            if behaviour.name in names:
                asked[part.number, behaviour.name] = _scores(reader, part, behaviour)
    cells = [part for part in parts if part.condition]
    found = [
        _answers(reader, parts, behaviours, asked),
        _rates(cells, primary, asked),
        _conditions(cells, primary, asked),
    ]
    hooks = _hooks(reader, cells)
    return (*found, *([hooks] if hooks else []))


def training_gates(
    reader: Reader,
    experiment: ExperimentRow,
    seeds: Sequence[int],
    rows: Sequence[tuple[str, str, str]],
    limit: int,
    wanted: PowerWanted,
    scored: Callable[[int], Sequence[str]] | None = None,
) -> tuple[Gate, ...]:
    """What the rows show that a pilot trained.

    Args:
        reader: the store.
        experiment: whose rows they are.
        seeds: the seeds of the pilot.
        rows: (arm, generation condition, train condition).
        limit: rows of a cell that the pilot has.
        wanted: what the whole grid is to see.
        scored: as in `preflight_gates`.

    Returns:
        The gates `training` and `power`, and `hooks`, over trainings and cells, where something is steered.
    """
    behaviours = _asked_of_all(experiment)
    primary = primary_of(behaviours)
    cells = [one for one in reader.cells(experiment.id, primary.name) if one.seed in seeds and one.final]
    tuned = [
        _Piloted(reader.job(one.job).label, one.evaluate, one.job, limit)
        for one in cells
        if (one.arm, one.generate, one.train) in rows
    ]
    base = [_Piloted(reader.job(one.job).label, one.evaluate, one.job, limit) for one in cells if one.train == BASE]
    asked: dict[tuple[int, str], PilotScores] = {}
    for part in tuned:
        names = scored(part.number) if scored else [one.name for one in behaviours]
        for behaviour in behaviours:
            if behaviour.name in names:
                asked[part.number, behaviour.name] = _scores(reader, part, behaviour)
    read = _answers(reader, tuned, behaviours, asked)
    hooks = _hooks(reader, [*base, *tuned], _trainings(reader, [part.number for part in tuned]))
    power_gate = _power(piloted_grid(reader, experiment, primary, seeds, rows, limit), primary, wanted)
    return (Gate("training", read.passed, read.said), power_gate, *([hooks] if hooks else []))


@dataclass(frozen=True, slots=True)
class PowerWanted:
    """What a grid is to see: its seeds and prompts, and the least effect; None: it is not said."""

    seeds: int
    prompts: int
    effect: float | None


def _trainings(reader: Reader, cells: Sequence[int]) -> list[JobRow]:
    """The trainings behind some cells, with those of earlier stages."""
    found: dict[str, JobRow] = {}
    waiting = [one for number in cells for one in reader.job(number).parents]
    while waiting:
        jobs = [reader.job(number) for number in reader.job_numbers(waiting).values()]
        trained = [job for job in jobs if job.kind == "train"]
        found |= {job.id: job for job in trained}
        waiting = [job.inputs["start"] for job in trained if job.inputs.get("start", "") not in ("", *found)]
    return list(found.values())


def piloted_grid(
    reader: Reader,
    experiment: ExperimentRow,
    behaviour: Behaviour,
    seeds: Sequence[int],
    rows: Sequence[tuple[str, str, str]],
    limit: int,
) -> Grid:
    """The grid of a pilot: what it trained of it, and the base model's cells, over its seeds and first rows."""
    grid = load_grid(reader, experiment, behaviour, piloted=limit)
    return grid.only(
        lambda cell: cell.seed in seeds and (cell.train == BASE or (cell.arm, cell.generate, cell.train) in rows)
    )


def _power(grid: Grid, primary: Behaviour, wanted: PowerWanted) -> Gate:
    """Which effect the grid can see, from what the pilot's runs and prompts differ by."""
    found = variances([(grid.experiment.name, grid)])
    if found is None or found.run is None:
        return Gate("power", wanted.effect is None, "the pilot's rows have no average uplift to tell runs apart by")
    unit = primary.scale.words.link
    size = f"{wanted.seeds} seeds × {wanted.prompts} prompts"
    sees = detectable(found, found.run, wanted.seeds, wanted.prompts)
    said = f"training runs differ by {found.run:.3f}"
    if found.upper is not None:
        most = detectable(found, found.upper, wanted.seeds, wanted.prompts)
        said += f" (sd, {unit}; below {found.upper:.3f} at 80 %, of {found.degrees} degrees of freedom)"
        said += f": {size} see a row's average uplift of {sees:.2f} or more 80 times of 100, at that limit {most:.2f}"
    if wanted.effect is None or sees <= wanted.effect:
        return Gate("power", True, said)
    needed = seeds_for(found, found.run, wanted.effect, wanted.prompts)
    more = f"{needed} seeds" if needed is not None else f"more than {MOST_SEEDS} seeds"
    return Gate("power", False, f"{said}; an effect of {wanted.effect:g} takes {more} × {wanted.prompts} prompts")


def _parts(
    reader: Reader, experiment: ExperimentRow, primary: Behaviour, seeds: Sequence[int], prompts: int, samples: int
) -> Iterator[_Piloted]:
    seen: set[int] = set()
    alone = {str(one["name"]) for one in experiment.conditions.get("base", [])}
    cells = [one for one in reader.cells(experiment.id, primary.name) if one.train == BASE and one.seed in seeds]
    sources = [one for one in reader.sources(experiment.id) if one.seed in seeds]
    named = [(one.job, one.evaluate) for one in cells if one.evaluate not in alone]
    named += [(one.reference, one.part_train) for one in sources if one.reference is not None]
    for number, condition in named:
        if number not in seen:
            seen.add(number)
            yield _Piloted(reader.job(number).label, condition, number, prompts * samples)
    for source in sources:
        job = reader.job(source.job)
        number = source.job
        if "kept" in job.inputs:
            number = next(iter(reader.job_numbers([job.parents[0]]).values()))
        if number not in seen and "sampling" in reader.job(number).inputs:
            seen.add(number)
            yield _Piloted(reader.job(number).label, "", number, prompts)


def _asked_of_all(experiment: ExperimentRow) -> list[Behaviour]:
    """What every completion is scored by: coherence is asked of some, and guards have prompts of their own."""
    return [one for one in experiment.behaviours if not one.guard and one.name != COHERENCE.name]


def _scores(reader: Reader, part: _Piloted, behaviour: Behaviour) -> PilotScores:
    rows = reader.scores(part.number, behaviour.name)
    return [(prompt, behaviour.scale.counted(value, finish)) for row, prompt, value, finish in rows if row < part.limit]


def _answers(
    reader: Reader,
    parts: Sequence[_Piloted],
    behaviours: Sequence[Behaviour],
    asked: dict[tuple[int, str], PilotScores],
) -> Gate:
    """Whether what was answered can be read: nearly every completion has its scores."""
    worst: tuple[float, str] = (-1.0, "")
    total = bad = 0
    for part in parts:
        for behaviour in behaviours:
            scores = asked.get((part.number, behaviour.name))
            if not scores:
                continue  # it is not scored by this, or its job did not begin: that is another gate's
            missing = sum(value is None for _, value in scores)
            share = missing / len(scores)
            total += 1
            bad += share > MOST_MISSING
            if share > worst[0]:
                said = f"{missing} of {len(scores)} completions of '{part.label}' have no score of {behaviour.name}"
                worst = share, said + _why(reader, part, behaviour)
    if not total:
        return Gate("answers", False, "no completion of the pilot is scored")
    if not bad:
        share = max(worst[0], 0.0)
        return Gate("answers", True, f"at most {100 * share:.0f} % of the completions of a cell have no score")
    several = f", and {bad - 1} more such" if bad > 1 else ""
    return Gate(
        "answers",
        False,
        f"{worst[1]}{several}: more than {100 * MOST_MISSING:.0f} % cannot be read; look at them, and mend the "
        "scorer, the prompts or sampling.max_tokens",
    )


def _why(reader: Reader, part: _Piloted, behaviour: Behaviour) -> str:
    rows = reader.completions(part.number, behaviour.name, limit=part.limit)
    reasons = [row.reason or row.error for row in rows if row.score is None and (row.reason or row.error)]
    most = max(set(reasons), key=reasons.count) if reasons else ""
    return f" ({most})" if most else ""


def _rates(cells: Sequence[_Piloted], primary: Behaviour, asked: dict[tuple[int, str], PilotScores]) -> Gate:
    """Whether the base model leaves room for a change: rates that are neither 0 nor 1."""
    kind = primary.scale.kind
    if kind == "difference":
        return Gate("base rates", True, f"{primary.name} is no rate")
    means: dict[str, list[float]] = {}
    for part in cells:
        values = [value for _, value in asked[part.number, primary.name] if value is not None]
        means.setdefault(part.condition, []).extend(values)
    known = {name: float(np.mean(values)) for name, values in means.items() if values}
    ends = (0.0, 1.0) if kind == "rate" else (0.0,)
    at = {name: value for name, value in known.items() if value in ends}
    shown = ", ".join(f"{name}: {value:g}" for name, value in at.items())
    if not known or len(at) >= MOST_AT_AN_END * len(known):
        word = "a rate" if kind == "rate" else "a mean"
        return Gate(
            "base rates",
            False,
            f"the base model has {word} of {' or '.join(f'{end:g}' for end in ends)} of {primary.name} under "
            f"{len(at)} of {len(known)} conditions ({shown or 'none is known'}), where nothing can be seen to change: "
            "choose prompts or conditions that leave room",
        )
    said = f"the base model's {primary.name} leaves room under {len(known) - len(at)} of {len(known)} conditions"
    return Gate("base rates", True, said + (f" (not under {', '.join(at)})" if at else ""))


def _conditions(cells: Sequence[_Piloted], primary: Behaviour, asked: dict[tuple[int, str], PilotScores]) -> Gate:
    """Whether the base model answers otherwise under some conditions than under others, paired by prompt."""
    by_condition: dict[str, dict[int, list[float]]] = {}
    for part in cells:
        for prompt, value in asked[part.number, primary.name]:
            if value is not None:
                by_condition.setdefault(part.condition, {}).setdefault(prompt, []).append(value)
    names = list(by_condition)
    if len({part.condition for part in cells}) < 2:
        return Gate("conditions", True, "there is one condition alone, so there is nothing to tell apart")
    shared = sorted(set.intersection(*(set(one) for one in by_condition.values()))) if names else []
    if len(shared) < FEWEST_PROMPTS or len(names) < 2:
        said = f"{len(shared)} prompts have a score under all conditions, too few to tell these apart"
        return Gate("conditions", False, f"{said}: at least {FEWEST_PROMPTS} are needed; raise preflight.prompts")
    table = np.array([[np.mean(by_condition[name][prompt]) for name in names] for prompt in shared])
    p = alike(table)
    n = f"n {len(shared)} prompts"
    if p < LEVEL:
        said = f"the base model's {primary.name} differs between the {len(names)} conditions ({name_of_test(names)}, "
        return Gate("conditions", True, f"{said}p {_p(p)}, {n})")
    means = ", ".join(f"{name} {value:.3g}" for name, value in zip(names, table.mean(axis=0), strict=True))
    return Gate(
        "conditions",
        False,
        f"the base model answers alike under all {len(names)} conditions as to {primary.name} ({means}; "
        f"{name_of_test(names)}, p {_p(p)}, {n}): choose others that move it, or raise preflight.prompts",
    )


def alike(table: Floats) -> float:
    """The p value of scores that differ by chance alone between conditions, paired by prompt: (prompts, conditions).

    Friedman's test, which is Cochran's Q for scores of 0 and 1; for two conditions Wilcoxon's signed-rank test.
    """
    from scipy.stats import friedmanchisquare, wilcoxon

    if np.all(table == table[:, :1]):
        return 1.0
    if table.shape[1] == 2:
        return float(wilcoxon(table[:, 0], table[:, 1]).pvalue)
    return float(friedmanchisquare(*table.T).pvalue)


def name_of_test(names: Sequence[str]) -> str:
    """The test that `alike` makes for so many conditions."""
    return "Wilcoxon's test" if len(names) == 2 else "Friedman's test"


def _p(value: float) -> str:
    return "<0.0001" if value < 1e-4 else f"{value:.2g}"


def _steered(reader: Reader, part: _Piloted) -> bool:
    """Whether a part has completions that were steered; one whose job did not begin is another gate's."""
    vectors = reader.job(part.number).inputs.get("condition", {}).get("vectors")
    return bool(vectors) and bool(reader.rows_done(part.number))


def _steers(condition: Mapping[str, Any]) -> bool:
    """Whether a condition, as job inputs have it, adds a vector: to all rows, or to those that it selects."""
    chosen = (condition[key] for key in ("then", "else") if key in condition)
    return bool(condition.get("vectors")) or any(map(_steers, chosen))


def _hooks(reader: Reader, cells: Sequence[_Piloted], trainings: Sequence[JobRow] = ()) -> Gate | None:
    """Whether everything that is steered has proof that its vector was added; None where nothing is."""
    steered = [reader.job(part.number) for part in cells if _steered(reader, part)]
    trained = [
        job
        for job in trainings
        if job.state == "done" and any(_steers(part.get("condition", {})) for part in job.inputs["parts"])
    ]
    silent = [
        job.label
        for job in (*steered, *trained)
        if not (fired := fired_from_json(job.result.get("fired", ())))
        or any(one.calls < one.calls_asked or not one.tokens for one in fired)
    ]
    if not steered and not trained:
        return None
    parts = [f"{len(steered)} steered cells"] if steered else []
    parts += [f"{len(trained)} steered trainings"] if trained else []
    if silent:
        said = f"{len(silent)} of {' and '.join(parts)} have no proof that their vector was added, e.g. "
        return Gate("hooks", False, f"{said}'{silent[0]}': check the backend, the layer and the tokens")
    return Gate("hooks", True, f"hooks fired in all {' and '.join(parts)}")
