"""Running a spec: the lock, the plan, the runner and its end, for the command line and for notebooks."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.errors import (
    BackendError,
    MissingExtraError,
    SpecError,
    StoreError,
    WindowshiftError,
    WorkspaceBusyError,
)
from windowshift.core.contract.gates import Preflight
from windowshift.core.contract.looks import Look
from windowshift.core.contract.memory import ForecastsMemory, MemoryForecast
from windowshift.core.contract.progress import Progress
from windowshift.core.contract.records import VECTOR_KINDS, ExperimentState
from windowshift.core.contract.service import Service
from windowshift.core.contract.whole_file import within
from windowshift.core.plan.context import within_context
from windowshift.core.plan.estimate import PlanEstimate, estimate
from windowshift.core.plan.memory import memory_asked
from windowshift.core.plan.pilot import pilot_of, pilot_plan
from windowshift.core.plan.plan import Plan, make_plan
from windowshift.core.plan.templates import recorded_day
from windowshift.core.plan.truncation import truncation_notes
from windowshift.core.plan.unasked import unasked
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.log_file import LogFile
from windowshift.core.run.preflight import fly, stopped_by
from windowshift.core.run.runner import Runner
from windowshift.core.run.stopping import Stopping
from windowshift.core.run.until_decided import run_until_decided
from windowshift.core.spec import registry
from windowshift.core.spec.spec import Spec
from windowshift.core.store.connection import is_older, open_writer
from windowshift.core.store.lock import hold
from windowshift.core.store.writer import Writer


@dataclass(frozen=True)
class Preview:
    """A plan with what it takes, what a person must know before, where its prices are from, and its pilot.

    `memory` is what it takes of the memory of the device that computes, where that is this machine's and not little.
    """

    plan: Plan
    estimate: PlanEstimate
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    pilot: PlanEstimate | None = None
    memory: MemoryForecast | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, with one sentence for every job that failed, and what its preflight came to.

    `look` is the last one at the contrasts, of a run that stops once they are decided.
    """

    state: ExperimentState
    failures: tuple[str, ...] = ()
    preflight: Preflight | None = None
    look: Look | None = None

    @property
    def exit_code(self) -> int:
        """0 done (as far as was asked), 1 some jobs failed, 3 stopped by its preflight, 130 interrupted."""
        if self.stopped:
            return 3
        return {"done": 0, "planned": 0, "failed": 1}.get(self.state, 130)

    @property
    def stopped(self) -> bool:
        """Whether the preflight stopped it."""
        return self.preflight is not None and bool(self.preflight.failed) and not self.preflight.anyway


def open_backends(spec: Spec) -> dict[str, Backend]:
    """Make the backends that a spec names, by name.

    Raises:
        WindowshiftError: one does not exist or is not installed, or an option is wrong.
    """
    try:
        return {name: registry.backend(name, spec.options_of(name)) for name in sorted(spec.backends)}
    except MissingExtraError:
        raise
    except BackendError as error:
        raise SpecError(f"backend_options: {error}") from error


def plan_spec(
    spec: Spec, text: str, folder: Path, backends: Mapping[str, Backend] | None = None, *, day: str | None = None
) -> Plan:
    """Plan a spec without running it; nothing is loaded, sent or written.

    Args:
        spec: the experiment.
        text: its YAML.
        folder: where relative prompt files are looked for first.
        backends: those that the spec names; None: opened here.
        day: the day that its prompts were told, where it is on record.

    Raises:
        WindowshiftError: the spec or a backend.
    """
    asked = open_backends(spec) if backends is None else backends
    return within_context(make_plan(spec, text, folder, asked, day=day), asked)


def preview(spec: Spec, text: str, folder: Path, workspace: Path) -> Preview:
    """Plan a spec and say what it takes; nothing is loaded or spent, and only an older store is written: migrated.

    Raises:
        WindowshiftError: as `run_spec`, of the spec and its backends; a service that cannot be asked is a note.
    """
    backends, away = unasked(spec, open_backends(spec))
    if is_older(workspace):  # what is done in it could not be read, nor the day that its prompts were told
        try:
            with hold(workspace, "migrate"):
                open_writer(workspace).close()
        except WorkspaceBusyError as error:
            held = str(error).partition("; ")[0]
            raise WorkspaceBusyError(f"{held}, and its store is older: plan again once that has ended") from error
    plan = plan_spec(spec, text, folder, backends, day=recorded_day(workspace, spec.name))
    return _preview(plan, backends, workspace, away)


def _preview(plan: Plan, backends: Mapping[str, Backend], workspace: Path, away: Sequence[str] = ()) -> Preview:
    notes = [*away, *plan.model.details.get("notes", ()), *plan.notes, *check_services(plan.spec, backends)]
    services = {name: backend for name, backend in backends.items() if isinstance(backend, Service)}
    known = [service.price(plan.spec.model) for service in services.values()]
    notes += truncation_notes(plan, workspace)
    pilot = pilot_of(plan)
    first = pilot_plan(plan, pilot, workspace) if pilot else None
    try:
        memory = _memory(plan, backends)
    except BackendError as error:
        memory = None
        notes.append(str(error))
    return Preview(
        plan,
        _left(plan, backends, workspace),
        tuple(notes),
        tuple(sorted({price.source for price in known if price is not None})),
        _left(first, backends, workspace) if first else None,
        memory,
    )


