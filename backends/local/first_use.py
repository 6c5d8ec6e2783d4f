"""What is checked of a model once, when it is first used: that cached steps and saved adapters are what they should be.

Architectures differ in what they keep between tokens and in how their layers are called, and what goes wrong there
is numbers without a word: a state that is dropped, a window that is cut elsewhere, an adapter that is not read.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from windowshift.backends.local.adapters import AdapterFile, sizes
from windowshift.backends.local.architecture_limits import unsupported
from windowshift.backends.local.decode_row import Row
from windowshift.backends.local.fixed_forward import FixedForward
from windowshift.backends.local.sampler import decode
from windowshift.backends.shared.refusal import library_reason
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.training import Sft

if TYPE_CHECKING:
    from windowshift.backends.local.causal_lm import CausalLM

log = logging.getLogger("windowshift.local")

_TEXT = "The river rises in the hills, and reaches the sea after forty miles. Bees gather in a ball in the winter. "
# How far logits may be off, in standard deviations of the logits at a token (root mean square). Rounding in half
# precision differs with the shape of a batch, and may send a token to another expert; a lost state is near 1.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
_HALF = 0.25
# The recurrences compute in float32 whatever the weights are, and in another order one token at a time.
_RECURRENT = 1e-2
# Operations that a check of a long window may take: seconds on either.
_AFFORDABLE = {"cpu": 5e11, "cuda": 5e13}
ANOTHER = "take a backend with an engine of its own, such as vllm"


def sampling_fault(lm: CausalLM) -> str | None:
    """Why text drawn from this model here would not be the model's, in a sentence; None where all is well.

    Rows of unequal lengths come, go and are decoded with the cache, one of them past an attention window where
    that can be afforded, and their logits are compared with those of whole texts without a cache.
    """
    known = unsupported(lm.model.config.to_dict())
    if known is not None:
        return f"'{lm.label}' cannot be sampled by backend 'local': {known}"
    try:
        off = _cached_steps_off(lm)
    except (MemoryError, torch.OutOfMemoryError):
        raise  # says nothing about the model
    except BackendError as error:
        return f"'{lm.label}' cannot be sampled by backend 'local': {error}; {ANOTHER}"
    except Exception as error:  # libraries raise many kinds where an architecture is not as they expect
        return f"'{lm.label}' cannot be sampled by backend 'local': {library_reason(error)}; {ANOTHER}"
    limit = _TOLERANCE.get(lm.base().dtype, _HALF)
    if lm.cache_plan.recurrent:
        limit = max(limit, _RECURRENT)
    if off <= limit:
        return None
    return (
        f"'{lm.label}' cannot be sampled by backend 'local': decoding with a cache gives other logits than the whole "
        f"text does (off by {off:.2g} of their spread, where {limit:g} is rounding); {ANOTHER}"
    )


def static_fault(lm: CausalLM) -> str | None:
    """Why steps in tensors of fixed places would not be the model's, in a sentence; None where they are.

    Rows of unequal lengths come and go in such steps, and the logits that they are drawn from are compared with those
    of whole texts.
    """
    if lm.cache_plan.recurrent:
        return "it keeps recurrent states, which are not written in place"
    if len({parameter.device for parameter in lm.model.parameters()}) > 1:
        return "its layers lie on several devices"
    try:
        off = _rows_off(lm, _unequal_rows(lm), 2, lambda _saved: False, static=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise  # says nothing about the model
    except Exception as error:  # libraries raise many kinds where an architecture is not as they expect
        return str(error) if isinstance(error, BackendError) else library_reason(error)
    limit = _TOLERANCE.get(lm.base().dtype, _HALF)
    if off <= limit:
        return None
    return f"steps in tensors of fixed places give other logits than whole texts do (off by {off:.2g} of their spread)"


def training_fault(lm: CausalLM) -> str | None:
    """Why an adapter cannot be trained on this model here, in a sentence; None where all is well.

    A small adapter with random weights is attached, run forwards and backwards, saved, loaded and sampled
    from: every time the logits must be the same, and those of the base model unchanged behind it.
    """
    try:
        return _adapter_off(lm)
    except (MemoryError, torch.OutOfMemoryError):
        raise  # says nothing about the model
    except BackendError as error:
        return f"'{lm.label}' cannot be trained by backend 'local': {error}"
    except Exception as error:  # libraries raise many kinds where an architecture is not as they expect
        return f"'{lm.label}' cannot be trained by backend 'local' with LoRA: {library_reason(error)}"


def mixes(lm: CausalLM) -> bool:
    """Whether rows of several adapters can share a pass: in one, each row's logits are those that it has alone.

    They are where a linear layer gets rows of tokens; not where experts get tokens of all rows shuffled. Three
    small adapters with random weights are tried beside the base model. Where they cannot, the log says why.
    """
    reason = _mixing_fault(lm)
    if reason is not None:
        log.warning("rows of several adapters of '%s' are decoded one adapter after another: %s", lm.label, reason)
    return reason is None


@torch.inference_mode()
def _mixing_fault(lm: CausalLM) -> str | None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.tensor(list(text_ids(lm, 24)), device=lm.device).view(3, 8)

    def matrices(rank: int) -> Iterator[tuple[str, Tensor, Tensor, float]]:
        for path, module in lm.adapters.linear.items():
            width, height = sizes(module)
            down, up = torch.randn(rank, width, generator=generator), torch.randn(height, rank, generator=generator)
            there = module.weight.device  # layers may lie on several devices
            yield path, (down / width**0.5).to(there), (0.3 * up).to(there), 1.0

    rows = [lm.row_adapters.made(matrices(2)), None, lm.row_adapters.made(matrices(3))]
    try:
        with lm.row_adapters.serving(rows):
            mixed = lm.base()(input_ids=ids, use_cache=False).logits
        alone = []
        for index, row in enumerate(rows):
            with lm.row_adapters.serving([row]):
                alone.append(lm.base()(input_ids=ids[index : index + 1], use_cache=False).logits[0])
    except (MemoryError, torch.OutOfMemoryError):
        raise  # says nothing about the model
    except Exception as error:  # libraries raise many kinds where an architecture is not as they expect
        return str(error) if isinstance(error, BackendError) else library_reason(error)
    limit = _TOLERANCE.get(lm.base().dtype, _HALF)
    off = [_difference(one, other) for one, other in zip(mixed.flatten(0, 1), torch.cat(alone), strict=True)]
    if max(off) <= limit:
        return None
    return f"beside others a row has other logits than alone (off by {max(off):.2g} of their spread)"


def shares(lm: CausalLM) -> bool:
    """Whether prompts may go on from a beginning that ran once: the logits behind it are those of the whole text."""
    ids = list(text_ids(lm, 24))
    prompts = [ids[:14], [*ids[:12], *ids[:6]], ids[5:9], [*ids[:12], ids[3]]]
    rows = [Row(index, prompt, index, 1.0, 1.0, 2) for index, prompt in enumerate(prompts)]
    try:
        off = _rows_off(lm, rows, len(rows), lambda _saved: True)
    except (MemoryError, torch.OutOfMemoryError):
        raise  # says nothing about the model
    except Exception:  # libraries raise many kinds where an architecture is not as they expect
        return False
    return off <= _TOLERANCE.get(lm.base().dtype, _HALF)


def _cached_steps_off(lm: CausalLM) -> float:
    """How far logits of cached steps are off at worst; in half precision, at the median token."""
    return _rows_off(lm, _unequal_rows(lm), 2, lambda _saved: False)


def _unequal_rows(lm: CausalLM) -> list[Row]:
    window = _window(lm)
    return [
        Row(index, list(text_ids(lm, length)), index, 1.0, 1.0, tokens)
        for index, (length, tokens) in enumerate([(max(9, window + 2), 2), (4, 4), (6, 3)])
    ]


@torch.inference_mode()
def _rows_off(
    lm: CausalLM, rows: Sequence[Row], places: int, shares: Callable[[int], bool], *, static: bool = False
) -> float:
    """How far the logits that rows are drawn from are off those of whole texts; `static`: in steps of fixed places."""
    forward = lm.sampling_forward(None)
    seen: dict[int, list[Tensor]] = {row.index: [] for row in rows}
    whole_rows = {row.index: row for row in rows}

    def watched(
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        cache: Any,
        rows: Sequence[Row],
        keep: int,
    ) -> Tensor:
        logits = forward(input_ids, attention_mask, position_ids, cache, rows, keep)
        width = input_ids.shape[1]
        for place, row in enumerate(rows):
            if row.prompt != whole_rows[row.index].prompt:
                continue  # a beginning that is run for several
            cached = 0 if attention_mask is None else int(attention_mask[place].sum()) - width
            at = -1 if width == 1 else len(row.prompt) - cached - 1 - (width - keep)
            seen[row.index].append(logits[place, at])
        return logits

    steps = decode(
        watched,
        iter(rows),
        end_ids=frozenset(),
        cache_plan=lm.cache_plan,
        batch_rows=places,
        device=lm.device,
        shares=shares,
        fixed=(lambda slots: _SeenForward(lm, slots, seen)) if static else (lambda _slots: None),
    )
    off: list[float] = []
    for decoded in (each for step in steps for each in step):
        if decoded.finish == "failed":
            raise BackendError("its logits are not finite numbers")
        prompt = decoded.row.prompt
        ids = torch.tensor([prompt + decoded.ids[:-1]], device=lm.device)
        whole = lm.base()(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :]
        for cached, uncached in zip(seen[decoded.row.index], whole, strict=True):
            off.append(_difference(cached, uncached))
    half = lm.base().dtype not in _TOLERANCE
    return sorted(off)[len(off) // 2] if half else max(off)


class _SeenForward(FixedForward):
    """Keeps the logits of each row at each step."""

    def __init__(self, lm: CausalLM, slots: int, seen: dict[int, list[Tensor]]) -> None:
        super().__init__(lm, slots)
        self._seen = seen
        self._rows: Sequence[Row] = ()

    def put(self, rows: Sequence[Row], _bucket: int) -> Hashable:
        """Take which rows a step has."""
        self._rows = list(rows)
        return object()  # no step is like another one: none is recorded

    def __call__(self, tokens: Tensor, mask: Tensor, positions: Tensor, alive: Tensor, cache: Any) -> Tensor:
        """Logits [rows, vocabulary]."""
        logits = super().__call__(tokens, mask, positions, alive, cache)
        for row, own in zip(self._rows, logits, strict=False):
            if len(self._seen[row.index]) < row.max_tokens:  # a row that has ended is computed on until it is seen
                self._seen[row.index].append(own)
        return logits


def _adapter_off(lm: CausalLM) -> str | None:
    ids = torch.tensor([list(text_ids(lm, 8))], device=lm.device)
    adapters, name = lm.adapters, ""
    before = _logits(lm.model, ids)
    try:
        name, parameters = adapters.create(Sft(rank=2, alpha=4), seed=0)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        adapters.use(name)
        with torch.enable_grad():
            loss = lm.model(input_ids=ids, use_cache=False).logits.float().logsumexp(-1).mean()
            loss.backward()
        trained = _logits(lm.model, ids)
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder) / "adapter"
            adapters.save(name, saved)
            adapters.drop(name)
            name = ""
            file = AdapterFile.at(saved)
            name = adapters.load(file)
            try:
                adapters.use(name)
                loaded = _logits(lm.model, ids)
                sampled = _logits(lm.in_force(file), ids)
            finally:
                lm.row_adapters.drop(file)
                adapters.forget(file)
                name = ""
    finally:
        if name:
            adapters.drop(name)
    limit = _TOLERANCE.get(lm.model.dtype, _HALF) if lm.model.dtype != torch.float64 else 1e-3
    for what, logits, expected in (
        ("an adapter that is saved and loaded again", loaded, trained),
        ("an adapter in sampling", sampled, trained),
        ("the base model, once an adapter was attached and taken away,", _logits(lm.model, ids), before),
    ):
        off = max(map(_difference, logits, expected))
        if off > limit:
            raise BackendError(f"{what} gives other logits than before (off by {off:.2g} of their spread)")
    if max(map(_difference, trained, before)) <= 1e-6:
        raise BackendError("an adapter changes nothing: its layers are not called")
    return None


@torch.no_grad()
def _logits(model: Any, ids: Tensor) -> Tensor:
    """Logits [tokens, vocabulary] of a text."""
    found: Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return found


def _difference(one: Tensor, other: Tensor) -> float:
    """Root mean square difference of two rows of logits, in standard deviations of the second."""
    one, other = one.double(), other.double()
    return float((one - other).square().mean().sqrt() / other.std().clamp_min(1e-9))


def text_ids(lm: CausalLM, count: int) -> Iterator[int]:
    """Token ids of an ordinary text: placeholders of images, and other special tokens, are not among them."""
    special = set(lm.tokenizer.all_special_ids)
    known = [each for each in lm.tokenizer(_TEXT, add_special_tokens=False)["input_ids"] if each not in special]
    if not known:
        raise BackendError("its tokenizer makes no tokens of an ordinary text")
    return (known[index % len(known)] for index in range(count))


def _window(lm: CausalLM) -> int:
    """The longest of the model's attention windows that a check can go past at a cost of seconds; 0 for none."""
    text = lm.model.config
    text = text.get_text_config(decoder=True) if hasattr(text, "get_text_config") else text
    sizes = {getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size", "attention_window_size")}
    most = _AFFORDABLE.get(lm.device.type, _AFFORDABLE["cpu"]) / (6 * lm.parameters)
    if lm.context is not None:
        most = min(most, lm.context - 8)
    return max((size for size in sizes if isinstance(size, int) and size < most), default=0)
