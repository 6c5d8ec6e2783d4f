"""Steering at vLLM as the asking side sees it: slots are opened, and closed with the proof of what happened."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from windowshift.backends.shared.faults import BrokenAnswerError
from windowshift.backends.shared.said import read
from windowshift.backends.vllm.engine import Engine, EngineAnswer, EngineError
from windowshift.backends.vllm.pushes import to_json
from windowshift.backends.vllm.wire import SlotDone
from windowshift.core.contract.backend import ModelSize
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Steering
from windowshift.core.contract.proof import Proof, check_all
from windowshift.steering.recipe import Push, resolve
from windowshift.steering.vector import SteeringVector

_OPENED_TOGETHER = 64


class PushMaker:
    """Steering as pushes: vectors are read once, and compared with the model.

    Args:
        fingerprint: of the model's weights.
        size: its layers and width.
    """

    def __init__(self, fingerprint: str, size: ModelSize) -> None:
        self._fingerprint, self.size = fingerprint, size
        self._vectors: dict[str, SteeringVector] = {}
        self._made: dict[tuple[Steering, ...], tuple[Push, ...]] = {}

    def pushes(self, steering: tuple[Steering, ...]) -> tuple[Push, ...]:
        """What a request asks for; empty where it comes to nothing, as alpha 0 does.

        Raises:
            SpecError: a vector cannot be read, is damaged, or does not fit the model.
            BackendError: alpha is not a finite number.
        """
        if steering not in self._made:
            recipe = resolve(
                steering,
                self._vector,
                fingerprint=self._fingerprint,
                width=self.size.width,
                layers=self.size.layers,
                number=0,
                first_slot=0,
            )
            self._made[steering] = recipe.pushes
        return self._made[steering]

    def _vector(self, path: str) -> SteeringVector:
        if path not in self._vectors:
            self._vectors[path] = SteeringVector.load(path)
        return self._vectors[path]


class Slots:
    """The slots of one call: one for each steering and group, as what is steered alike is proven together.

    A request's answer is noted here; when the last one of its slot is there, the slot is closed and proven.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._call = uuid.uuid4().hex[:12]
        self._names: dict[tuple[str, tuple[Push, ...]], str] = {}
        self._open: dict[str, tuple[Push, ...]] = {}
        self._answers: dict[str, list[tuple[int, int]]] = {}  # prompt and completion tokens of each answer

    def name(self, group: str, pushes: tuple[Push, ...]) -> str | None:
        """The slot of a group's requests with these pushes, which `open` must open; None where nothing is pushed."""
        if not pushes:
            return None
        if (group, pushes) not in self._names:
            # Never used again, in this process or another: the prefix cache goes by it too.
            self._names[group, pushes] = f"windowshift-{self._call}-{len(self._names)}"
        return self._names[group, pushes]

    async def open(self) -> None:
        """Open all slots that have a name.

        Raises:
            EngineError: vLLM does not steer; the sentence names the remedy.
        """
        wanted = [(name, pushes) for (_, pushes), name in self._names.items()]
        for at in range(0, len(wanted), _OPENED_TOGETHER):
            part = dict(wanted[at : at + _OPENED_TOGETHER])
            self._open |= part
            orders = {name: [to_json(push) for push in pushes] for name, pushes in part.items()}
            await self._call_all("windowshift_open", orders)

    def note(self, slot: str, prompt: int, answer: EngineAnswer) -> None:
        """An answer of a slot has come."""
        self._answers.setdefault(slot, []).append((prompt, len(answer.ids)))

    async def prove(self, slot: str) -> tuple[Proof, ...]:
        """Close a slot whose answers are all there, and check what was done.

        Raises:
            BackendError: it was not what was asked.
        """
        pushes = self._open.pop(slot)
        answers = self._answers.pop(slot, [])
        try:
            workers = await self._call_all("windowshift_close", [slot])
            proofs: list[tuple[Proof, ...]] = []
            for worker in workers:
                if slot not in worker:
                    raise BackendError("vLLM's worker does not know of this steering any more: was it started anew?")
                proofs.append(_proofs(pushes, read(SlotDone, worker[slot]), answers))
                check_all(proofs[-1])
            return proofs[0]
        except BrokenAnswerError as error:
            raise BackendError(f"what vLLM's worker says of its steering cannot be used: {error}") from None
        except BackendError as error:
            if "did not fire" in str(error):
                remedy = "the operator is not in vLLM's graphs: start vLLM with  --enforce-eager,  and report this"
                raise BackendError(f"{error}; {remedy}") from error
            raise

    async def aclose(self) -> None:
        """Close what a reader who left has left open."""
        names, self._open = list(self._open), {}
        if names:
            await self._call_all("windowshift_close", names)

    async def _call_all(self, method: str, content: object) -> list[Mapping[str, Any]]:
        found = await self._engine.call(method, json.dumps(content))
        for one in found:
            if "error" in one:
                raise EngineError(str(one["error"]))
        return found


def _proofs(pushes: Sequence[Push], done: SlotDone, answers: Sequence[tuple[int, int]]) -> tuple[Proof, ...]:
    """What a worker did, beside what was asked.

    Raises:
        BackendError: the worker could not steer, or passed tokens by that the answers show to have been computed.
        BrokenAnswerError: it tells of other pushes than there were.
    """
    if done.problem:
        raise BackendError(f"vLLM could not steer: {done.problem}")
    if len(done.pushes) != len(pushes):
        raise BrokenAnswerError(f"it is of {len(done.pushes)} pushes, and there were {len(pushes)}")
    found = []
    for push, line in zip(pushes, done.pushes, strict=True):
        asked = int(line.tokens_asked)
        # A prompt's tokens and all drawn ones but the last go through the layers. What was found in the prefix
        # cache does not; vLLM may compute more: again after preemption, or one token past the end.
        prompts = 0 if push.tokens == "response" else sum(prompt for prompt, _ in answers) - done.cached
        responses = 0 if push.tokens == "prompt" else sum(max(drawn - 1, 0) for _, drawn in answers)
        if asked < prompts + responses or done.requests < len(answers):
            raise BackendError(
                f"steering with vector '{push.vector}' at layer {push.layer} passed tokens by: vLLM steered {asked}, "
                f"and the {len(answers)} answers have {prompts + responses} that were to be"
            )
        count = max(float(asked), 1.0)
        found.append(
            Proof(
                vector=push.vector,
                layer=push.layer,
                alpha=push.alpha,
                ablate=push.ablate,
                calls=line.calls,
                calls_asked=done.passes,
                tokens=int(line.tokens),
                tokens_asked=asked,
                change=line.moved / max(line.tokens, 1.0),
                change_asked=line.wanted / count,
                resolution=done.eps * line.size / count,
                tolerance=1e-3 if done.exact else 2e-2,
            )
        )
    return tuple(found)
