"""A causal language model from a folder or the hub: loaded once, shared by all adapters."""

from __future__ import annotations

import copy
import importlib.util
import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from windowshift.backends.local.accelerators import refuse_without_cuda
from windowshift.backends.local.adapters import AdapterFile, Adapters
from windowshift.backends.local.chat_format import ChatFormat
from windowshift.backends.local.chunked_attention import NAME as CHUNKED
from windowshift.backends.local.chunked_attention import decoding
from windowshift.backends.local.decode_row import Forward, Row
from windowshift.backends.local.hub import resolved
from windowshift.backends.local.kv_cache import CachePlan
from windowshift.backends.local.model_folder import POSITIONS, identify, locate, tiny
from windowshift.backends.local.options import LocalOptions
from windowshift.backends.local.row_adapters import RowAdapters
from windowshift.backends.local.stacked_attention import NAME as STACKED
from windowshift.backends.local.tokenizer import loading_error
from windowshift.core.contract.assets import is_embedded
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.fine_tune import adapter_digest, fine_tuned_fingerprint
from windowshift.core.contract.generation import Model, TemplateInputs
from windowshift.core.contract.hub import offline

if TYPE_CHECKING:
    from windowshift.steering.intervene import Intervention
    from windowshift.steering.points import LayerPoints

EXACT_BELOW = 50_000_000
DEFAULT_THREADS = torch.get_num_threads()


