"""The checks themselves. Bytes are equal on a CPU and in float64 only; what is equal to rounding says to which.

Tolerances are of logits, in their standard deviations: 1e-3 in float32 (matrix products on a GPU may take TF32 for
none of it, but sum in another order), 0.1 in bfloat16 (8 bits of mantissa through a few layers).
"""

from __future__ import annotations

import copy
import dataclasses
import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from tests.tiny_models import ARCHITECTURES, RECURRENT, UNUSUAL, build
from tests.vllm_kernel import check_captured, check_kernel
from windowshift.backends.local import static_steps
from windowshift.backends.local.adapters import AdapterFile
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.coherence import base_logprobs
from windowshift.backends.local.decode_row import Decoded, Row
from windowshift.backends.local.fixed_forward import FixedForward
from windowshift.backends.local.options import LocalOptions
from windowshift.backends.local.sampler import decode
from windowshift.backends.local.shared_batch import SharedBatch
from windowshift.backends.local.static_steps import StepCounts
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling, Steering
from windowshift.core.contract.training import Checkpointed, Example, Sft, Trained, TrainFailed, TrainJob, TrainProgress

FLOAT32, BFLOAT16 = 1e-3, 0.1
IDS = [[5, 60, 7, 80, 9, 100, 11, 12, 250]]
HELLO = (Message("user", "What do bees do in the winter?"),)


def opened(folder: Path, device: str, dtype: str) -> CausalLM:
    return load(str(folder), None, LocalOptions(device=device, dtype=dtype, threads=4))


def logits_of(model: Any, device: torch.device | None = None) -> torch.Tensor:
    """Logits [tokens, vocabulary] of a fixed text, in float64 on the CPU."""
    ids = torch.tensor(IDS, device=next(model.parameters()).device if device is None else device)
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return found.double().cpu()


def off(one: torch.Tensor, other: torch.Tensor) -> float:
    """Root mean square difference, in standard deviations of the second."""
    return float((one - other).square().mean().sqrt() / other.std())


def rows(temperature: float) -> list[Row]:
    lengths, tokens = (5, 31, 5, 9, 12, 5, 31, 2), (9, 4, 12, 1, 7, 12, 8, 5)
    return [
        Row(i, [3 + (i * 7 + j) % 300 for j in range(length)], i, temperature, 1.0, most)
        for i, (length, most) in enumerate(zip(lengths, tokens, strict=True))
    ]


def run(
    lm: CausalLM, given: list[Row], batch_rows: int, *, static: bool = False, counts: StepCounts | None = None
) -> list[Decoded]:
    steps = decode(
        lm.sampling_forward(None),
        iter(given),
        end_ids=lm.end_ids,
        cache_plan=lm.cache_plan,
        batch_rows=batch_rows,
        device=lm.device,
        fixed=lambda slots: FixedForward(lm, slots) if static else None,
        counts=counts,
    )
    return sorted((each for step in steps for each in step), key=lambda each: each.row.index)


def check_devices(device: str, folder: Path) -> None:
    """A tiny model stays on the CPU unless the option says otherwise; a larger one goes to the accelerator."""
    assert load("microworld", None, LocalOptions()).device.type == "cpu"
    assert load("microworld", None, LocalOptions(device=device)).device.type == torch.device(device).type
    larger = build(folder / "larger", hidden_size=256, intermediate_size=8192)
    auto = load(str(larger), None, LocalOptions()).device.type
    assert auto == ("cuda" if torch.cuda.is_available() else "cpu"), auto


def check_first_use(kind: str, dtype: str, device: str, folder: Path) -> None:
    """Cached steps and saved adapters of an architecture, as the backend itself checks them."""
    lm = opened(build(folder / kind, kind), device, dtype)
    assert lm.sampling_fault is None, lm.sampling_fault
    assert lm.training_fault is None, lm.training_fault