def _memory(plan: Plan, backends: Mapping[str, Backend]) -> MemoryForecast | None:
    """What the plan takes of this machine's memory; of backends of their own, the one that trains."""
    for name in (plan.spec.train_backend, plan.spec.generate_backend):
        backend = backends.get(name)
        if isinstance(backend, ForecastsMemory):
            return backend.memory(plan.spec.model, plan.spec.revision, memory_asked(plan))
    return None


def _left(plan: Plan, backends: Mapping[str, Backend], workspace: Path) -> PlanEstimate:
    """What is left of a plan, at the prices of its services."""
    services = {name: backend for name, backend in backends.items() if isinstance(backend, Service)}
    prices = {name: service.price for name, service in services.items()}
    batched = [name for name, service in services.items() if service.batched()]
    return estimate(plan, workspace, prices=prices, batched=batched)


def check_services(spec: Spec, backends: Mapping[str, Backend]) -> list[str]:
    """What a person must know of the services that a spec uses, before money is spent.

    Raises:
        SpecError: one cannot do what the spec asks, or a limit in USD cannot be kept.
    """
    judge = spec.data.filter.judge if spec.data.filter else None
    notes: list[str] = []
    for name, backend in backends.items():
        if not isinstance(backend, Service):
            continue
        models = [spec.model] if name in (spec.train_backend, spec.generate_backend) else []
        models += [judge.model] if judge and name == spec.judge_backend else []
        models += [one.model for one in spec.judges if (one.backend or spec.generate_backend) == name]
        for model in dict.fromkeys(models):
            sft = spec.sft.resolved() if name == spec.train_backend and model == spec.model else None
            steered = bool(spec.vectors) and name == spec.generate_backend and model == spec.model
            try:
                notes += [note for note in backend.check(model, sft, steered=steered) if note not in notes]
            except BackendError as error:
                raise SpecError(f"backend '{name}': {error}") from error
            price = backend.price(model)
            incomplete = price is not None and sft is not None and (price.training is None or price.tuned() is None)
            if spec.limits.usd is not None and (price is None or incomplete):
                raise SpecError(
                    f"limits.usd cannot be kept: {'a price' if incomplete else 'the price'} of '{model}' is not known; "
                    f"write  backend_options: {{prices: {{{model}: {{input: ..., output: ..., training: ..., "
                    "tuned_input: ..., tuned_output: ...}}}  in USD per million tokens, or  free"
                )
    return notes


def run_spec(
    spec: Spec,
    text: str,
    folder: str | Path,
    workspace: str | Path,
    *,
    wait: bool = False,
    vectors_only: bool = False,
    anyway: bool = False,
    until_decided: bool = False,
    cell: tuple[str, str, str, int] | None = None,
    observe: Callable[[Progress], None] = lambda _: None,
    waiting: Callable[[str], None] = lambda _: None,
    announce: Callable[[Preview], None] = lambda _: None,
    on_stop: Callable[[bool], None] = lambda _: None,
) -> Outcome:
    """Run a spec to its end in this process; from a notebook too, where an event loop runs already.

    An interrupt (Ctrl-C, or a notebook's) ends it as `interrupted`, and the same call goes on with it.

    Args:
        spec: the experiment.
        text: its YAML.
        folder: where relative prompt files are looked for first.
        workspace: the folder of the store; made if it is not there.
        wait: wait for a workspace that another run holds.
        vectors_only: do the jobs of the spec's vectors and what they need, and leave the grid for later.
        anyway: go on although gates of the spec's preflight fail, which is recorded.
        until_decided: train row by row, and stop once the contrasts of the spec are decided, which is recorded.
        cell: (generate, train, evaluate, seed): do one cell alone and what it needs; generate is empty of the base
            model's.
        observe: called a few times a second with the progress.
        waiting: called once with who holds the workspace, before waiting.
        announce: called with what the run will take, before anything is sent to a service.
        on_stop: called when a signal asks the run to stop; with True when the process ends at once, being asked
            again. It is called in the signal's handler.

    Raises:
        WindowshiftError: the spec, a backend, the workspace or its lock.
    """
    if anyway and spec.preflight is None:
        raise SpecError("--anyway passes over a preflight, and the spec has none: leave it out")
    if until_decided and not spec.contrasts:
        raise SpecError(
            "a run until the contrasts are decided needs contrasts, and the spec has none: add  contrasts:  to it, or "
            "leave out  --until decided"
        )
    if until_decided and (vectors_only or cell is not None):
        raise SpecError("a run until the contrasts are decided is of the whole grid: leave out the part of it")
    backends = open_backends(spec)
    workspace = Path(os.path.realpath(workspace))  # Path.resolve raises for a link that leads to itself
    plan = plan_spec(spec, text, Path(folder), backends, day=recorded_day(workspace, spec.name))
    plan = within_context(plan, backends)
    only = plan.needed_by(VECTOR_KINDS) if vectors_only else None if cell is None else plan.needed_for(*cell)
    if any(isinstance(backend, Service) for backend in backends.values()):
        asked = plan if only is None else plan.part(only)
        announce(_preview(asked, backends, workspace))  # nothing is spent before it was shown
    return run_plan(
        plan,
        backends,
        workspace,
        wait=wait,
        only=only,
        anyway=anyway,
        until_decided=until_decided,
        observe=observe,
        waiting=waiting,
        on_stop=on_stop,
    )


