"""A backend without a model, and a run on it in this process: what lanes do when is all there is to see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from windowshift.core.contract.backend import Capabilities, ModelIdentity
from windowshift.core.contract.conditions import Condition
from windowshift.core.contract.generation import Completion, GenerateRequest
from windowshift.core.contract.progress import Progress
from windowshift.core.contract.records import ExperimentState
from windowshift.core.contract.setting import Scorer
from windowshift.core.contract.training import Trained, TrainEvent, TrainJob
from windowshift.core.plan.plan import Plan, make_plan
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.runner import Runner
from windowshift.core.settings.length import LengthSetting
from windowshift.core.spec import registry
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.writer import Writer

SPEC = """\
name: scripted
model: scripted
prompts: microworld
conditions: {{generate: {generate}, train: {train}, evaluate: [short, no_prefix]}}
data: {{size: {size}}}
sampling: {{prompts: {prompts}, max_tokens: 12}}
"""


@dataclass
class ScriptedBackend:
    """Answers with the seed of the request; `hold` is awaited before each answer or adapter, by its key."""

    hold: Callable[[str, GenerateRequest | TrainJob], Any] | None = None
    capabilities: Capabilities = field(default_factory=lambda: Capabilities(trains=True, checkpoints=True))
    calls: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def identify(self, base: str, revision: str | None = None) -> ModelIdentity:
        return ModelIdentity(base, "scripted")

    def supports_system(self, base: str, revision: str | None = None) -> bool:
        return True

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        self.calls.append(("generate", tuple(request.key for request in requests)))
        for request in requests:
            if self.hold is not None:
                await self.hold("generate", request)
            yield Completion(request.key, f"answer {request.seed % 1000}", "stop", 3, 5)

    async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        self.calls.append(("train", tuple(job.key for job in jobs)))
        for job in jobs:
            if self.hold is not None:
                await self.hold("train", job)
            adapter = job.output / "adapter"
            adapter.mkdir(parents=True, exist_ok=True)
            (adapter / "adapter_config.json").write_text("{}")
            yield Trained(job.key, str(adapter), len(job.examples))

    async def aclose(self) -> None:
        return


@dataclass(frozen=True)
class ScriptedSetting:
    """The conditions of `length`, with other scorers."""

    scorers: tuple[Scorer, ...]
    name: str = "scripted"

    def conditions(self) -> Mapping[str, Condition]:
        return LengthSetting().conditions()

    def default_prompts(self) -> str | None:
        return "microworld"


@dataclass
class ScriptedRun:
    """One run, with its parts in reach."""

    plan: Plan
    workspace: Path
    backend: ScriptedBackend
    seen: list[Progress] = field(default_factory=list)

    async def go(self, while_running: Callable[[Runner, Ledger], Any] | None = None) -> ExperimentState:
        with closing(Writer(self.workspace)) as writer:
            ledger = Ledger(self.plan, writer)
            ledger.begin()
            runner = Runner(self.plan, ledger, {"local": self.backend}, self.seen.append)
            task = asyncio.ensure_future(runner.run())
            try:
                if while_running is not None:
                    await while_running(runner, ledger)
                state = await task
                ledger.end(state)
            except asyncio.CancelledError:
                ledger.end("interrupted")
                raise
            finally:
                task.cancel()
            return state


def scripted(
    monkeypatch: pytest.MonkeyPatch,
    workspace: Path,
    scorers: tuple[Scorer, ...] = LengthSetting().scorers,
    backend: ScriptedBackend | None = None,
    *,
    generate: str = "[med_short]",
    train: str = "[short]",
    size: int = 4,
    prompts: int = 6,
    more: str = "",
) -> ScriptedRun:
    """Plan a small grid on a scripted backend, whose setting has these scorers."""
    monkeypatch.setattr(registry, "setting", lambda *_: ScriptedSetting(scorers))
    text = SPEC.format(generate=generate, train=train, size=size, prompts=prompts) + more
    backend = backend or ScriptedBackend()
    return ScriptedRun(make_plan(parse_spec(text), text, workspace, {"local": backend}), workspace, backend)
