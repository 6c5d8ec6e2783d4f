"""What passes of a model take at their peak, tried on the meta device: every tensor has its size there, and no bytes.

The engine's own passes are run, over a model made of its configuration, and what is alive after each operation is
added up. So it holds for an architecture that nobody has looked at, and needs neither weights nor the device.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.quantizers.quantizers_utils import should_convert_module

from windowshift.backends.local.adapter_weights import AdapterWeights
from windowshift.backends.local.adapters import Adapters
from windowshift.backends.local.batch_loss import BatchLoss, losses
from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.backends.local.decode_batch import DecodeBatch, grown_columns
from windowshift.backends.local.decode_row import Decoded, Row
from windowshift.backends.local.kv_cache import CachePlan
from windowshift.backends.local.sampler import PREFILL_TOKENS
from windowshift.backends.local.stacked_attention import unlooked
from windowshift.backends.local.static_steps import StepCounts, columns_for
from windowshift.core.contract.training import Sft

NAME = "windowshift_trial"
_BLOCK = {"cuda": 512}
"""Bytes that allocations are rounded up to."""


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    """Adds up the bytes of the tensors that are alive.

    Args:
        device: where the tensors are meant to be.
        before: those that are not counted.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self, device: str, before: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self._block = _BLOCK.get(device, 64)
        self.now = self.peak = 0
        self._known: dict[int, int] = {}
        self._before = {each.untyped_storage()._cdata for each in before}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and see what it made."""
        if function is torch.ops.aten.index_add.default:  # autograd adds in place where no mode watches it
            function = torch.ops.aten.index_add_.default
        made = function(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor):
                self._take(each)
        return made

    def _take(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known or key in self._before:
            return
        size = -(-storage.nbytes() // self._block) * self._block
        self._known[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key)


class _Attention(torch.autograd.Function):
    """What a kernel of attention keeps and gives out: without the scores, which it never has all at once."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty(*query.shape[:-1], value.shape[-1], dtype=query.dtype, device=query.device)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, _upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _attention(
    _module: Any, query: Tensor, key: Tensor, value: Tensor, _attention_mask: Tensor | None, **_settings: Any
) -> tuple[Tensor, None]:
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and query.shape[2] > 1:  # as transformers does where the kernel has no groups
        key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    found: Tensor = _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]  # torch's
    return found.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