class CausalLM:
    """A loaded model, its tokenizer and its adapters.

    Two copies of a small CPU model are held: float32 weights that train, and a float64 copy that
    samples. In float32 the same row gives logits that differ by about 1e-6 with the shape of the
    batch around it, which flips a sampled token now and then; in float64 the noise is 1e-15 and
    does not. Larger CPU models and CUDA sample from the shared weights, and there a completion may,
    rarely, depend on what shares its batch. Rows of any adapters share a pass (`row_adapters`).

    With `recomputes`, training keeps what goes into each decoder layer, and computes the rest again.

    Nothing here is safe for two threads at once; see `windowshift.backends.local.turns`.
    """

    def __init__(self, label: str, base: str, fingerprint: str, model: Any, tokenizer: Any, exact: bool) -> None:
        self.label, self.fingerprint, self.model, self.tokenizer = label, fingerprint, model, tokenizer
        self.device = next(model.parameters()).device
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.end_ids = _end_ids(model, tokenizer)
        self.context = _context(model.config)
        self.chat = ChatFormat(tokenizer, label, self.end_ids)
        self._chats: dict[TemplateInputs | None, ChatFormat] = {None: self.chat}
        self._keywords = inspect.signature(model.forward).parameters
        duplicate: Any = copy.deepcopy(model).double() if exact else None
        self._copy = duplicate
        if exact and model.config._attn_implementation == "sdpa":
            duplicate.set_attn_implementation(CHUNKED)
        if exact and duplicate._can_set_experts_implementation():
            duplicate.set_experts_implementation("eager")  # grouped products of experts know no float64
        if self.device.type == "cpu" and model.config._attn_implementation == "sdpa":
            model.set_attn_implementation(STACKED)
        self.recomputes = False
        self.adapters = Adapters(model, label, base)
        sites = self.adapters.linear
        if exact:
            sites = {path: duplicate.get_submodule(path) for path in sites}
        self.row_adapters = RowAdapters(sites, self.adapters, (duplicate if exact else model).dtype)

    def chat_of(self, model: Model) -> ChatFormat:
        """The chat format with what a request's model says of its template."""
        if model.template not in self._chats:
            self._chats[model.template] = self.chat.reading(model.template)
        return self._chats[model.template]

    @property
    def exact(self) -> bool:
        """Whether completions are byte-equal whatever shares their batch."""
        return self._copy is not None

    @property
    def alike(self) -> bool:
        """Whether jobs in a common pass round as they do alone, which is so on a CPU."""
        return bool(self.device.type == "cpu")

    @cached_property
    def cache_plan(self) -> CachePlan:
        """What a cache for this model consists of.

        Raises:
            BackendError: the model keeps something that rows cannot come into and leave.
        """
        return CachePlan(self.model)

    @cached_property
    def sampling_fault(self) -> str | None:
        """Why this model cannot be sampled from, found out at the first use."""
        from windowshift.backends.local.first_use import sampling_fault

        return sampling_fault(self)

    @cached_property
    def static_fault(self) -> str | None:
        """Why decode steps of this model cannot be taken in tensors of fixed places, found out at the first use."""
        from windowshift.backends.local.first_use import static_fault

        return static_fault(self)

    @cached_property
    def training_fault(self) -> str | None:
        """Why no adapter of this model can be trained, found out at the first use."""
        from windowshift.backends.local.first_use import training_fault

        return training_fault(self)

    @cached_property
    def stacking_fault(self) -> str | None:
        """Why jobs of this model train one a pass and not together, found out at the first use; None: they stack."""
        from windowshift.backends.local.stacking_check import stacking_fault

        return stacking_fault(self)

    @cached_property
    def window(self) -> int | None:
        """The shortest attention window, past which a pass computes otherwise; None where there is none."""
        text = self.model.config
        text = text.get_text_config(decoder=True) if hasattr(text, "get_text_config") else text
        sizes = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size")]
        return min((size for size in sizes if isinstance(size, int) and size > 0), default=None)

    @property
    def keeps_logits(self) -> bool:
        """Whether the model can be asked for the logits of the last tokens alone."""
        return "logits_to_keep" in self._keywords

    @cached_property
    def training_points(self) -> LayerPoints:
        """The decoder layers of the model that trains. Importing nnsight waits until somebody steers.

        Raises:
            BackendError: the architecture cannot be steered.
        """
        from windowshift.steering.points import LayerPoints

        return LayerPoints(self.model)

    @cached_property
    def sampling_points(self) -> LayerPoints:
        """The decoder layers of the model that samples.

        Raises:
            BackendError: the architecture cannot be steered.
        """
        from windowshift.steering.points import LayerPoints

        return self.training_points if self._copy is None else LayerPoints(self._copy)

    def computes(self) -> bool:
        """Whether the copy that samples can do its arithmetic at all: some architectures know no float64."""
        try:
            with torch.inference_mode():
                self.base()(input_ids=torch.tensor([[0, 1]], device=self.device), use_cache=False)
        except (RuntimeError, TypeError):
            return False
        return True

    @cached_property
    def mixes(self) -> bool:
        """Whether rows of several adapters may share a pass, found out when they first would."""
        from windowshift.backends.local.first_use import mixes

        return mixes(self)

    @cached_property
    def shares(self) -> bool:
        """Whether the beginning that prompts share may be run once for all of them, found out when it first would."""
        from windowshift.backends.local.first_use import shares

        return shares(self)

    def base(self) -> Any:
        """The module that samples, with no adapter in force: set anew, as other work may come between."""
        if self._copy is not None:
            return self._copy
        self.adapters.use(None)
        return self.model

    def sampling_forward(self, adapter: str | None, steer: Intervention | None = None) -> Forward:
        """The forward pass for sampling, each row from its own adapter, or all from one as saved on disk.

        `steer`, made on `sampling_points`, pushes the rows that have a recipe.

        Raises:
            BackendError: the adapter is not one, or does not fit the model.
        """
        # A bad adapter shows here, before any row.
        every = None if adapter is None else self.row_adapters.load(AdapterFile.at(adapter))

        def forward(
            input_ids: Tensor,
            attention_mask: Tensor | None,
            position_ids: Tensor,
            cache: Any,
            rows: Sequence[Row],
            keep: int,
        ) -> Tensor:
            model = self.base()
            inputs = self.inputs_of(input_ids, attention_mask, position_ids, cache, keep)
            step = attention_mask is not None
            own = [row.adapter for row in rows] if every is None else [every]
            with decoding(cache) if step else nullcontext(), self.row_adapters.serving(own):
                if steer is None:
                    logits: Tensor = model(**inputs).logits
                else:
                    logits = steer.on_rows(rows, inputs, step=step).logits
            return logits[:, -keep:]

        return forward

    def inputs_of(
        self, input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor, cache: Any, keep: int
    ) -> dict[str, Any]:
        """What the model that samples is called with, by the names that its architecture has for it."""
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "position_ids" in self._keywords:
            inputs["position_ids"] = position_ids
        if self.keeps_logits:
            inputs["logits_to_keep"] = keep
        # Mamba has a name of its own for it, and swallows the usual one.
        inputs |= {"cache_params" if "cache_params" in self._keywords else "past_key_values": cache}
        inputs["use_cache"] = True
        if not self.cache_plan.attends:
            inputs["attention_mask"] = None  # there is no padding among states
        return inputs

    def in_force(self, file: AdapterFile | None) -> Callable[..., Any]:
        """What to call as the model that samples, all rows from one adapter, or from the base model.

        Raises:
            BackendError: the adapter does not fit the model.
        """
        every = None if file is None else self.row_adapters.load(file)

        def called(**inputs: Any) -> Any:
            with self.row_adapters.serving([every]):
                return self.base()(**inputs)

        return called