def check_same_as_cpu(kind: str, device: str, folder: Path) -> None:
    """Logits in float32 are those of the CPU, and those in bfloat16 near them."""
    build(folder / kind, kind)
    reference = logits_of(opened(folder / kind, "cpu", "float32").model)
    for dtype, limit in (("float32", FLOAT32), ("bfloat16", BFLOAT16)):
        found = off(logits_of(opened(folder / kind, device, dtype).model), reference)
        assert found < limit, f"{dtype}: off by {found:.2g}, and {limit} is rounding"


def check_float64(kind: str, device: str, folder: Path) -> None:
    """In float64 greedy text is that of transformers, and no companion changes a row."""
    lm = opened(build(folder / kind, kind), device, "float64")
    reference: Any = copy.deepcopy(lm.base())
    if reference.config._attn_implementation not in ("eager", "sdpa"):
        reference.set_attn_implementation("sdpa")
    for each in run(lm, rows(0.0), 3):
        ids = torch.tensor([each.row.prompt], device=lm.device)
        expected = reference.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=each.row.max_tokens,
            eos_token_id=sorted(lm.end_ids),
            pad_token_id=0,
        )[0, ids.shape[1] :].tolist()
        assert each.ids + ([expected[-1]] if each.finish == "stop" else []) == expected
    together = run(lm, rows(1.0), 8)
    assert together == run(lm, rows(1.0), 3)


def check_static_steps(kind: str, device: str, folder: Path) -> None:
    """Steps in tensors of fixed places, on CUDA played from graphs, draw what steps that grow do."""
    build(folder / kind, kind)
    for dtype in ("float64", "bfloat16"):
        lm = opened(folder / kind, device, dtype)
        fault = lm.static_fault
        assert fault is None, fault
        long = [dataclasses.replace(row, max_tokens=row.max_tokens + 20) for row in rows(0.0)]
        counts = StepCounts()
        found = run(lm, long, 5, static=True, counts=counts)
        assert counts.fault is None, counts.fault
        if lm.device.type == "cuda":
            assert counts.played > counts.launched, counts
        if dtype == "float64":
            assert found == run(lm, long, 5)
            assert run(lm, rows(1.0), 8, static=True) == run(lm, rows(1.0), 3)


