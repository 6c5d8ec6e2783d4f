"""Sampling: completions from base models and from sampler weights, many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from windowshift.backends.local.chat_format import spent
from windowshift.backends.local.drawn_token import DrawnToken
from windowshift.backends.openai.pacer import Pacer
from windowshift.backends.shared.faults import Fault, ServiceError
from windowshift.backends.shared.refusal import failed, nonsense, unanswered
from windowshift.backends.tinker import said
from windowshift.backends.tinker.adapter_folder import RemoteAdapter
from windowshift.backends.tinker.connection import TinkerConnection, closed
from windowshift.backends.tinker.tokens import ModelTokens
from windowshift.backends.tinker.training import expired
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Completion, GenerateRequest
from windowshift.core.contract.prices import Price

if TYPE_CHECKING:
    from tinker import SamplingClient, ServiceClient

T = TypeVar("T")
SEEDS = 1 << 31
_TRIES = 3


class TinkerSampler:
    """Answers requests of one backend.

    What says that no request will be answered (a wrong key, a server that stays away) ends all of them with
    the same sentence; nothing more is sent.

    Args:
        connection: the server.
        tokens: the tokenizer of a model.
        pacer: when a request may go.
        budget: what may be spent.
        price: what a model costs; None: it is not known.
    """

    def __init__(
        self,
        connection: TinkerConnection,
        tokens: Callable[[str], ModelTokens],
        pacer: Pacer,
        budget: Budget,
        price: Callable[[str], Price | None],
    ) -> None:
        self._connection, self._tokens, self._pacer = connection, tokens, pacer
        self._budget, self._price = budget, price
        self._session: ServiceClient | None = None
        self._sessions: list[ServiceClient] = []
        self._opening = asyncio.Lock()
        self._clients: dict[tuple[str, str | None], asyncio.Task[SamplingClient]] = {}
        self._stopped: str | None = None

    async def complete(self, request: GenerateRequest) -> Completion:
        """Answer one request; what cannot be answered is a failed completion that says why."""
        problem = _problem(request)
        if problem is not None:
            return failed(request, problem)
        if self._stopped is not None:
            return failed(request, self._stopped)
        prompt: list[int] = []
        try:
            offered = await asyncio.to_thread(self._connection.model, request.model.base)
            if not offered.sampleable:
                raise BackendError(
                    f"the server at {self._connection.options.base_url} does not sample from '{offered.name}'"
                )
            tokens = await asyncio.to_thread(self._tokens, request.model.base)
            prompt = tokens.chat_of(request.model).prompt_ids(request.messages)
            if not prompt:
                raise BackendError("the prompt has no tokens")
            if offered.context is not None and len(prompt) + request.sampling.max_tokens > offered.context:
                raise BackendError(
                    f"a prompt of {len(prompt)} tokens and max_tokens {request.sampling.max_tokens} do not fit the "
                    f"{offered.context} tokens of '{offered.name}': lower max_tokens or shorten the prompt"
                )
            return await self._within_budget(request, tokens, prompt)
        except ServiceError as error:
            if error.fault.remedy != "refused" and not error.fault.broken:  # one broken answer is of one request
                self._stopped = str(error)
            return failed(request, str(error), len(prompt))
        except BackendError as error:
            return failed(request, str(error), len(prompt))

    async def aclose(self) -> None:
        """End the sessions."""
        for task in self._clients.values():
            task.cancel()
        await asyncio.gather(*self._clients.values(), return_exceptions=True)
        self._clients.clear()
        sessions, self._sessions, self._session = self._sessions, [], None
        for session in sessions:
            await closed(session, "success")

    # -- one request ----------------------------------------------------------------------------

    async def _within_budget(self, request: GenerateRequest, tokens: ModelTokens, prompt: list[int]) -> Completion:
        price = self._price(request.model.base)
        sampling = request.sampling
        passes = 1 + request.coherence + _rescored(request)
        most = 0.0
        if price is not None:
            again = (passes - 1) * (len(prompt) + sampling.max_tokens)
            most = price.completion(passes * len(prompt) + again, sampling.max_tokens)
        await self._budget.reserve(most)
        usd = 0.0
        try:
            async with self._pacer.place(len(prompt) + sampling.max_tokens):
                usd = most  # until it is known what was drawn
                drawn = await self._repeated(
                    request,
                    lambda client: client.sample(
                        prompt=_input(prompt),
                        num_samples=1,
                        sampling_params=_params(request, tokens),
                        topk_sample_logprobs=request.logprobs or 0,
                    ),
                    lambda answer: said.drawn(answer, request),
                )
                ids, ended = drawn.ids, drawn.ended
                usd = 0.0 if price is None else price.completion(len(prompt), len(ids))
                if ended and ids and ids[-1] in tokens.end_ids:
                    ids.pop()
                written = tokens.chat_of(request.model).written(ids)
                start = written.start
                logprob = None
                if request.coherence and start < len(ids):
                    logprob = sum(await self._scores(request, [*prompt, *ids[:start]], ids[start:], base=True))
                if price is not None and ids:
                    usd += (passes - 1) * price.completion(len(prompt) + len(ids), 0)
                scores = await self._token_scores(request, drawn, prompt, ids)
                self._pacer.answered({})
                paid = usd if price is not None else None
                if spent(written, cut=not ended):
                    return unanswered(
                        request, written.reasoning or "", len(ids), cut=not ended, prompt_tokens=len(prompt), usd=paid
                    )
                return Completion(
                    key=request.key,
                    text=written.text or "",
                    finish="stop" if ended else "length",
                    tokens=len(ids) - start,
                    prompt_tokens=len(prompt),
                    logprob=logprob,
                    token_logprobs=None if scores is None else tokens.chat.token_logprobs(scores[start:]),
                    usd=paid,
                    reasoning=written.reasoning,
                    reasoning_tokens=start,
                )
        except ServiceError as error:
            if not error.fault.maybe_done:
                usd = 0.0
            raise
        finally:
            await asyncio.shield(self._budget.settle(most, usd))

    async def _token_scores(
        self, request: GenerateRequest, drawn: said.DrawnSequence, prompt: list[int], ids: list[int]
    ) -> list[DrawnToken] | None:
        """The drawn tokens with the model's own log-probabilities, at temperature 1."""
        if request.logprobs is None:
            return None
        tops = drawn.tops
        if not _rescored(request):
            logprobs = drawn.logprobs[: len(ids)]
            if len(logprobs) < len(ids):
                raise BackendError("the server gave no log-probabilities of the tokens that it drew")
        else:
            logprobs = await self._scores(request, prompt, ids, base=False)
            tops = []  # those of the distribution that was drawn from are not the model's own
        found = []
        for at, (token, logprob) in enumerate(zip(ids, logprobs, strict=True)):
            found.append(DrawnToken(token, logprob, tops[at] if at < len(tops) else ()))
        return found

    async def _scores(self, request: GenerateRequest, prompt: list[int], ids: list[int], *, base: bool) -> list[float]:
        """Log-probabilities of completion tokens, in nats."""
        if not ids:
            return []
        return await self._repeated(
            request,
            lambda client: client.compute_logprobs(_input([*prompt, *ids])),
            lambda answer: said.scores(answer, len(prompt), len(ids)),
            base=base,
        )

    async def _repeated(
        self,
        request: GenerateRequest,
        ask: Callable[[SamplingClient], Any],
        read: Callable[[Any], T],
        *,
        base: bool = False,
    ) -> T:
        """Ask a sampling client; one whose session the server has lost is made anew."""
        adapter = None if base else request.model.adapter
        what = f"model '{request.model.base}'" if adapter is None else f"adapter '{adapter}'"
        tries = 0
        while True:
            client = await self._client(request.model.base, adapter)
            try:
                return await self._connection.result(what, ask(client), read)
            except ServiceError as error:
                tries += 1
                gone = error.fault.status == 404
                if tries >= _TRIES or not (gone or error.fault.remedy in ("again", "wait")):
                    raise
                if not error.fault.broken:
                    self._forget(request.model.base, adapter, client)
                await self._connection.present(what)
                await asyncio.sleep(tries)

    async def _client(self, base: str, adapter: str | None) -> SamplingClient:
        """The client of one model or adapter; made once for all who ask.

        Raises:
            BackendError: the adapter is none, has expired, or is another model's.
        """
        key = (base, adapter)
        if key not in self._clients:
            self._clients[key] = asyncio.create_task(self._opened(base, adapter))
        task = self._clients[key]
        try:
            return await asyncio.shield(task)
        except BaseException:
            if task.done() and self._clients.get(key) is task:
                del self._clients[key]
            raise

    async def _opened(self, base: str, adapter: str | None) -> SamplingClient:
        session = await self._shared()
        if adapter is None:
            return await self._connection.open(
                f"model '{base}'", lambda: session.create_sampling_client(base_model=base)
            )
        remote = RemoteAdapter.read(adapter)
        if remote.model and remote.model != base:
            raise BackendError(f"adapter '{adapter}' was trained on '{remote.model}', not on '{base}'")
        mine = self._connection.options.base_url
        if remote.server and _place(remote.server) != _place(mine):
            raise BackendError(f"adapter '{adapter}' is at {remote.server}, not at {mine}: set base_url")
        try:
            return await self._connection.open(
                f"adapter '{adapter}'", lambda: session.create_sampling_client(model_path=remote.path)
            )
        except ServiceError as error:
            if error.fault.status != 404:
                raise
            raise ServiceError(expired(adapter, remote, error), Fault("refused", str(error), status=410)) from None

    async def _shared(self) -> ServiceClient:
        """One session for all clients."""
        async with self._opening:
            if self._session is None:
                self._session = await asyncio.to_thread(self._connection.session, "sampling")
                self._sessions.append(self._session)
            return self._session

    def _forget(self, base: str, adapter: str | None, client: SamplingClient) -> None:
        task = self._clients.get((base, adapter))
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return
        if task.result() is client:
            del self._clients[base, adapter]
            self._session = None  # the server may not know it any more; others keep theirs


def _input(ids: list[int]) -> Any:
    import tinker

    return tinker.ModelInput.from_ints(ids)


def _params(request: GenerateRequest, tokens: ModelTokens) -> Any:
    import tinker

    return tinker.SamplingParams(
        max_tokens=request.sampling.max_tokens,
        temperature=request.sampling.temperature,
        top_p=request.sampling.top_p,
        seed=request.seed % SEEDS,
        stop=sorted(tokens.end_ids),
    )


def _rescored(request: GenerateRequest) -> bool:
    """Whether drawn tokens must be scored in a pass of their own: they were drawn from a changed distribution."""
    return request.logprobs is not None and (request.sampling.temperature != 1.0 or request.sampling.top_p != 1.0)


def _place(address: str) -> str:
    """An address without its port on this machine: a server there may have another one each time."""
    for name in ("127.0.0.1", "localhost"):
        if f"//{name}" in address:
            return "localhost"
    return address


def _problem(request: GenerateRequest) -> str | None:
    if request.steering:
        return "backend 'tinker' cannot steer: name one that does, e.g. local or vllm"
    return nonsense(request)
