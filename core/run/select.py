"""Selecting: the base model under every candidate, and D's answers under each of them, on development prompts."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.conditions import NoPrefix
from windowshift.core.contract.errors import BackendError, SpecError
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.progress import Progress
from windowshift.core.contract.reading import ReadingBackend, ReadRequest
from windowshift.core.contract.records import primary_of
from windowshift.core.contract.stats import Floats
from windowshift.core.measure.effect import shown_effect
from windowshift.core.measure.grid import load_grid
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.selection import Candidate, read_candidate
from windowshift.core.plan.development import Development, development_plan
from windowshift.core.plan.templates import recorded_day
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.requests import RequestMaker
from windowshift.core.run.run import Outcome, open_backends, run_plan
from windowshift.core.spec.spec import Spec
from windowshift.core.store.lock import hold
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

WRITTEN = "\0written"
"""The condition D is written under, among the readings: no condition has such a name."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a ranking came to; `unread` says why there are no log-probabilities.

    `out_of_reach` are doses that cannot be solved for, each with what its jobs say.
    """

    experiment: str
    generate: str
    behaviour: str
    unit: str
    prompts: int
    rehearsal: bool
    candidates: tuple[Candidate, ...]
    unread: str = ""
    out_of_reach: tuple[tuple[str, str], ...] = ()


def select(
    spec: Spec,
    text: str,
    folder: Path,
    workspace: Path,
    prompts: int,
    *,
    generate: str | None = None,
    observe: Callable[[Progress], None] = lambda _: None,
    on_stop: Callable[[bool], None] = lambda _: None,
) -> Selection | Outcome:
    """Look at every candidate; what is there already is not done again.

    Returns:
        The selection; or how the run of the development prompts ended, where it was not done.

    Raises:
        WindowshiftError: as `run_spec`; the spec has nothing to choose among.
    """
    backends = open_backends(spec)
    workspace = Path(os.path.realpath(workspace))  # Path.resolve raises for a link that leads to itself
    day = recorded_day(workspace, spec.name)
    found = development_plan(spec, text, folder, backends, prompts, generate=generate, day=day)
    outcome = run_plan(found.plan, backends, workspace, observe=observe, on_stop=on_stop)
    lost: dict[str, str] = {}
    if outcome.state != "done":
        lost = _out_of_reach(found, workspace) if outcome.state == "failed" else {}
        there = {name: one for name, one in found.candidates.items() if name not in lost}
        if not lost or len(there) < 2:
            return outcome
        found = replace(found, candidates=there)
    readings, unread = _read(found, open_backends(spec), workspace)
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment(found.plan.spec.name)
        behaviour = primary_of(experiment.behaviours)
        answers = next(iter(reader.job_numbers([found.answers.id]).values()))
        scores = [value for _, _, value, _ in reader.scores(answers, behaviour.name) if value is not None]
        elicited = _elicited(Resampled(load_grid(reader, experiment, behaviour)), found, scores)
    none: Floats = np.full(prompts, np.nan)
    plain, written = (readings.get(name, none) for name in (found.plain, WRITTEN))
    candidates = tuple(
        read_candidate(name, elicited[name], readings.get(name, none), plain, written) for name in found.candidates
    )
    return Selection(
        experiment.name, found.source.name, behaviour.name, behaviour.scale.words.effect, prompts,
        experiment.rehearsal, candidates, unread, tuple(lost.items()),
    )  # fmt: skip


def _out_of_reach(found: Development, workspace: Path) -> dict[str, str]:
    """The candidates whose dose could not be solved for, and why; nothing where something else failed too."""
    jobs = {job.id: job for job in found.plan.jobs}
    with closing(Reader(workspace)) as reader:
        rows = {row.id: row for row in reader.jobs(reader.find_experiment(found.plan.spec.name).id)}
    failed = [row for row in rows.values() if row.state == "failed"]
    if any(row.kind not in ("match", "iso_kl") for row in failed):
        return {}
    lost: dict[str, str] = {}
    for name, (_, job) in found.candidates.items():
        before = {job.id}
        for one in reversed(found.plan.jobs):
            if one.id in before:
                before.update(jobs[one.id].parents)
        why = next((row.error for row in failed if row.id in before), None)
        if why is not None:
            lost[name] = why
    return lost


def _elicited(r: Resampled, found: Development, scores: list[float]) -> dict[str, Estimate | None]:
    """The base model under each candidate against the one without a push; what goes towards D is above 0."""
    columns = {cell.evaluate: r.base(cell.arm, cell.evaluate, None) for cell in found.plan.cells}
    plain = columns[found.plain]
    effects: dict[str, Estimate | None] = {}
    for name in found.candidates:
        column = columns[name]
        if plain is None or column is None or not (r.done(plain) and r.done(column)):
            effects[name] = None
            continue
        pair = r.compared(column, plain)
        one = shown_effect(r.scale, pair).estimate if pair.prompts > 1 else None
        away = scores and math.fsum(scores) / len(scores) < pair.other
        effects[name] = _turned(one) if one and away else one
    return effects


def _turned(one: Estimate) -> Estimate:
    low, high = (None if end is None else -end for end in (one.high, one.low))
    return Estimate(-one.value, low, high, one.n, one.prompts, one.seeds)


def _read(found: Development, backends: Mapping[str, Backend], workspace: Path) -> tuple[dict[str, Floats], str]:
    """Log-probabilities a token of D's answers by condition, one an answer; and why there are none."""
    spec = found.plan.spec
    names = dict.fromkeys((spec.generate_backend, spec.train_backend))
    able = next((one for one in map(backends.__getitem__, names) if isinstance(one, ReadingBackend)), None)
    try:
        if able is None:
            said = " and ".join(f"'{name}'" for name in names)
            return {}, f"backend {said} does not tell how likely given answers are; backend 'local' does"
        with hold(workspace, f"select {spec.name}"), closing(Writer(workspace)) as writer:
            ledger = Ledger(found.plan, writer)
            requests = list(_requests(found, ledger))
            return asyncio.run(_readings(able, requests, found.answers.total)), ""
    finally:
        asyncio.run(_closed(backends))