def load(base: str, revision: str | None, options: LocalOptions, merged: str | None = None) -> CausalLM:
    """Load a model and its tokenizer; `merged` is an adapter's folder that becomes part of it.

    Raises:
        BackendError: it cannot be found, reached or read, or is not a causal language model.
    """
    folder = locate(base)
    source = base if folder is None else str(folder)
    revision = resolved(base, revision) if folder is None else revision  # the weights are of the commit that counts
    device = _device(options, base)
    placing = _placing(options, device)
    _set_threads(options, base)
    transformers.utils.logging.disable_progress_bar()
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        cached = folder is None and offline()
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision, local_files_only=cached, trust_remote_code=False
        )
        model, info = AutoModelForCausalLM.from_pretrained(
            source,
            revision=revision,
            local_files_only=cached,
            trust_remote_code=False,
            dtype=weights_dtype(options, device),
            attn_implementation=_attention(options, device),
            output_loading_info=True,
            **placing,
        )
    except Exception as error:  # every library in the chain raises its own kinds
        raise BackendError(loading_error(base, folder, error)) from error
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
    if getattr(model, "_hf_peft_config_loaded", False):
        raise BackendError(f"'{base}' holds an adapter too, which transformers loaded into it: name another model")
    lacking = sorted(map(str, info.get("missing_keys") or ()))
    if lacking:
        raise BackendError(f"the weights of '{base}' lack {len(lacking)} tensors, such as {lacking[0]}")
    # Dropout stays off in training too: a run can then be resumed exactly.
    model.eval().requires_grad_(False)
    try:
        if not placing:  # else it is where it is to be, and what is quantised cannot be moved
            model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise BackendError(f"'{base}' cannot be put on device '{device}': {str(error).splitlines()[0]}") from error
    label = base if folder is None or is_embedded(base) else folder.name
    fingerprint = identify(base, revision).fingerprint
    if options.quantise != "none":
        fingerprint = f"{fingerprint}:{options.quantise}"
        if merged is not None:
            raise BackendError(
                "an adapter cannot be merged into quantised weights: leave  quantise  out, or sample from the adapter "
                "beside them"
            )
    if merged is not None:
        Adapters(model, label, source).merge(AdapterFile.at(merged))
        fingerprint = fine_tuned_fingerprint(fingerprint, adapter_digest(merged))
        label = f"{label}+{Path(merged).name}"
    lm = CausalLM(label, source, fingerprint, model, tokenizer, _exact(options, device, model))
    if lm.exact and options.dtype == "auto" and not lm.computes():
        lm = CausalLM(label, source, fingerprint, model, tokenizer, exact=False)
    lm.recomputes = options.gradient_checkpointing
    return lm


def _placing(options: LocalOptions, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` is told of a model that is quantised, or lies on several devices; else nothing.

    Raises:
        BackendError: there is no CUDA device, or bitsandbytes is not installed.
    """
    if options.quantise == options.device_map == "none":
        return {}
    refuse_without_cuda(options)
    found: dict[str, Any] = {"device_map": {"": device} if options.device_map == "none" else options.device_map}
    if options.quantise != "none":
        if importlib.util.find_spec("bitsandbytes") is None:
            raise BackendError(
                f"option  quantise: {options.quantise}  of backend 'local' needs bitsandbytes: run  pip install "
                "'windowshift[quantise]'"
            )
        four = options.quantise == "4bit"
        found["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=four,
            load_in_8bit=not four,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=weights_dtype(options, device),
        )
    return found


def _set_threads(options: LocalOptions, base: str) -> None:
    """Threads only hurt a model whose operations take microseconds, most of all on a busy machine."""
    torch.set_num_threads(options.threads or (1 if tiny(base) else DEFAULT_THREADS))


def _device(options: LocalOptions, base: str) -> torch.device:
    if options.device == "auto":  # launching a kernel takes longer than a core needs for a tiny model's work
        return torch.device("cuda" if torch.cuda.is_available() and not tiny(base) else "cpu")
    try:
        device = torch.device(options.device)
    except RuntimeError as error:
        raise BackendError(f"option 'device' of backend 'local' cannot be '{options.device}'") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BackendError("option 'device' of backend 'local' is 'cuda', but torch sees no CUDA device")
    if device.type not in ("cpu", "cuda"):  # mps, xpu, ...: nobody has seen that the numbers agree there
        raise BackendError(
            f"option 'device' of backend 'local' is '{options.device}', where its numbers were never compared with "
            "those of a CPU: take  device: cpu  or cuda"
        )
    return device


def weights_dtype(options: LocalOptions, device: torch.device) -> torch.dtype:
    """The type of numbers that a model is loaded in."""
    if options.dtype in ("auto", "float64"):  # float64 is for the copy that samples
        return torch.bfloat16 if device.type == "cuda" and options.dtype == "auto" else torch.float32
    return getattr(torch, options.dtype)  # type: ignore[no-any-return]  # a dtype by its name


def _exact(options: LocalOptions, device: torch.device, model: nn.Module) -> bool:
    if options.dtype != "auto":
        return options.dtype == "float64"
    return device.type == "cpu" and sum(each.numel() for each in model.parameters()) < EXACT_BELOW


def _attention(options: LocalOptions, device: torch.device) -> str | None:
    if options.attention != "auto":
        return options.attention
    if device.type == "cuda" and options.dtype in ("auto", "bfloat16", "float16"):
        return "flash_attention_2" if importlib.util.find_spec("flash_attn") else None
    return None  # transformers takes sdpa where the model has it


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    found: set[int] = set()
    for source in (tokenizer, getattr(model, "generation_config", None), model.config):
        ids = getattr(source, "eos_token_id", None)
        found.update([ids] if isinstance(ids, int) else ids or ())
    return frozenset(found)


def _context(config: Any) -> int | None:
    """Positions the model knows, prompt and completion together; None where it names none."""
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    for name in POSITIONS:
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None