@dataclass
class TrialModel:
    """A model without bytes, with the members of `CausalLM` that passes ask for.

    Attributes:
        model: on the meta device.
        target: the device meant.
        sampled: the type of numbers that sample, where a copy of the weights has another one.
        recomputes: whether layers are computed again for gradients.
        quantise: as in the options of backend `local`: how the weights of linear layers lie in memory.
        dtype: of the weights that train.
    """

    model: Any
    target: str
    sampled: torch.dtype | None = None
    recomputes: bool = False
    quantise: str = "none"

    def __post_init__(self) -> None:
        self.device, self.dtype = torch.device("meta"), self.model.dtype
        self.adapters = Adapters(self.model, "trial", "trial")
        self.keeps_logits, self.alike = True, self.target == "cpu"
        self.label = "trial"
        self.fingerprint = ""

    @classmethod
    def made(cls, config: dict[str, Any], dtype: torch.dtype, target: str) -> TrialModel:
        """Make one of the content of a config.json.

        Raises:
            ValueError, KeyError: transformers knows no such model.
        """
        found = AutoConfig.for_model(**config)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(found, dtype=dtype, attn_implementation=NAME)
        return cls(model.eval().requires_grad_(False), target)

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return sum(int(each.numel()) for each in self.model.parameters())

    @property
    def weights(self) -> int:
        """Bytes of the weights, and of the copy that samples, where there is one."""
        dense = self.parameters * int(self.dtype.itemsize + (0 if self.sampled is None else self.sampled.itemsize))
        saved = (layer.weight.numel() * self.dtype.itemsize - self._packed(layer) for layer in self._quantised())
        return dense - int(sum(saved))

    @property
    def unpacked(self) -> int:
        """Bytes of the largest quantised layer's weights in the numbers that it computes in: made anew in each pass."""
        return max((int(layer.weight.numel() * self.dtype.itemsize) for layer in self._quantised()), default=0)

    def _packed(self, layer: torch.nn.Linear) -> int:
        """Bytes of a layer's weights as bitsandbytes keeps them.

        8 bits: a scale in float32 for each output. 4 bits, quantised twice: a byte for each 64 weights, and one in
        float32 for each 256 of those.
        """
        count = int(layer.weight.numel())
        if self.quantise == "8bit":
            return count + 4 * layer.out_features
        blocks = -(-count // 64)
        return -(-count // 2) + blocks + 4 * -(-blocks // 256)

    def _quantised(self) -> list[torch.nn.Linear]:
        """The linear layers that transformers gives to bitsandbytes: not the output's, nor what is tied to it."""
        if self.quantise == "none":
            return []
        kept = get_keys_to_not_convert(self.model)
        found: list[torch.nn.Linear] = []
        for path, module in self.model.named_modules():
            if ".lora_" in path or not isinstance(module, torch.nn.Linear):
                continue
            if should_convert_module(path.removesuffix(".base_layer"), kept):
                found.append(module)
        return found


def training_bytes(lm: TrialModel, sft: Sft, jobs: int, tokens: int, learned: int) -> tuple[int, int]:
    """Bytes beside the weights at the peak of a step of so many jobs, and those that each job holds between steps.

    `learned` of a row's `tokens` are completion.
    """
    inner: Any = lm
    lm.model.to(lm.dtype)
    row = TrainingTokens([1] * (tokens - learned), [1] * learned)
    with Alive(lm.target, lm.model.parameters()) as alive, torch.device("meta"):
        made = [AdapterWeights(lm.adapters, sft, 0) for _ in range(jobs)]
        optimizers = [torch.optim.AdamW([each.flat], lr=0.1, foreach=False) for each in made]
        parts = [BatchLoss(inner, (), [row] * sft.batch_size, each) for each in made]
        alive.peak = alive.now
        for _ in range(2):  # moments are there from the second on
            with torch.enable_grad():
                for each in made:
                    each.forget_gradients()
                batches = [part.batch(range(sft.batch_size)) for part in parts]
                torch.autograd.backward(torch.stack(losses(inner, batches)).sum())
            for each, optimizer in zip(made, optimizers, strict=True):
                torch.nn.utils.clip_grad_norm_([each.flat], sft.max_grad_norm or 1.0)
                optimizer.step()
        peak: int = alive.peak
        held: int = made[0].bytes_in_training
        for each in made:
            lm.adapters.drop(each.name)
    return peak, held


class _Unseen(DecodeBatch):
    """A batch whose rows never end: nothing of what they draw is looked at."""

    def _take(self, logits: Tensor, which: slice) -> list[Decoded]:
        wide = logits.double()
        tokens, _ = self._drawn_from(wide, which)
        self._last[which] = tokens
        return []

    def _settle(self) -> None:
        self._cache.span(self.size, 0)

    @property
    def columns(self) -> int:
        """Of the cache."""
        return self._cache.columns

    @property
    def bytes_a_column(self) -> int:
        """Of the cache, all rows together."""
        return self._cache.bytes // self._cache.columns


@torch.inference_mode()
def sampling_bytes(lm: TrialModel, count: int, prompt: int, completion: int) -> int:
    """Bytes beside the weights at the peak of decoding so many rows, all of them to their ends."""
    model = lm.model.to(lm.sampled or lm.dtype)

    def forward(
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        cache: Any,
        rows: Sequence[Row],
        keep: int,
    ) -> Tensor:
        del attention_mask, rows
        # Without a mask, at which transformers would look to see whether it is needed.
        inputs = {"input_ids": input_ids, "position_ids": position_ids, "past_key_values": cache}
        found: Tensor = model(**inputs, use_cache=True, logits_to_keep=keep).logits
        return found[:, -keep:]

    every = [Row(i, [1] * prompt, i, 1.0, 1.0, completion) for i in range(count)]
    at_once = max(1, PREFILL_TOKENS // prompt)
    with Alive(lm.target, model.parameters()) as alive, unlooked(), torch.device("meta"):
        plan = CachePlan(model)
        batch = _Unseen(forward, frozenset({0}), plan, count, lm.device, None, lambda _: False, None, StepCounts())
        for at in range(0, count, at_once):
            batch.admit(every[at : at + at_once])
        begun: int = alive.peak
        held: int = alive.now
        alive.peak = held
        batch.step()
        step: int = alive.peak - held
        columns, size = batch.columns, batch.bytes_a_column
    last = columns_for(prompt + completion) if lm.target == "cuda" else grown_columns(prompt, completion)
    more = size * max(0, last - columns)
    return max(begun + (more if lm.target == "cuda" else 0), held + step + more)
