"""vLLM in this process: its asynchronous engine, whose workers are processes of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from windowshift.backends.local.drawn_token import DrawnToken
from windowshift.backends.local.model_folder import locate
from windowshift.backends.vllm.engine import SLOT, CacheCounts, EngineAnswer, EngineError, EngineRequest, Served, ranked
from windowshift.backends.vllm.options import VllmOptions
from windowshift.core.contract.errors import BackendError

if TYPE_CHECKING:
    from vllm import SamplingParams

WORKER = "windowshift.backends.vllm.worker_extension.SteeringWorker"
MISSING = (
    "vLLM is not installed in this environment: install it (pip install vllm), or start a server elsewhere and write  "
    "backend_options: {vllm: {base_url: http://localhost:8000/v1}}"
)


def require_vllm() -> None:
    """See that vLLM is installed, without importing it.

    Raises:
        BackendError: it is not.
    """
    if importlib.util.find_spec("vllm") is None:
        raise BackendError(MISSING)


class InProcessEngine:
    """vLLM's `AsyncLLM` with one base model, started at the first use.

    Args:
        options: with the engine arguments.
        base: the model.
        revision: of a hub id.
    """

    def __init__(self, options: VllmOptions, base: str, revision: str | None) -> None:
        self._options, self._base, self._revision = options, base, revision
        self._llm: Any = None
        self._starting = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._adapters: dict[str, tuple[int, str]] = {}
        self._requests = itertools.count()

    async def served(self) -> Sequence[Served]:
        """The base model; starts the engine, which takes from seconds to minutes."""
        async with self._starting:
            if self._llm is None:
                self._llm = await asyncio.to_thread(self._started)
        return (Served(self._base, str(locate(self._base) or self._base), int(self._llm.model_config.max_model_len)),)

    async def extended(self) -> bool:
        """Always."""
        return True

    async def complete(self, model: str, question: EngineRequest) -> EngineAnswer:  # noqa: ARG002 - there is one
        """Draw one completion."""
        from vllm import SamplingParams

        parameters = SamplingParams(
            temperature=question.temperature,
            top_p=question.top_p,
            max_tokens=question.max_tokens,
            seed=question.seed,
            stop_token_ids=list(question.stop),
            logprobs=question.logprobs,
            detokenize=False,
            extra_args=None if question.slot is None else {SLOT: question.slot},
        )
        output = await self._asked(question.prompt, parameters, question.adapter, question.slot)
        (choice,) = output.outputs
        if choice.finish_reason not in ("stop", "length"):
            raise EngineError(f"vLLM ended a request with '{choice.finish_reason}'")
        drawn: tuple[DrawnToken, ...] = ()
        if question.logprobs is not None:
            drawn = tuple(
                DrawnToken(
                    token,
                    float(entry[token].logprob),
                    ranked({other: float(value.logprob) for other, value in entry.items()}, question.logprobs),
                )
                for token, entry in zip(choice.token_ids, choice.logprobs, strict=True)
            )
        return EngineAnswer(tuple(choice.token_ids), choice.finish_reason == "stop", drawn)

    async def score(self, model: str, ids: Sequence[int], first: int) -> list[float]:  # noqa: ARG002
        """Log-probabilities of ids that are given."""
        from vllm import SamplingParams

        parameters = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        output = await self._asked(tuple(ids), parameters, None, None)
        return [float(output.prompt_logprobs[at][ids[at]].logprob) for at in range(first, len(ids))]

    async def load_adapter(self, name: str, folder: str) -> None:
        """Make a PEFT folder known under a name."""
        from vllm.lora.request import LoRARequest

        await self.served()
        number = next(self._numbers)
        try:
            await self._llm.add_lora(LoRARequest(name, number, folder))
        except Exception as error:  # whatever the worker raised, as text
            raise EngineError(_words(error)) from None
        self._adapters[name] = (number, folder)

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter."""
        number, _ = self._adapters.pop(name)
        await self._llm.remove_lora(number)

    async def call(self, method: str, argument: str) -> list[Mapping[str, Any]]:
        """Call a method of the steering extension on every worker.

        Raises:
            EngineError: the engine was started without it.
        """
        await self.served()
        try:
            return list(await self._llm.collective_rpc(method, args=(argument,)))
        except Exception as error:
            raise EngineError(_words(error)) from None

    async def cache_counts(self) -> CacheCounts | None:
        """The counters of the prefix cache, from vLLM's registry in this process."""
        from vllm.v1.metrics.reader import Counter, get_metrics_snapshot

        sums = {"vllm:prefix_cache_queries": 0.0, "vllm:prefix_cache_hits": 0.0}
        for metric in get_metrics_snapshot():
            if isinstance(metric, Counter) and metric.name in sums:
                sums[metric.name] += metric.value
        return CacheCounts(sums["vllm:prefix_cache_queries"], sums["vllm:prefix_cache_hits"])

    async def aclose(self) -> None:
        """End the engine and its workers."""
        if self._llm is not None:
            llm, self._llm = self._llm, None
            await asyncio.to_thread(llm.shutdown)

    def _started(self) -> Any:
        try:
            from vllm import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ModuleNotFoundError:
            raise BackendError(MISSING) from None
        own: dict[str, Any] = {
            "enable_prefix_caching": True,
            "enable_lora": True,
            "worker_extension_cls": WORKER,
            "enforce_eager": self._options.enforce_eager,
        }
        own |= self._options.engine
        try:
            arguments = AsyncEngineArgs(
                model=str(locate(self._base) or self._base),
                revision=self._revision,
                generation_config="vllm",
                **own,
            )
            return AsyncLLM.from_engine_args(arguments)
        except Exception as error:  # whatever a large library raises while it starts
            raise EngineError(f"vLLM does not start with '{self._base}': {_words(error)}") from error

    async def _asked(
        self, prompt: tuple[int, ...], parameters: SamplingParams, adapter: str | None, salt: str | None
    ) -> Any:
        from vllm.inputs import TokensPrompt
        from vllm.lora.request import LoRARequest

        await self.served()
        text = TokensPrompt(prompt_token_ids=list(prompt))
        if salt is not None:
            text["cache_salt"] = salt
        lora = None
        if adapter is not None:
            number, folder = self._adapters[adapter]
            lora = LoRARequest(adapter, number, folder)
        last: Any = None
        try:
            async for output in self._llm.generate(
                text, parameters, f"windowshift-{next(self._requests)}", lora_request=lora
            ):
                last = output
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a bad request and a dead engine come in many kinds
            raise EngineError(f"vLLM refused: {_words(error)}") from None
        if last is None:
            raise EngineError("vLLM gave no answer to a request")
        if adapter is not None and (last.lora_request is None or last.lora_request.lora_name != adapter):
            raise EngineError("vLLM answered without the adapter that was asked for")
        return last


def _words(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} ..."
