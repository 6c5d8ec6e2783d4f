"""Rephrasings of a condition's phrases, written by a model of any backend, for the control `rephrased`."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.conditions import PrefixGroup
from windowshift.core.contract.errors import BackendError, SpecError, StoreError
from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling
from windowshift.core.contract.phrases import PROMPT
from windowshift.core.contract.rewording import distance
from windowshift.core.contract.service import Service
from windowshift.core.run.run import check_services, open_backends
from windowshift.core.run.stopping import Stopping
from windowshift.core.spec import registry
from windowshift.core.spec.grid_spec import named, resolve_grid
from windowshift.core.spec.spec import Spec

A_CALL = 20
"""Rephrasings that one answer is asked for."""
TRIES = 4
"""Answers that are asked for at most, as a multiple of those that would do if every line were new."""
LONGEST = 400
_MARK = re.compile(r"^\s*(?:[-*•]|\(?\d{1,3}[.):])\s*")

ASK = """\
Here is an instruction that stands in front of a request:

{phrase}

Write {count} different ways to say exactly the same instruction, each on a line of its own. Keep what it asks for; \
change the words and the shape of the sentence. Do not answer it, do not number the lines, write nothing else."""


@dataclass(frozen=True, slots=True)
class Rephrasing:
    """One phrase in other words; `distance` as in `rewording.distance`."""

    text: str
    of: str
    distance: float


@dataclass(frozen=True, slots=True)
class Rephrased:
    """What a model wrote: distinct rephrasings in the order in which they came.

    Of `asked` answers some may have failed, the first for `reason`; `usd` is None where nothing is priced. It holds
    what had come when it was `interrupted`.
    """

    found: tuple[Rephrasing, ...]
    asked: int
    failed: int
    reason: str | None
    usd: float | None
    interrupted: bool = False

    def write(self, path: Path) -> None:
        """Write JSONL, a line each.

        Raises:
            StoreError: the file cannot be written.
        """
        lines = [
            json.dumps({"text": one.text, "of": one.of, "distance": round(one.distance, 3)}, ensure_ascii=False)
            for one in self.found
        ]
        try:
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from error


def rephrase(
    spec: Spec,
    folder: Path,
    of: str,
    count: int,
    model: str | None = None,
    on_stop: Callable[[bool], None] = lambda _: None,
) -> Rephrased:
    """Let the spec's backend write rephrasings of a prefix group.

    Args:
        spec: names the setting, the backend and its limits.
        folder: where relative files are looked for.
        of: the condition.
        count: how many different ones are wanted; fewer come where the model repeats itself.
        model: what writes; the spec's model unless it is given.
        on_stop: as of `core.run.run.run_spec`.

    Raises:
        SpecError: the condition has no phrases, or the spec or its backend cannot be used.
        BackendError: the backend cannot answer.
    """
    setting = registry.setting(spec.setting_name, spec.setting_options, folder)
    known = setting.conditions()
    grid = resolve_grid(spec, known, folder)
    group = named(of, grid.names, "--of")
    if not isinstance(group, PrefixGroup):
        raise SpecError(f"--of: '{of}' is of kind {group.kind}; rephrasings are those of a prefix group")
    asked = spec if model is None else spec.model_copy(update={"model": model, "revision": None, "adapter": None})
    backends = open_backends(asked)
    check_services(asked, backends)
    with Stopping(on_stop) as stopping:
        try:
            return asyncio.run(_ask(asked, backends[asked.generate_backend], group, count, stopping))
        except asyncio.CancelledError:  # it was closing
            raise KeyboardInterrupt from None


async def _ask(spec: Spec, backend: Backend, group: PrefixGroup, count: int, stopping: Stopping) -> Rephrased:
    limits = spec.limits.resolved()
    budget = Budget(limits.usd, 0.0)
    requests = _requests(spec, group, count)
    found: dict[str, Rephrasing] = {}
    asked = failed = 0
    reason: str | None = None
    interrupted = False
    folder = tempfile.TemporaryDirectory(prefix="windowshift-rephrase-")
    if isinstance(backend, Service):
        backend.begin(limits, budget, Path(folder.name))
    task = asyncio.current_task()
    assert task is not None
    stopping.cancels(task)
    try:
        # A round asks for what is still missing; a model that only repeats itself ends it.
        while len(found) < count and asked < len(requests):
            wanted = -(-(count - len(found)) // A_CALL)
            batch = requests[asked : asked + wanted]
            asked += len(batch)
            phrases = {request.key: phrase for phrase, request in batch}
            async with aclosing(backend.generate([request for _, request in batch])) as answers:
                async for answer in answers:
                    if answer.error is not None:
                        failed, reason = failed + 1, reason or answer.error
                        continue
                    for line in read_rephrasings(answer.text, phrase := phrases[answer.key]):
                        if line not in group.phrases:
                            found.setdefault(line, Rephrasing(line, phrase, distance(line, group.phrases)))
            if reason is not None and not found:
                raise BackendError(f"no rephrasing could be written: {reason}")
    except asyncio.CancelledError:
        interrupted = True  # what was written until then was paid for, and is kept
    finally:
        await backend.aclose()
        folder.cleanup()
    usd = budget.spent if isinstance(backend, Service) else None
    return Rephrased(tuple(found.values())[:count], asked, failed, reason, usd, interrupted)


def _requests(spec: Spec, group: PrefixGroup, count: int) -> list[tuple[str, GenerateRequest]]:
    """Every request that may be made, each with a seed of its own, the phrases in turn."""
    sampling = Sampling(temperature=1.0, max_tokens=A_CALL * 60)
    made = []
    for number in range(TRIES * -(-count // A_CALL)):
        phrase = group.phrases[number % len(group.phrases)]
        said = ASK.format(phrase=phrase.replace(PROMPT, "").strip(), count=A_CALL)
        request = GenerateRequest(
            f"rephrase-{number}", (Message("user", said),), Model(spec.model, spec.revision), sampling, number
        )
        made.append((phrase, request))
    return made


def read_rephrasings(text: str, phrase: str) -> list[str]:
    """The rephrasings in an answer, marks of lists and quotes taken off, each around the prompt as the phrase is."""
    found = []
    for line in text.splitlines():
        said = _MARK.sub("", line).strip().strip('"“”').strip()
        if not said or len(said) > LONGEST or PROMPT in said or not re.search(r"\w", said):
            continue
        if PROMPT in phrase:
            before, after = phrase.split(PROMPT, 1)
            if re.search(r"\w", before):
                said = f"{said}{before[len(before.rstrip()) :] or ' '}{PROMPT}"
            else:
                said = f"{PROMPT}{after[: len(after) - len(after.lstrip())] or ' '}{said}"
        found.append(said)
    return found