async def check_mixed_static_steps(device: str, folder: Path) -> None:
    """Rows of adapters and pushes, in played steps as in launched ones; what the device counted proves the pushes."""
    import numpy as np

    from windowshift.core.contract.vector_file import Provenance
    from windowshift.steering.vector import SteeringVector

    base = build(folder / "base", max_position_embeddings=1024)
    adapters: list[str | None] = [None]
    for rank in (2, 5):
        lm = opened(base, "cpu", "float32")
        name, parameters = lm.adapters.create(Sft(rank=rank, alpha=2 * rank), seed=rank)
        generator = torch.Generator().manual_seed(rank)
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        lm.adapters.save(name, folder / str(rank))
        adapters.append(str(folder / str(rank)))
    fingerprint = LocalBackend({"device": "cpu", "workers": 1}).identify(str(base)).fingerprint
    direction = np.random.default_rng(0).normal(size=(2, 32))
    path = folder / "v.safetensors"
    SteeringVector.make("a", direction, Provenance("tiny", fingerprint, "test"), layer=0).save(path)
    pushes: list[tuple[Steering, ...]] = [
        (), (Steering(str(path), 1.5),), (Steering(str(path), -2.0, 1, "response"),),
        (Steering(str(path), 1.0, 1, "all", ablate=True),),
    ]  # fmt: skip
    asked = [
        GenerateRequest(
            str(i), HELLO, Model(str(base), adapter=adapters[i % 3]), Sampling(1.0, 1.0, 9 + i), i,
            steering=pushes[i // 3 % 4],
        )
        for i in range(24)
    ]  # fmt: skip

    def fixed(self: Any, slots: int) -> FixedForward:
        made.append(self.counts)
        return FixedForward(self._lm, slots, lambda: self._steer)

    for dtype in ("float64", "bfloat16"):
        texts = []
        for way in ("played", "launched", "grown"):
            made: list[StepCounts] = []
            with ExitStack() as patched:
                patched.enter_context(
                    patch.object(SharedBatch, "_fixed", (lambda *_: None) if way == "grown" else fixed)
                )
                if way == "launched":
                    patched.enter_context(patch.object(static_steps, "recorder_for", lambda _: None))
                backend = LocalBackend({"device": device, "dtype": dtype, "workers": 1, "batch_rows": 8})
                texts.append({key: each.text for key, each in (await gather(backend, asked)).items()})
                await backend.aclose()
            if way == "played" and torch.device(device).type == "cuda":
                assert made[0].fault is None, made[0].fault
                assert made[0].played > 0
        if dtype == "float64":
            assert texts[0] == texts[1] == texts[2]


async def gather(backend: LocalBackend, requests: list[GenerateRequest]) -> dict[str, Completion]:
    found = {each.key: each async for each in backend.generate(requests)}
    assert found.keys() == {request.key for request in requests}
    for each in found.values():
        assert each.finish != "failed", each.error
    return found


def job(folder: Path, output: Path, epochs: int = 3) -> TrainJob:
    examples = [Example(HELLO, text) for text in ("They gather.", "They keep warm in a ball.", "Little.", "Sleep?")]
    sft = Sft(rank=4, batch_size=2, learning_rate=2e-2, epochs=epochs)
    return TrainJob("job", Model(str(folder)), examples, sft, 0, output, (6,))


async def trained(backend: LocalBackend, wanted: TrainJob) -> tuple[Path, list[float]]:
    events = [event async for event in backend.train([wanted])]
    assert any(isinstance(event, Checkpointed) for event in events)
    end = events[-1]
    assert isinstance(end, Trained), getattr(end, "error", end)
    return Path(end.adapter), [event.loss for event in events if isinstance(event, TrainProgress)]


async def check_training(dtype: str, device: str, folder: Path) -> None:
    """Loss falls as on the CPU, the adapter loads in plain PEFT, and is what the device samples from."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = build(folder / "base")
    options = {"dtype": dtype, "progress_seconds": 0, "threads": 4, "workers": 1}
    here, there = LocalBackend({**options, "device": device}), LocalBackend({**options, "device": "cpu"})
    adapter, losses = await trained(here, job(base, folder / "here"))
    _, expected = await trained(there, job(base, folder / "there"))
    limit = 0.15 if dtype == "bfloat16" else 0.02
    assert len(losses) == len(expected) == 6
    assert losses[-1] < losses[0]
    assert all(abs(one - other) < limit * max(1, other) for one, other in zip(losses, expected, strict=True)), losses
    peft: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)).eval()
    lm = opened(base, device, dtype)
    found = off(logits_of(lm.in_force(AdapterFile.at(adapter)), lm.device), logits_of(peft))
    assert found < (BFLOAT16 if dtype == "bfloat16" else FLOAT32), found
    model = Model(str(base), adapter=str(adapter))
    greedy = Sampling(0.0, 1.0, 24)
    texts = await gather(here, [GenerateRequest(str(i), HELLO, model, greedy, i) for i in range(3)])
    assert len({each.text for each in texts.values()}) == 1
    await here.aclose()
    await there.aclose()


async def check_common_passes(dtype: str, device: str, folder: Path) -> None:
    """Jobs of unequal ranks in common passes come to what each comes to alone, also where layers are computed again."""
    base = build(folder / "base")
    fault = opened(base, device, dtype).stacking_fault
    assert fault is None, fault
    one = job(base, folder / "0", 6)
    jobs = [
        dataclasses.replace(
            one, key=str(rank), examples=one.examples[:count], output=folder / str(rank), checkpoints=(),
            sft=dataclasses.replace(one.sft, rank=rank, batch_size=rows),
        )
        for rank, count, rows in ((4, 4, 2), (8, 4, 2), (3, 3, 1))
    ]  # fmt: skip
    options = {"dtype": dtype, "progress_seconds": 0, "threads": 4, "workers": 1, "device": device}
    limit = 0.15 if dtype == "bfloat16" else 0.02
    found: list[dict[str, float]] = []
    for place, groups, twice in (("alone", [[each] for each in jobs], False), ("together", [jobs], True)):
        backend = LocalBackend({**options, "gradient_checkpointing": twice})
        ends: dict[str, float] = {}
        for group in groups:
            moved = [dataclasses.replace(each, output=folder / place / each.key) for each in group]
            async for event in backend.train(moved):
                assert not isinstance(event, TrainFailed), event.error
                if isinstance(event, TrainProgress):
                    ends[event.key] = event.loss
        await backend.aclose()
        found.append(ends)
    alone, together = found
    assert alone.keys() == together.keys() == {each.key for each in jobs}
    for key, loss in alone.items():
        assert abs(together[key] - loss) < limit * max(1, loss), (key, loss, together[key])


async def check_resuming(device: str, folder: Path) -> None:
    """A job that is cut off and goes on ends with the weights of one that was not, to rounding (1e-4)."""
    from safetensors.torch import load_file

    base = build(folder / "base")
    options = {"dtype": "float32", "device": device, "state_seconds": 0, "progress_seconds": 0, "workers": 1}
    whole, cut = LocalBackend(options), LocalBackend(options)
    adapter, _ = await trained(whole, job(base, folder / "whole", 40))
    stream = cut.train([job(base, folder / "cut", 40)])
    async for event in stream:
        if isinstance(event, TrainProgress) and event.step >= 4:
            break
    await stream.aclose()
    assert (folder / "cut" / "state.pt").is_file()
    resumed, _ = await trained(cut, job(base, folder / "cut", 40))
    one, other = (load_file(path / "adapter_model.safetensors") for path in (adapter, resumed))
    for name, weight in one.items():
        assert torch.allclose(weight, other[name], atol=1e-4), name
    await whole.aclose()
    await cut.aclose()


def check_foreign_adapters(device: str, folder: Path) -> None:
    """Dropout is off, PiSSA is refused, and the base model is what it was, to the bit."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = build(folder / "base", tie_word_embeddings=True)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_dropout=0.5, init_lora_weights=False, target_modules=["q_proj", "lm_head"]
    )
    torch.manual_seed(0)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder / "adapter")
    lm = opened(base, device, "bfloat16")
    plain = logits_of(lm.in_force(None), lm.device)
    file = AdapterFile.at(folder / "adapter")
    first = logits_of(lm.in_force(file), lm.device)
    assert torch.equal(first, logits_of(lm.in_force(file), lm.device))
    assert off(first, plain) > 1e-3
    path = folder / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"init_lora_weights": "pissa"}))
    refusal = ""
    try:
        lm.in_force(AdapterFile.at(folder / "adapter"))
    except BackendError as error:
        refusal = str(error)
    assert "pissa" in refusal
    assert torch.equal(logits_of(lm.in_force(None), lm.device), plain)


