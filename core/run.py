"""Running a spec: the lock, the plan, the runner and its end, for the command line and for notebooks."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from windowshift.core import registry
from windowshift.core.backend import Backend
from windowshift.core.errors import BackendError, MissingExtraError, SpecError, StoreError, WindowshiftError
from windowshift.core.ledger import Ledger
from windowshift.core.lock import hold
from windowshift.core.plan import Plan, make_plan
from windowshift.core.progress import Progress
from windowshift.core.records import VECTOR_KINDS, ExperimentState
from windowshift.core.runner import Runner
from windowshift.core.spec import Spec
from windowshift.core.writer import Writer


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, with one sentence for every job that failed."""

    state: ExperimentState
    failures: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 done (as far as was asked), 1 some jobs failed, 130 interrupted or cancelled."""
        return {"done": 0, "planned": 0, "failed": 1}.get(self.state, 130)


def open_backends(spec: Spec) -> dict[str, Backend]:
    """Make the backends that a spec names, by name.

    Raises:
        WindowshiftError: one does not exist or is not installed, or an option is wrong.
    """
    judge = spec.data.filter.judge.backend if spec.data.filter and spec.data.filter.judge else None
    names = {spec.train_backend, spec.generate_backend} | ({judge} if judge else set())
    try:
        return {name: registry.backend(name, spec.backend_options) for name in sorted(names)}
    except MissingExtraError:
        raise
    except BackendError as error:
        raise SpecError(f"backend_options: {error}") from error


def plan_spec(spec: Spec, text: str, folder: Path) -> Plan:
    """Plan a spec without running it; nothing is loaded, sent or written."""
    return make_plan(spec, text, folder, open_backends(spec))


def run_spec(
    spec: Spec,
    text: str,
    folder: Path,
    workspace: Path,
    *,
    wait: bool = False,
    vectors_only: bool = False,
    observe: Callable[[Progress], None] = lambda _: None,
    waiting: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run a spec to its end in this process.

    Args:
        spec: the experiment.
        text: its YAML.
        folder: where relative prompt files are looked for first.
        workspace: the folder of the store; made if it is not there.
        wait: wait for a workspace that another run holds.
        vectors_only: do the jobs of the spec's vectors and what they need, and leave the grid for later.
        observe: called a few times a second with the progress.
        waiting: called once with who holds the workspace, before waiting.

    Raises:
        WindowshiftError: the spec, a backend, the workspace or its lock.
    """
    backends = open_backends(spec)
    plan = make_plan(spec, text, folder, backends)
    workspace = workspace.resolve()
    with hold(workspace, f"run {spec.name}", wait=wait, on_wait=waiting):
        writer = Writer(workspace)
        try:
            with logging_to(workspace / "logs" / f"{spec.name}.log"):
                only = plan.needed_by(VECTOR_KINDS) if vectors_only else None
                return asyncio.run(_run(plan, writer, backends, observe, only))
        finally:
            writer.close()


async def _run(
    plan: Plan,
    writer: Writer,
    backends: dict[str, Backend],
    observe: Callable[[Progress], None],
    only: frozenset[str] | None,
) -> Outcome:
    ledger = Ledger(plan, writer)
    ledger.begin()
    task = asyncio.ensure_future(Runner(plan, ledger, backends, observe, only).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, ValueError, RuntimeError):  # not the main thread, or Windows
            loop.add_signal_handler(number, task.cancel)
    try:
        state = await task
        ledger.end(state)
        return Outcome(state, tuple(ledger.failures()))
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
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write the log {path}: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("windowshift")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
