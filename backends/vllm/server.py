"""A vLLM server at an address, behind its OpenAI-style API; token ids go in and come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from windowshift.backends.local.drawn_token import DrawnToken
from windowshift.backends.shared.faults import BrokenAnswerError
from windowshift.backends.shared.said import REPEATS_KEY, read
from windowshift.backends.vllm.connection import VllmConnection
from windowshift.backends.vllm.engine import (
    SLOT,
    CacheCounts,
    EngineAnswer,
    EngineError,
    EngineRequest,
    Served,
)
from windowshift.backends.vllm.options import VllmOptions
from windowshift.backends.vllm.wire import DrawnAnswer, Logprobs, ModelCards, ScoredAnswer, cache_counts_in, drawn_in

LORA_REMEDY = "start the server with  --enable-lora  and the environment variable VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
STEERING_REMEDY = (
    "start the server with  --worker-extension-cls windowshift.backends.vllm.worker_extension.SteeringWorker  "
    "and the environment variable VLLM_SERVER_DEV_MODE=1"
)


class ServerEngine:
    """Asks a vLLM server that runs elsewhere.

    Args:
        options: with `base_url`.
    """

    def __init__(self, options: VllmOptions) -> None:
        self._http = VllmConnection(options)
        self._address = self._http.address

    @property
    def key_source(self) -> str:
        """Where the key was found."""
        return self._http.key_source

    @property
    def away(self) -> bool:
        """Whether the server is being waited for."""
        return self._http.away

    # -- without an event loop ------------------------------------------------------------------

    def look(self) -> tuple[Served, ...]:
        """The server's base models, asked without an event loop."""
        return self._models(self._http.look("/v1/models"))

    def look_ready(self, *, steered: bool) -> None:
        """See, without an event loop, whether the server was started for adapters, and for steering where it is wanted.

        Raises:
            EngineError: it was not; the sentence says how it is to be started.
        """
        try:
            self._http.look("/v1/load_lora_adapter", {})
        except EngineError as error:
            if error.status == 404:
                raise EngineError(f"the vLLM server at {self._address} loads no adapters: {LORA_REMEDY}", 404) from None
            if error.status not in (400, 422):  # an order without a name, as is meant here
                raise
        if not steered:
            return
        try:
            found = self._http.look("/collective_rpc", {"method": "windowshift_about", "args": ["null"]})
        except EngineError as error:
            raise self._cannot_steer(error) from None
        for result in self._workers(found):
            if "error" in result:
                said = self._http.redactor.said(result["error"])
                raise EngineError(f"the vLLM server at {self._address} cannot steer: {said}")

    # -- the engine -----------------------------------------------------------------------------

    async def served(self) -> Sequence[Served]:
        """The server's base models."""
        return self._models(await self._http.json("GET", "/v1/models"))

    async def extended(self) -> bool:
        """Whether the server was started with the extension, and lets it be called."""
        try:
            await self._http.json("POST", "/collective_rpc", {"method": "windowshift_about", "args": ["null"]})
        except EngineError as error:
            if error.status is None:  # nobody has said so
                raise
            return False
        return True

    async def complete(self, model: str, question: EngineRequest) -> EngineAnswer:
        """Draw one completion.

        Raises:
            EngineError: the server refused, or answered with another model than the one asked for.
        """
        name = question.adapter or model
        body: dict[str, Any] = {
            "model": name,
            "prompt": list(question.prompt),
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "top_p": question.top_p,
            # Said outright, so that the server's own defaults have no part in it.
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": question.seed,
            "stop_token_ids": list(question.stop),
            "add_special_tokens": False,
            "return_token_ids": True,
        }
        if question.logprobs is not None:
            body |= {"logprobs": question.logprobs, "return_tokens_as_token_ids": True}
        if question.slot is not None:
            body |= {"vllm_xargs": {SLOT: question.slot}, "cache_salt": question.slot}
        found = await self._http.json("POST", "/v1/completions", body)
        try:
            said = read(DrawnAnswer, found)
            (choice,) = said.choices
            drawn: tuple[DrawnToken, ...] = ()
            if question.logprobs is not None:
                drawn = drawn_in(read(Logprobs, choice.logprobs), question.logprobs)
                if len(drawn) != len(choice.token_ids):
                    raise BrokenAnswerError("its log-probabilities are of another number of tokens")
        except BrokenAnswerError as error:
            raise self._http.broken(str(error)) from None
        self._check_model(said.model, name)
        if choice.finish_reason not in ("stop", "length"):
            ended = self._http.redactor.said(choice.finish_reason, 60)
            raise EngineError(f"the vLLM server ended a request with '{ended}'")
        return EngineAnswer(tuple(choice.token_ids), choice.finish_reason == "stop", drawn)

    async def score(self, model: str, ids: Sequence[int], first: int) -> list[float]:
        """Log-probabilities of ids that are given.

        Raises:
            EngineError: the server refused, or answered with another model than the base model.
        """
        body = {
            "model": model,
            "prompt": list(ids),
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
            "add_special_tokens": False,
        }
        found = await self._http.json("POST", "/v1/completions", body)
        try:
            said = read(ScoredAnswer, found)
            self._check_model(said.model, model)
            entries = said.choices[0].prompt_logprobs
            if len(entries) != len(ids):
                raise BrokenAnswerError("its log-probabilities are of another number of tokens")
            scores = []
            for at in range(first, len(ids)):
                entry = (entries[at] or {}).get(str(ids[at]))
                if entry is None:
                    raise BrokenAnswerError(f"token {at} of the prompt has no log-probability")
                scores.append(entry.logprob)
            return scores
        except BrokenAnswerError as error:
            raise self._http.broken(str(error)) from None

    async def load_adapter(self, name: str, folder: str) -> None:
        """Make a PEFT folder of this machine known to the server, which must see the same folder."""
        body = {"lora_name": name, "lora_path": folder}
        try:
            await self._http.content("POST", "/v1/load_lora_adapter", body)
        except EngineError as error:
            if "already been loaded" in str(error):
                return  # by an earlier run; the name is that of the very content
            if error.status == 404 and "No adapter found" not in str(error):
                raise EngineError(f"the vLLM server at {self._address} loads no adapters: {LORA_REMEDY}", 404) from None
            raise

    async def unload_adapter(self, name: str) -> None:
        """Let the server forget an adapter."""
        await self._http.content("POST", "/v1/unload_lora_adapter", {"lora_name": name}, again="never")

    async def call(self, method: str, argument: str) -> list[Mapping[str, Any]]:
        """Call a method of the steering extension on every worker.

        Raises:
            EngineError: the server was not started for steering.
        """
        try:
            # An answer that was lost has closed its slots: it cannot be had twice.
            found = await self._http.json(
                "POST", "/collective_rpc", {"method": method, "args": [argument]}, again="unsent"
            )
        except EngineError as error:
            raise self._cannot_steer(error) from None
        return [{key: self._without_keys(value) for key, value in one.items()} for one in self._workers(found)]

    async def cache_counts(self) -> CacheCounts | None:
        """The counters of the prefix cache, from the server's metrics."""
        try:
            raw = await self._http.content("GET", "/metrics", again="never")
            return cache_counts_in(raw.decode("utf-8", "replace"))
        except (EngineError, BrokenAnswerError):
            return None  # switched off, or nonsense: nothing but this number needs them

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _check_model(self, said: str, name: str) -> None:
        if said != name:
            shown = self._http.redactor.said(said, 120)
            raise EngineError(f"the vLLM server answered with the model '{shown}' in place of '{name}'")

    def _workers(self, found: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What each worker said; a server whose workers say nothing steers nothing.

        Raises:
            EngineError: it is no list of what workers say.
        """
        results = found.get("results")
        if not isinstance(results, list) or not all(isinstance(one, dict) for one in results) or not results:
            raise self._http.broken("its workers answered nothing")
        return results

    def _without_keys(self, value: object, depth: int = 4) -> object:
        """What a worker says, its sentences without the key; what is nested deeper than any of its answers is none."""
        if isinstance(value, str):
            return self._http.redactor.said(value)
        if isinstance(value, dict | list) and not depth:
            raise self._http.broken("its workers' answers are nested too deeply")
        if isinstance(value, dict):
            return {key: self._without_keys(each, depth - 1) for key, each in value.items()}
        return [self._without_keys(each, depth - 1) for each in value] if isinstance(value, list) else value

    def _models(self, found: object) -> tuple[Served, ...]:
        try:
            cards = [card for card in read(ModelCards, found).data if not card.parent]
        except BrokenAnswerError as error:
            raise self._http.broken(f"its list of models is not vLLM's: {error}") from None
        served = []
        for card in cards:
            if card.root is None or card.max_model_len is None:
                raise self._http.broken("its list of models is not vLLM's")
            if self._http.redactor.holds(card.id + card.root):
                raise self._http.broken(REPEATS_KEY)
            served.append(Served(card.id, card.root, card.max_model_len))
        return tuple(served)

    def _cannot_steer(self, error: EngineError) -> EngineError:
        if error.status == 404 or "has no attribute" in str(error):
            return EngineError(f"the vLLM server at {self._address} cannot steer: {STEERING_REMEDY}")
        return error