def check_coherence(device: str, folder: Path) -> None:
    """Log-probabilities of completions, of unequal lengths in one batch, are those of the CPU (0.01 nats a token)."""
    base = build(folder / "base")
    pairs = [([5, 6, 7], [8, 9]), ([10, 11], [12, 13, 14, 15, 16]), ([20], [21])]
    found, expected = (base_logprobs(opened(base, where, "float32"), pairs) for where in (device, "cpu"))
    for one, other, (_, ids) in zip(found, expected, pairs, strict=True):
        assert one is not None
        assert other is not None
        assert abs(one - other) < 0.01 * len(ids)


def check_steered_logits(device: str, folder: Path) -> None:
    """A push is h + alpha v, row by row, against a hook written by hand; and its proof holds."""
    import numpy as np

    from windowshift.core.contract.vector_file import Provenance
    from windowshift.steering.intervene import Intervention
    from windowshift.steering.spans import Spans
    from windowshift.steering.vector import SteeringVector

    direction = np.random.default_rng(0).normal(size=(2, 32))
    vector = SteeringVector.make("a", direction, Provenance("tiny", "f", "test"), layer=0)
    for dtype, limit in (("float32", FLOAT32), ("bfloat16", BFLOAT16)):
        lm = opened(build(folder / dtype), device, dtype)
        steer = Intervention(lm.sampling_points, fingerprint="f", load=lambda _: vector)
        recipes = [steer.recipe((Steering("a", alpha, 1, "all"),)) for alpha in (0.5, -2.0)]
        ids = torch.tensor(IDS * 2, device=lm.device)
        spans = Spans.sequences([4, 9], [5, 0], 9, lm.device)
        with torch.inference_mode():
            got = steer(recipes, spans, input_ids=ids, use_cache=False).logits.double().cpu()
            added = torch.tensor(direction[1], device=lm.device).to(lm.model.dtype)
            alphas = torch.tensor([0.5, -2.0], device=lm.device, dtype=lm.model.dtype)[:, None, None]
            layer = lm.model.model.layers[1]

            def hook(_module: Any, _args: Any, output: Any, push: Any = alphas * added) -> Any:
                return (output[0] + push, *output[1:]) if isinstance(output, tuple) else output + push

            handle = layer.register_forward_hook(hook)
            expected = lm.model(input_ids=ids, use_cache=False).logits.double().cpu()
            handle.remove()
        assert off(got, expected) < limit, off(got, expected)
        steer.check()


