"""Chat: one request at a time to an answer, through every fault that passes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from windowshift.backends.openai.answer import TOKENS_A_MESSAGE, most_prompt_tokens, read_answer
from windowshift.backends.openai.connection import OpenAIConnection
from windowshift.backends.openai.pacer import Pacer
from windowshift.backends.openai.repeat import pause
from windowshift.backends.shared.faults import Fault
from windowshift.backends.shared.refusal import failed, nonsense
from windowshift.backends.shared.said import load_json
from windowshift.core.contract.budget import Budget, BudgetSpentError
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Completion, GenerateRequest
from windowshift.core.contract.prices import Price

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CHARACTERS_A_TOKEN = 4  # of English; only the pace and the estimate go by it


class ChatSampler:
    """Answers requests of one call of `generate`.

    What says that no request will be answered (a wrong key, an empty account, a server that stays
    away) ends all of them with the same sentence; nothing more is sent.

    Args:
        connection: the server.
        pacer: when a request may go.
        budget: what may be spent.
        price: what a request's model costs; None: it is not known.
    """

    def __init__(
        self,
        connection: OpenAIConnection,
        pacer: Pacer,
        budget: Budget,
        price: Callable[[GenerateRequest], Price | None],
    ) -> None:
        self._connection, self._pacer, self._budget, self._price = connection, pacer, budget, price
        self._options = connection.options
        self._stopped: str | None = None
        self._last_answer = time.monotonic()
        self._new_name: set[str] = set()  # models that want `max_completion_tokens`

    async def complete(self, request: GenerateRequest) -> Completion:
        """Answer one request; what cannot be answered is a failed completion that says why."""
        problem = problem_of(request)
        if problem is not None:
            return failed(request, problem)
        price = self._price(request)
        most = 0.0 if price is None else price.completion(most_prompt_tokens(request), request.sampling.max_tokens)
        begun: float | None = None
        tries, lost = 0, 0.0
        while True:
            if self._stopped is not None:
                return failed(request, self._stopped, usd=lost or None)
            try:
                done = await self._once(request, price, most)
            except BudgetSpentError as error:
                return failed(request, str(error), usd=lost or None)
            except BackendError as error:  # no key, no SDK
                self._stopped = str(error)
                continue
            if isinstance(done, Completion):
                return done if not lost else replace(done, usd=(done.usd or 0.0) + lost)
            if done.maybe_done and done.status is None:
                lost += most
            begun = begun or time.monotonic()
            if self._learned_name(request, done):
                continue
            named = f"model '{model_name(request)}': {done.sentence}"
            if done.remedy == "stop":
                self._stopped = f"{self._options.base_url}: {done.sentence}"
                continue
            if done.remedy == "refused":
                return failed(request, named, usd=lost or None)
            tries += done.remedy == "again"
            waited = time.monotonic() - begun
            if tries >= self._options.tries:
                return failed(request, f"{named}; given up after {tries} tries", usd=lost or None)
            if waited > self._options.patience and (done.seconds is None or waited > 4 * self._options.patience):
                if self._last_answer < begun:  # nobody else was answered either: nobody will be
                    self._stopped = (
                        f"{self._options.base_url}: {done.sentence}; nothing was answered for {waited:.0f} s"
                    )
                return failed(request, f"{named}; given up after {waited:.0f} s", usd=lost or None)
            if done.remedy == "wait" or done.seconds is not None:
                longest = self._options.longest_backoff
                self._pacer.throttled(done.seconds, self._options.backoff, longest, ease=done.status == 429)
            else:
                await pause(self._options, tries - 1)

    async def _once(self, request: GenerateRequest, price: Price | None, most: float) -> Completion | Fault:
        """Send it once.

        Raises:
            BackendError: no key, no SDK, or nothing left of the budget.
        """
        client = self._connection.client
        await self._budget.reserve(most)
        paid = 0.0
        try:
            async with self._pacer.place(tokens_of(request)):
                if self._stopped is not None:
                    return Fault("stop", self._stopped)
                paid = most  # once it is sent, until it is known
                try:
                    answer, headers = await self._send(client, request)
                    completion = read_answer(request, answer, price, redactor=self._connection.redactor)
                except Exception as error:
                    fault = self._connection.fault(error)
                    if fault.status is not None or not fault.maybe_done:
                        paid = 0.0
                    return fault
                paid = completion.usd or 0.0
                self._last_answer = time.monotonic()
                self._pacer.answered(headers)
                return completion
        finally:
            await asyncio.shield(self._budget.settle(most, paid))

    async def _send(self, client: AsyncOpenAI, request: GenerateRequest) -> tuple[object, Mapping[str, str]]:
        try:
            response = await self._connection.send(client, "POST", "/chat/completions", self.body(request))
        except Exception as error:
            if (refused := getattr(error, "response", None)) is not None:
                self._pacer.learn(refused.headers)
            raise
        return load_json(response.content), response.headers

    def body(self, request: GenerateRequest) -> dict[str, Any]:
        """The request as the API takes it."""
        sampling, model = request.sampling, model_name(request)
        found: dict[str, Any] = {
            "model": model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_completion_tokens" if model in self._new_name else "max_tokens": sampling.max_tokens,
        }
        if self._options.seeds:
            found["seed"] = request.seed
        if self._options.logprobs or request.logprobs is not None:
            found["logprobs"] = True
        if request.logprobs:
            found["top_logprobs"] = request.logprobs
        return found

    def _learned_name(self, request: GenerateRequest, fault: Fault) -> bool:
        """Whether the model only wanted the newer name of `max_tokens`, which means the same."""
        name = model_name(request)
        if fault.status != 400 or name in self._new_name or "max_completion_tokens" not in fault.sentence:
            return False
        self._new_name.add(name)
        return True


def problem_of(request: GenerateRequest) -> str | None:
    """Why a request cannot be sent at all; None: it can."""
    if request.steering:
        return "backend 'openai' cannot steer"
    return nonsense(request)


def model_name(request: GenerateRequest) -> str:
    """The name of the request's model at the server: a fine-tune's, or the base model's."""
    return request.model.adapter or request.model.base


def tokens_of(request: GenerateRequest) -> int:
    """About how many tokens a server counts for a request against its limit: the prompt and `max_tokens`."""
    characters = sum(len(turn.content) for turn in request.messages)
    return characters // CHARACTERS_A_TOKEN + TOKENS_A_MESSAGE * len(request.messages) + request.sampling.max_tokens
