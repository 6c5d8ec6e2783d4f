"""Answers: requests to one base model as questions to vLLM, and back as completions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from windowshift.backends.local.chat_format import spent
from windowshift.backends.shared.pool import pooled
from windowshift.backends.shared.refusal import failed, library_reason, nonsense, unanswered
from windowshift.backends.vllm.adapters import AdapterFolder, Shelf
from windowshift.backends.vllm.engine import Engine, EngineAnswer, EngineError, EngineRequest, Served
from windowshift.backends.vllm.order import Asked, ordered
from windowshift.backends.vllm.prompts import TokenPrompts
from windowshift.backends.vllm.steering import PushMaker, Slots
from windowshift.backends.vllm.turnstile import Turnstile
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.generation import Completion, GenerateRequest
from windowshift.core.contract.proof import Proof

log = logging.getLogger("windowshift.vllm")
_SEEDS = 1 << 63
_RENDERED_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers requests to one base model.

    Args:
        engine: what answers.
        served: the base model there.
        prompts: how its chats are written.
        pushes: how its steering is resolved.
        shelf: the adapters that the engine knows.
        turnstile: what keeps apart requests that the engine cannot answer together.
        concurrency: requests of one call under way at once, at most.
        places: those of all calls together.
    """

    engine: Engine
    served: Served
    prompts: TokenPrompts
    pushes: PushMaker
    shelf: Shelf
    turnstile: Turnstile
    concurrency: int
    places: asyncio.Semaphore

    async def stream(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        """Answer all requests, each as its answer arrives; a steered one once its steering is proven."""
        slots = Slots(self.engine)
        adapters: dict[str, AdapterFolder] = {}
        asked: list[Asked] = []
        for place, request in enumerate(requests):
            if place % _RENDERED_TOGETHER == 0:
                await asyncio.sleep(0)  # others may want the event loop while very many prompts are rendered
            made = self._asked(place, request, slots, adapters)
            if isinstance(made, Completion):
                yield made
            else:
                asked.append(made)
        try:
            await slots.open()
        except WindowshiftError as error:
            for one in asked:
                if one.slot is not None:
                    yield failed(one.request, str(error), len(one.prompt))
            asked = [one for one in asked if one.slot is None]
        held = _Held(slots, asked)
        answered = pooled(ordered(asked), self.concurrency, lambda one: self._answered(one, slots))
        try:
            async for one, completion in answered:
                for each in await held.take(one, completion):
                    yield each
        finally:
            await answered.aclose()
            with suppress(EngineError):  # the server may be gone, which has been said already
                await slots.aclose()

    def _asked(
        self, place: int, request: GenerateRequest, slots: Slots, adapters: dict[str, AdapterFolder]
    ) -> Asked | Completion:
        """A request made ready, or the completion that says why it cannot be answered."""
        prompt: tuple[int, ...] = ()
        problem = nonsense(request)
        try:
            if problem is None:
                prompt = tuple(self.prompts.chat_of(request.model).prompt_ids(request.messages))
                problem = self._too_long(request, len(prompt))
            if problem is None:
                folder = request.model.adapter
                if folder is not None and folder not in adapters:
                    adapters[folder] = AdapterFolder.at(folder, request.model.base, self.pushes.size)
                adapter = None if folder is None else adapters[folder]
                pushes = self.pushes.pushes(request.steering)
                return Asked(place, request, prompt, adapter, pushes, slots.name(request.group, pushes))
        except WindowshiftError as error:
            problem = str(error)
        return failed(request, problem or "the prompt has no tokens", len(prompt))

    def _too_long(self, request: GenerateRequest, prompt: int) -> str | None:
        if not prompt:
            return "the prompt has no tokens"
        most, limit = request.sampling.max_tokens, self.served.max_model_len
        # vLLM reads a text for its log-probabilities only where one more token would fit.
        more = 1 if request.coherence and (request.steering or request.model.adapter) else 0
        if prompt + most + more <= limit:
            return None
        return (
            f"a prompt of {prompt} tokens and max_tokens {most}{' and one more for coherence' if more else ''} do not "
            f"fit the max_model_len {limit} of '{self.served.name}' at vLLM: lower max_tokens, shorten the prompt, or "
            "start vLLM with a larger  --max-model-len"
        )

    async def _answered(self, one: Asked, slots: Slots) -> tuple[Asked, Completion]:
        try:
            async with self.places:
                return one, await self._completion(one, slots)
        except WindowshiftError as error:
            return one, failed(one.request, str(error), len(one.prompt))
        except Exception as error:  # raised while an answer was read: one broken answer is of one request
            log.exception("an answer of vLLM cannot be read")
            return one, failed(one.request, f"vLLM's answer cannot be used: {library_reason(error)}", len(one.prompt))

    async def _completion(self, one: Asked, slots: Slots) -> Completion:
        request, sampling = one.request, one.request.sampling
        plain = one.adapter is None and one.slot is None
        question = EngineRequest(
            prompt=one.prompt,
            adapter=None,
            temperature=sampling.temperature,
            top_p=sampling.top_p if sampling.temperature else 1.0,
            max_tokens=sampling.max_tokens,
            seed=request.seed % _SEEDS,
            stop=tuple(sorted(self.prompts.end_ids)),
            # The base model's own probabilities come with its own completion.
            logprobs=0 if request.logprobs is None and request.coherence and plain else request.logprobs,
            slot=one.slot,
        )
        answer = await self._ask(one.adapter, question)
        if one.slot is not None:
            slots.note(one.slot, len(one.prompt), answer)
        ids = answer.ids[:-1] if answer.stopped and answer.ids[-1:] and answer.ids[-1] in question.stop else answer.ids
        if len(ids) > sampling.max_tokens:
            raise EngineError(f"vLLM answered with {len(ids)} tokens, and {sampling.max_tokens} were asked")
        if not answer.stopped and len(ids) != sampling.max_tokens:
            raise EngineError(
                f"vLLM cut a completion off after {len(ids)} tokens, and {sampling.max_tokens} were asked"
            )
        written = self.prompts.chat_of(request.model).written(ids)
        if spent(written, cut=not answer.stopped):
            return unanswered(
                request, written.reasoning or "", len(ids), cut=not answer.stopped, prompt_tokens=len(one.prompt)
            )
        drawn = answer.drawn[written.start : len(ids)]
        logprob: float | None = None
        if request.coherence and written.start < len(ids):
            if plain:
                logprob = sum(token.logprob for token in drawn)
            else:
                text = [*one.prompt, *ids]
                async with self.turnstile.through("alone"):
                    logprob = sum(await self.engine.score(self.served.name, text, len(one.prompt) + written.start))
        return Completion(
            key=request.key,
            text=written.text or "",
            finish="stop" if answer.stopped else "length",
            tokens=len(ids) - written.start,
            prompt_tokens=len(one.prompt),
            logprob=logprob,
            token_logprobs=None if request.logprobs is None else self.prompts.chat.token_logprobs(drawn),
            reasoning=written.reasoning,
            reasoning_tokens=written.start,
        )

    async def _ask(self, adapter: AdapterFolder | None, question: EngineRequest) -> EngineAnswer:
        if adapter is None:
            async with self.turnstile.through("base"):
                return await self.engine.complete(self.served.name, question)
        question = replace(question, adapter=await self.shelf.take(adapter))
        try:
            async with self.turnstile.through("adapter"):
                try:
                    return await self.engine.complete(self.served.name, question)
                except EngineError as error:
                    if error.status != 404:
                        raise
                    await self.shelf.load_again(adapter)  # a server that was restarted knows none
                    return await self.engine.complete(self.served.name, question)
        finally:
            self.shelf.put_back(adapter)


class _Held:
    """Steered completions are held back until the last of their slot is there and its proof holds."""

    def __init__(self, slots: Slots, asked: Sequence[Asked]) -> None:
        self._slots = slots
        self._left: dict[str, int] = {}
        self._waiting: dict[str, list[tuple[Asked, Completion]]] = {}
        for one in asked:
            if one.slot is not None:
                self._left[one.slot] = self._left.get(one.slot, 0) + 1

    async def take(self, one: Asked, completion: Completion) -> list[Completion]:
        """Take an answer; what can be given out now."""
        if one.slot is None:
            return [completion]
        waiting = self._waiting.setdefault(one.slot, [])
        waiting.append((one, completion))
        self._left[one.slot] -= 1
        if self._left[one.slot]:
            return []
        proofs: tuple[Proof, ...] = ()
        problem: str | None = None
        try:
            proofs = await self._slots.prove(one.slot)
        except WindowshiftError as error:
            problem = str(error)
        del self._waiting[one.slot]
        found = []
        for each, made in waiting:
            if made.finish == "failed" and not made.unanswered:
                found.append(made)
            elif problem is not None:
                found.append(failed(each.request, problem, len(each.prompt)))
            else:
                found.append(replace(made, proofs=proofs))
                proofs = ()  # one of them carries it
        return found