async def check_steered_requests(device: str, folder: Path) -> None:
    """Steered completions come with proofs that hold, beside plain ones in the same batch that are left alone."""
    import numpy as np

    from windowshift.core.contract.vector_file import Provenance
    from windowshift.steering.vector import SteeringVector

    base = build(folder / "base", max_position_embeddings=1024)
    for dtype in ("float32", "bfloat16"):
        backend = LocalBackend({"device": device, "dtype": dtype, "workers": 1})
        fingerprint = backend.identify(str(base)).fingerprint
        direction = np.random.default_rng(0).normal(size=(2, 32))
        vector = SteeringVector.make("a", direction, Provenance("tiny", fingerprint, "test"), layer=0)
        path = folder / f"{dtype}.safetensors"
        vector.save(path)
        plain = GenerateRequest("plain", HELLO, Model(str(base)), Sampling(0.0, 1.0, 12), 1)
        pushed = dataclasses.replace(plain, key="pushed", steering=(Steering(str(path), 5.0, 0, "all"),))
        found = await gather(backend, [plain, pushed])
        assert found["pushed"].proofs
        assert not found["plain"].proofs
        assert found["pushed"].text != found["plain"].text
        assert found["plain"].text == (await gather(backend, [plain]))["plain"].text
        await backend.aclose()


ALL: list[tuple[str, Any]] = [
    ("tiny models stay on the CPU", check_devices),
    *(
        (f"cached steps and saved adapters, {kind}, {dtype}", partial(check_first_use, kind, dtype))
        for kind in (*ARCHITECTURES, *RECURRENT, *UNUSUAL)
        for dtype in ("float32", "bfloat16")
    ),
    *((f"logits as on the CPU, {kind}", partial(check_same_as_cpu, kind)) for kind in ARCHITECTURES),
    *(
        (f"greedy text as transformers writes it, {kind}, float64", partial(check_float64, kind))
        for kind in ("llama", "mistral", "gemma3", "gpt2", "mamba", "qwen3_5_text", "falcon_h1", "mixtral", "gpt_oss")
    ),
    *(
        (f"steps in tensors of fixed places, {kind}, float64", partial(check_static_steps, kind))
        for kind in ("llama", "gemma3", "qwen3", "gpt2")
    ),
    ("steered and adapted steps in tensors of fixed places", check_mixed_static_steps),
    *((f"training, {dtype}", partial(check_training, dtype)) for dtype in ("float32", "bfloat16")),
    *((f"common passes, {dtype}", partial(check_common_passes, dtype)) for dtype in ("float32", "bfloat16")),
    ("resuming a training", check_resuming),
    ("foreign adapters", check_foreign_adapters),
    ("coherence", check_coherence),
    ("steered logits", check_steered_logits),
    ("steered requests", check_steered_requests),
]

CUDA: list[tuple[str, Any]] = [
    ("vLLM's kernel that steers, as tensor operations on the CPU", lambda device, _: check_kernel(device)),
    ("vLLM's kernel that steers, from a captured CUDA graph", lambda device, _: check_captured(device)),
]