async def _closed(backends: Mapping[str, Backend]) -> None:
    for backend in backends.values():
        await backend.aclose()


def _requests(found: Development, ledger: Ledger) -> Iterator[ReadRequest]:
    maker = RequestMaker(found.plan, ledger.results, ledger.artifacts)
    primary = ledger.plan.scorers[0].behaviours[0].name
    texts = {row.row: row.text for row in ledger.reader.completions(ledger.number(found.answers), primary)}
    channel = found.plan.spec.channel.train
    identities: dict[str, Mapping[str, Any]] = {found.plain: NoPrefix().identity()}
    identities |= {name: job.inputs["condition"] for name, (_, job) in found.candidates.items()}
    for row in maker.rows(found.answers, set()):
        text = texts.get(row.number, "")
        if not text:
            continue
        yield ReadRequest(f"{row.number}:{WRITTEN}", row.request.messages, text, row.request.model)
        for name, identity in identities.items():
            pushed = maker.push(identity, row.prompt, row.number, channel)
            yield ReadRequest(f"{row.number}:{name}", pushed.messages, text, row.request.model, pushed.steering)


async def _readings(backend: ReadingBackend, requests: list[ReadRequest], count: int) -> dict[str, Floats]:
    """By condition, (answers,), in nats a token.

    Raises:
        BackendError: none could be read.
    """
    found: dict[str, Floats] = {}
    errors: list[str] = []
    async with aclosing(backend.read(requests)) as stream:
        async for reading in stream:
            number, _, name = reading.key.partition(":")
            values = found.setdefault(name, np.full(count, np.nan))
            if reading.logprob is None:
                errors.append(reading.error or "no reason was given")
            elif reading.tokens:
                values[int(number)] = reading.logprob / reading.tokens
    if errors and len(errors) == len(requests):
        raise BackendError(f"no answer could be read: {errors[0]}")
    if not found:
        raise SpecError("there is no answer to read: the model gave none to any development prompt")
    return found