def run_plan(
    plan: Plan,
    backends: dict[str, Backend],
    workspace: Path,
    *,
    wait: bool = False,
    only: frozenset[str] | None = None,
    anyway: bool = False,
    until_decided: bool = False,
    observe: Callable[[Progress], None] = lambda _: None,
    waiting: Callable[[str], None] = lambda _: None,
    on_stop: Callable[[bool], None] = lambda _: None,
) -> Outcome:
    """Run a plan, or the jobs in `only`, as `run_spec` does with a spec's; the backends are closed at the end.

    Raises:
        WindowshiftError: a backend, the workspace or its lock.
    """
    name = plan.spec.name
    with hold(workspace, f"run {name}", wait=wait, on_wait=waiting):
        writer = Writer(workspace)
        try:
            with logging_to(within(workspace, "logs", f"{name}.log")):
                stopping = Stopping(on_stop)
                return _complete(_run(plan, writer, backends, observe, only, stopping, anyway, until_decided), stopping)
        finally:
            writer.close()


def _complete(work: Coroutine[None, None, Outcome], stopping: Stopping) -> Outcome:
    """Run a coroutine on an event loop of its own: in this thread, or beside the loop that runs in it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with stopping:
            return asyncio.run(work)
    task: asyncio.Task[Outcome] | None = None

    async def noted() -> Outcome:
        nonlocal task
        task = asyncio.ensure_future(work)
        return await task

    with ThreadPoolExecutor(1, "windowshift-run") as pool:
        ended = pool.submit(asyncio.run, noted())
        while True:
            try:
                return ended.result()
            except KeyboardInterrupt:  # a notebook's, in this thread; what is done is committed before it ends
                if task is not None:
                    task.get_loop().call_soon_threadsafe(task.cancel)


async def _run(
    plan: Plan,
    writer: Writer,
    backends: dict[str, Backend],
    observe: Callable[[Progress], None],
    only: frozenset[str] | None,
    stopping: Stopping,
    anyway: bool,
    until_decided: bool,
) -> Outcome:
    ledger = Ledger(plan, writer)
    ledger.begin()
    limits = plan.spec.limits.resolved()
    budget = Budget(limits.usd, ledger.spent())
    services = {name: backend for name, backend in backends.items() if isinstance(backend, Service)}
    for name, service in services.items():
        service.begin(limits, budget, ledger.artifacts.folder(name))
    for backend in backends.values():
        if isinstance(backend, ForecastsMemory):
            backend.expect(plan.spec.model, plan.spec.revision, memory_asked(plan))

    def observe_all(progress: Progress) -> None:
        observe(replace(progress, queues=tuple((name, service.queue()) for name, service in services.items())))

    seen = observe_all if services else observe

    async def whole() -> Outcome:
        found: Preflight | None = None
        pilot = pilot_of(plan) if only is None else None
        if pilot is not None:
            found, state = await fly(plan, pilot, ledger, backends, seen, anyway=anyway)
            stopped = Outcome("failed" if found else state, tuple(ledger.failures()), found)
            if found is None or stopped.stopped:
                ledger.end(stopped.state, stopped_by(found) if found else None)
                return stopped
        look: Look | None = None
        if until_decided:
            left = partial(_left, plan, backends, ledger.workspace)
            state, look = await run_until_decided(plan, ledger, backends, seen, left)
        else:
            state = await Runner(plan, ledger, backends, seen, only).run()
        ledger.end(state)
        return Outcome(state, tuple(ledger.failures()), found, look)

    task = asyncio.ensure_future(whole())
    stopping.cancels(task)
    try:
        return await task
    except asyncio.CancelledError:
        ledger.end("interrupted")
        return Outcome("interrupted", tuple(ledger.failures()))
    except WindowshiftError as error:
        with suppress(StoreError):  # a full disk cannot record why it ended
            ledger.end("interrupted", str(error))
        raise
    finally:
        for backend in backends.values():
            await backend.aclose()


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Let windowshift's log go to a file.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = LogFile(path)
    except OSError as error:
        raise StoreError(f"cannot write the log {path}: {error.strerror}") from error
    logger = logging.getLogger("windowshift")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
