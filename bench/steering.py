"""What nnsight costs: an intervention against a hook written by hand, on one model at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measurement import Measurement, median

TARGET = 1.15  # issue 3: more than this on the larger model has to be explained and fixed
VECTOR_SEED = 0


@dataclass(frozen=True, slots=True)
class Size:
    """A random-weight Llama, the shape of its batches, and how often each is run."""

    name: str
    layers: int
    width: int
    vocabulary: int
    rows: int
    tokens: int
    train_runs: int
    decode_runs: int


LARGE = Size("134 M parameters", 12, 768, 32000, 2, 32, 12, 40)
SIZES = (Size("microworld-size", 4, 128, 1536, 8, 60, 60, 200), LARGE)
SMALL = (Size("tiny", 2, 32, 320, 2, 8, 2, 3),)


def measure_steering(_folder: Path, small: bool = False) -> Iterator[Measurement]:
    """Time training steps and generated tokens, steered by a hook, by `Intervention`, and by a trace a step."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more threads than free cores measure the scheduler
    try:
        for size in SMALL if small else SIZES:
            yield from _training(size)
            yield from _decoding(size)
    finally:
        torch.set_num_threads(threads)


def random_llama(size: Size, lora: bool) -> Any:
    """A Llama with random weights, the same at every call; with `lora`, adapters on all linear layers."""
    import peft
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    heads = max(4, size.width // 64)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.width * 8 // 3,
        num_hidden_layers=size.layers,
        num_attention_heads=heads,
        max_position_embeddings=1024,
    )
    model = LlamaForCausalLM(config).eval()
    if lora:
        settings = peft.LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
        model = peft.inject_adapter_in_model(settings, model)
    return model


def _vector(size: Size) -> Any:
    import numpy as np

    from windowshift.core.contract.vector_file import Provenance
    from windowshift.steering.vector import SteeringVector

    rows = np.random.default_rng(VECTOR_SEED).normal(size=(size.layers, size.width))
    return SteeringVector.make("bench", rows, Provenance("bench", "", "random"), layer=size.layers // 2)


def _alphas(size: Size) -> list[float]:
    return [0.01 * (row + 1) for row in range(size.rows)]


def _training(size: Size) -> Iterator[Measurement]:
    import torch

    from windowshift.core.contract.generation import Steering
    from windowshift.steering.intervene import Intervention
    from windowshift.steering.points import LayerPoints
    from windowshift.steering.spans import Spans

    ids = torch.randint(0, size.vocabulary, (size.rows, size.tokens), generator=torch.Generator().manual_seed(0))
    vector, alphas = _vector(size), _alphas(size)
    inputs = {"input_ids": ids, "use_cache": False}
    prompts = [size.tokens // 2] * size.rows
    answers = [size.tokens - size.tokens // 2] * size.rows

    def learn(model: Any, logits: Any) -> None:
        model.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()

    hooked, plain = _hooked(size, lora=True), random_llama(size, lora=True)
    steer = Intervention(LayerPoints(plain), load=lambda _: vector)
    recipes = [steer.recipe((Steering("bench", alpha),)) for alpha in alphas]

    def steered() -> None:
        learn(plain, steer(recipes, Spans.sequences(prompts, answers, size.tokens), **inputs).logits)

    runs: dict[str, Callable[[], object]] = {
        "hook": lambda: learn(hooked, hooked(**inputs).logits),
        "steered": steered,
    }
    traced = _traced(size, lora=True)
    runs["traced"] = lambda: learn(traced[0], traced[1](inputs))
    yield from _ratios(f"training step, {size.name}", runs, size.train_runs)
    steer.check()


def _decoding(size: Size) -> Iterator[Measurement]:
    import torch
    from transformers import DynamicCache

    from windowshift.core.contract.generation import Steering
    from windowshift.steering.intervene import Intervention
    from windowshift.steering.points import LayerPoints
    from windowshift.steering.spans import Spans

    vector, alphas = _vector(size), _alphas(size)
    source = torch.Generator().manual_seed(0)
    prompt = torch.randint(0, size.vocabulary, (size.rows, size.tokens), generator=source)
    token = prompt[:, :1]

    def stream(call: Callable[[dict[str, Any]], object], model: Any) -> Callable[[], object]:
        cache = DynamicCache(config=model.config)
        with torch.inference_mode():
            model(input_ids=prompt, past_key_values=cache)

        def step() -> None:
            with torch.inference_mode():
                call({"input_ids": token, "past_key_values": cache, "use_cache": True})
                cache.crop(-1)  # every step has the same work to do

        return step

    hooked, plain, traced = _hooked(size, lora=False), random_llama(size, lora=False), _traced(size, lora=False)
    steer = Intervention(LayerPoints(plain), load=lambda _: vector)
    recipes = [steer.recipe((Steering("bench", alpha),)) for alpha in alphas]
    runs = {
        "hook": stream(lambda inputs: hooked(**inputs), hooked),
        "steered": stream(lambda inputs: steer(recipes, Spans.step(size.rows), **inputs), plain),
        "traced": stream(traced[1], traced[0]),
    }
    yield from _ratios(f"generated token, {size.name}", runs, size.decode_runs)
    steer.check()


def _hooked(size: Size, lora: bool) -> Any:
    """A model with the hook that anyone would write."""
    model, delta = random_llama(size, lora), _delta(size)
    model.model.layers[size.layers // 2].register_forward_hook(lambda _module, _args, output: output + delta)
    return model


def _traced(size: Size, lora: bool) -> tuple[Any, Callable[[dict[str, Any]], Any]]:
    """A model under the trace that nnsight's documentation shows, opened anew at every step."""
    from nnsight import NNsight

    model, delta, middle = random_llama(size, lora), _delta(size), size.layers // 2
    wrapped = NNsight(model)

    def call(inputs: dict[str, Any]) -> Any:
        with wrapped.trace(**inputs):
            wrapped.model.layers[middle].output = wrapped.model.layers[middle].output + delta
            logits = wrapped.output.logits.save()
        return logits  # noqa: RET504  # nnsight gives values back by name

    return model, call


def _delta(size: Size) -> Any:
    import torch

    direction = torch.from_numpy(_vector(size).direction().copy())
    return torch.tensor(_alphas(size))[:, None, None] * direction


def _ratios(name: str, runs: dict[str, Callable[[], object]], count: int) -> Iterator[Measurement]:
    """Ratios to the hook, each within one round: the load of the machine changes between rounds."""
    times: dict[str, list[float]] = {key: [] for key in runs}
    for run in runs.values():
        run()
    for _ in range(count):
        for key, run in runs.items():
            start = time.perf_counter()
            run()
            times[key].append((time.perf_counter() - start) * 1000)
    against = f"a raw hook, {median(times['hook']):.3g} ms"
    for key, title, target in (("steered", "", TARGET), ("traced", "  the same with a trace a step: ", None)):
        ratio = median([one / base for one, base in zip(times[key], times["hook"], strict=True)])
        note = f"{median(times[key]):.3g} ms, {count} rounds"
        yield Measurement(f"{title}{name}", ratio, "× hook", target=target, against=against, note=note)
