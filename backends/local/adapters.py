"""LoRA adapters on one shared base model: attach, train, save, load, merge."""

from __future__ import annotations

import json
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import peft
import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from windowshift.backends.local.adapter_config import AdapterConfig
from windowshift.backends.shared.adapter_fields import CONFIG
from windowshift.backends.shared.refusal import library_reason
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.home import at_home
from windowshift.core.contract.training import Sft
from windowshift.core.contract.whole_file import replacing_folder

WEIGHTS = "adapter_model.safetensors"
ATTACHED = 16
_PREFIX = "base_model.model."
# Layers whose weights the model reads past the layer, so that an adapter there would go unseen. PEFT refuses
# `out_proj` for the same reason (`_check_lora_target_modules_mamba`).
_READ_PAST = {
    "mamba": frozenset({"out_proj", "dt_proj"}),
    "falcon_mamba": frozenset({"out_proj", "dt_proj"}),
    "mamba2": frozenset({"out_proj"}),
    "falcon_h1": frozenset({"out_proj"}),
    "nemotron_h": frozenset({"out_proj"}),
    "jamba": frozenset({"dt_proj"}),
}


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter folder as it was when a request named it: a changed folder is another adapter."""

    folder: Path
    state: tuple[tuple[int, int], ...]  # size and time of change of its two files

    @classmethod
    def at(cls, folder: str | Path) -> AdapterFile:
        """Find the adapter in a folder.

        Raises:
            BackendError: the folder does not hold a PEFT adapter.
        """
        path = at_home(folder)
        for name in (CONFIG, WEIGHTS):
            if not (path / name).is_file():
                raise BackendError(f"adapter folder '{folder}' has no {name}")
        found = [(path / name).stat() for name in (CONFIG, WEIGHTS)]
        return cls(path, tuple((each.st_size, each.st_mtime_ns) for each in found))


@dataclass(frozen=True, slots=True)
class AdapterSnapshot:
    """An adapter as it was at one moment: its tensors by name, on the CPU, and the text of its configuration."""

    tensors: Mapping[str, Tensor]
    config: str

    def write(self, folder: Path, beside: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write a PEFT folder, with the texts `beside` as further files, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        with replacing_folder(folder) as partial:
            save_file(
                {key: value.contiguous() for key, value in self.tensors.items()},
                str(partial / WEIGHTS),
                metadata={"format": "pt"},
            )
            (partial / CONFIG).write_text(self.config, encoding="utf-8")
            for name, text in beside.items():
                (partial / name).write_text(text, encoding="utf-8")


class Adapters:
    """The LoRA adapters attached to one model; at most `ATTACHED` loaded ones stay attached.

    The base model is changed in place: its linear layers become PEFT layers that know several
    adapters, of which one or none is in force. Its own weights are never written to.

    `targets` are the names of the modules that training adapts: the linear layers of the text decoder
    without the output head. Fused experts of a mixture are no linear layers, and are not among them.
    `linear` has every layer by its path that a saved adapter may change, as the base model made it.
    """

    def __init__(self, model: nn.Module, label: str, base: str) -> None:
        self._model, self._label, self._base = model, label, base
        self._peft: Any = None
        self._loaded: OrderedDict[AdapterFile, str] = OrderedDict()
        self._in_force: str | None = None
        self._count = 0
        past = _READ_PAST.get(getattr(getattr(model, "config", None), "model_type", ""), frozenset())
        self.linear = {
            name: module
            for name, module in model.named_modules()
            if _plain_linear(module) and name.rsplit(".", 1)[-1] not in past
        }
        self.targets = _targets(model, self.linear)
        self._transposed = any(type(module).__name__ == "Conv1D" for module in self.linear.values())

    def use(self, name: str | None) -> None:
        """Put one adapter in force, or none."""
        if name == self._in_force or self._peft is None:
            return
        if name is None:
            self._peft.base_model.disable_adapter_layers()
        else:
            self._peft.base_model.enable_adapter_layers()
            self._peft.base_model.set_adapter(name)
        self._in_force = name

    def create(self, sft: Sft, seed: int) -> tuple[str, dict[str, nn.Parameter]]:
        """Attach a fresh adapter whose weights depend on `seed` only; its parameters by name.

        Raises:
            BackendError: the model has no layers that an adapter could be attached to, or PEFT refuses them.
        """
        if not self.targets:
            raise BackendError(f"'{self._label}' has no linear layers that a LoRA adapter could be attached to")
        config = LoraConfig(
            r=sft.rank,
            lora_alpha=sft.lora_alpha,
            lora_dropout=0.0,
            bias="none",
            target_modules=list(self.targets),
            fan_in_fan_out=self._transposed,
            task_type="CAUSAL_LM",
            base_model_name_or_path=self._base,
        )
        try:
            name = self._attach(config, seed)
        except Exception as error:  # PEFT raises many kinds for a module that it does not like
            raise BackendError(f"'{self._label}' cannot be given an adapter: {library_reason(error)}") from error
        parameters = {
            key: parameter for key, parameter in self._model.named_parameters() if f".{name}." in key and "lora_" in key
        }
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        return name, parameters

    @torch.no_grad()
    def start(self, name: str, file: AdapterFile) -> None:
        """Give an attached adapter the weights of a saved one, to train on from there.

        Raises:
            BackendError: the saved one is not a plain LoRA adapter of this model, or has another rank, scale or layers.
        """
        saved, mine = self.load(file), dict(self._layers(name))
        theirs = dict(self._layers(saved))
        for path, layer in mine.items():
            other = theirs.get(path)
            if (
                other is None
                or len(mine) != len(theirs)
                or other.scaling[saved] != layer.scaling[name]
                or other.lora_A[saved].weight.shape != layer.lora_A[name].weight.shape
            ):
                raise BackendError(
                    f"adapter '{file.folder}' has another rank, scale or other layers than what is to be trained on "
                    "from it: use the same  sft.rank  and  sft.alpha"
                )
            layer.lora_A[name].weight.copy_(other.lora_A[saved].weight)
            layer.lora_B[name].weight.copy_(other.lora_B[saved].weight)

    def matrices(self, name: str) -> Iterator[tuple[str, nn.Parameter, nn.Parameter, float]]:
        """Of every layer that an adapter changes: path, `A` [rank, in], `B` [out, rank], and the product's factor."""
        for path, layer in self._layers(name):
            yield path, layer.lora_A[name].weight, layer.lora_B[name].weight, float(layer.scaling[name])

    def load(self, file: AdapterFile) -> str:
        """Attach a saved adapter, or find it attached.

        Everything is checked before the model is touched, so that a refusal leaves nothing behind.

        Raises:
            BackendError: it is not a plain LoRA adapter of this model.
        """
        if file in self._loaded:
            self._loaded.move_to_end(file)
            return self._loaded[file]
        where = f"adapter '{file.folder}'"
        config = AdapterConfig.read(file.folder)
        try:
            state = load_file(str(file.folder / WEIGHTS))
        except Exception as error:  # safetensors raises many kinds for a bad file
            raise BackendError(f"{where} cannot be read: {library_reason(error)}") from error
        modules = self._modules(where, state, config)
        try:
            name = self._attach(config.plain({path: down.shape[0] for path, (down, _) in modules.items()}), seed=0)
        except Exception as error:
            raise BackendError(f"{where} does not fit '{self._label}': {library_reason(error)}") from error
        if {path for path, _ in self._layers(name)} != modules.keys():
            self.drop(name)
            raise BackendError(
                f"{where} does not fit '{self._label}': PEFT attaches it to other layers, such as experts"
            )
        with torch.no_grad():
            for path, layer in self._layers(name):
                down, up = modules[path]
                layer.lora_A[name].weight.copy_(down)
                layer.lora_B[name].weight.copy_(up)
        self._loaded[file] = name
        while len(self._loaded) > ATTACHED:
            self.drop(self._loaded.popitem(last=False)[1])
        return name

    def snapshot(self, name: str) -> AdapterSnapshot:
        """The adapter as it is now, to be written while it changes."""
        tensors = {
            f"{_PREFIX}{path}.{part}.weight": _copy(getattr(layer, part)[name].weight)
            for path, layer in self._layers(name)
            for part in ("lora_A", "lora_B")
        }
        config = self._peft.peft_config[name].to_dict()
        config |= {"inference_mode": True, "target_modules": self.targets, "peft_version": peft.__version__}
        config["target_parameters"] = config.get("target_parameters") or None  # PEFT leaves an empty set for experts
        return AdapterSnapshot(tensors, json.dumps(config, indent=2, sort_keys=True, default=_as_json) + "\n")

    def save(self, name: str, folder: Path) -> None:
        """Write a PEFT folder, whole or not at all."""
        self.snapshot(name).write(folder)

    def drop(self, name: str) -> None:
        """Detach an adapter."""
        self.use(None)
        with warnings.catch_warnings():
            # PEFT puts another adapter in force when the active one goes, and says so; the next line undoes it.
            warnings.simplefilter("ignore", UserWarning)
            self._peft.delete_adapter(name)
        # PEFT leaves the name of the deleted adapter standing where no other one takes its place.
        self._peft.active_adapter = next(iter(self._peft.peft_config), [])
        self._peft.base_model.disable_adapter_layers()
        self._in_force = None

    def forget(self, file: AdapterFile) -> None:
        """Detach a loaded adapter whose file is to go."""
        name = self._loaded.pop(file, None)
        if name is not None:
            self.drop(name)

    @torch.no_grad()
    def merge(self, file: AdapterFile) -> None:
        """Make a saved adapter part of the model's own weights, for good, and take PEFT's layers away.

        Raises:
            BackendError: as `load`.
        """
        name = self.load(file)
        merged = dict(self.deltas(name))
        self._peft, self._loaded = None, OrderedDict()
        self._undo(name)
        for path, weight in merged.items():
            module: Any = self._model.get_submodule(path)
            # Another parameter, as a layer may share the one that it has (tied embeddings).
            module.weight = nn.Parameter(weight.to(module.weight.dtype), requires_grad=False)

    @torch.no_grad()
    def deltas(self, name: str) -> Iterator[tuple[str, Tensor]]:
        """Of every layer that an adapter changes: its path, and its base weight with the change, in float64."""
        for path, module in self._layers(name):
            down = module.lora_A[name].weight.double()
            change = module.scaling[name] * (module.lora_B[name].weight.double() @ down)
            weight = module.get_base_layer().weight.double()
            yield path, weight + (change.T if getattr(module, "fan_in_fan_out", False) else change)

    def _layers(self, name: str) -> Iterator[tuple[str, Any]]:
        """The layers that an adapter is attached to, by their paths in the model."""
        for path, module in self._model.named_modules():
            if isinstance(module, LoraLayer) and name in module.lora_A:
                yield path, module

    def _modules(
        self, where: str, state: Mapping[str, Tensor], config: AdapterConfig
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """An adapter's two matrices by the path of their layer.

        Raises:
            BackendError: they are not exactly those of the layers that the configuration names.
        """
        misfit = f"{where} does not fit '{self._label}'"
        found: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            path, _, part = key.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
            if part in ("lora_A", "lora_B") and key.startswith(_PREFIX):
                found.setdefault(path, {})[part] = value
            elif not self._unchanged(key.removeprefix(_PREFIX), value):
                raise BackendError(
                    f"{where} is not a plain LoRA adapter, which is what backend 'local' can use: it has {key}"
                )
        # Two layers may share one weight: an adapter of one of them leaves the other one alone, as in PEFT.
        extra = found.keys() - self.linear.keys()
        if extra:
            raise BackendError(
                f"{misfit}: it has {len(extra)} weights too many, such as those of {min(extra)}, "
                "which is no linear layer of the model"
            )
        head = getattr(self._model, "get_output_embeddings", lambda: None)()
        named = [path for path, module in self.linear.items() if config.names(path)]
        if config.targets == "all-linear":
            named = [path for path in named if self.linear[path] is not head]
        missing = [path for path in named if len(found.get(path, ())) < 2]
        if missing:
            raise BackendError(f"{misfit}: it lacks {len(missing)} weights, such as those of {min(missing)}")
        if found.keys() - set(named):
            unnamed = min(found.keys() - set(named))
            raise BackendError(f"{misfit}: it has weights of {unnamed}, which its {CONFIG} does not name")
        modules: dict[str, tuple[Tensor, Tensor]] = {}
        for path, parts in found.items():
            down, up = parts["lora_A"], parts["lora_B"]
            width, height = sizes(self.linear[path])
            rank = config.rank_of(path)
            for part, value, shape in (("lora_A", down, (rank, width)), ("lora_B", up, (height, rank))):
                if value.shape != shape:
                    raise BackendError(f"{misfit}: {path}.{part} is {tuple(value.shape)} where the model needs {shape}")
                if not value.isfinite().all():
                    raise BackendError(f"{where} has numbers that are not finite, in {path}.{part}")
            modules[path] = (down, up)
        return modules

    def _unchanged(self, key: str, value: Tensor) -> bool:
        """Whether a weight beside the adapter's is the base model's own: PEFT saves embeddings it did not train."""
        try:
            own = self._model.get_parameter(key)
        except AttributeError:
            own = None
        if own is None:
            try:
                own = self._model.get_parameter(key.replace(".base_layer.", "."))
            except AttributeError:
                return False
        return own.shape == value.shape and torch.equal(value.to(own.device, own.dtype), own)

    def _attach(self, config: Any, seed: int) -> str:
        """Attach an adapter, or leave the model as it was."""
        name = f"adapter{self._count}"
        self._count += 1
        try:
            with torch.random.fork_rng(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PEFT's, about orientations and versions, which are settled here
                torch.manual_seed(seed % (1 << 63))
                if self._peft is None:
                    self._peft = PeftModel(self._model, config, adapter_name=name)
                else:
                    self._peft.add_adapter(name, config)
        except Exception:
            self._undo(name)
            raise
        self._model.eval()  # fresh modules come in training mode
        self._peft.base_model.disable_adapter_layers()
        self._in_force = None
        return name

    def _undo(self, name: str) -> None:
        """Take away what is attached of an adapter that PEFT gave up on."""
        for path, module in list(self._model.named_modules()):
            if not isinstance(module, LoraLayer):
                continue
            if self._peft is not None:
                module.delete_adapter(name)
                module.enable_adapters(False)
            else:
                parent, _, last = path.rpartition(".")
                setattr(self._model.get_submodule(parent), last, module.get_base_layer())
        if self._peft is None:
            for left in ("peft_config", "_hf_peft_config_loaded"):
                self._model.__dict__.pop(left, None)
        else:
            self._peft.base_model.peft_config.pop(name, None)
            self._peft.active_adapter = next(iter(self._peft.peft_config), [])
            self._peft.base_model.disable_adapter_layers()
        self._in_force = None


def _copy(weight: Tensor) -> Tensor:
    return weight.detach().to("cpu", torch.float32, copy=True)


def _plain_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer and nothing more: a model's own subclass (a router) may give out a tuple."""
    kind = type(module)
    if kind.__name__ == "Conv1D":
        return True
    return isinstance(module, nn.Linear) and not kind.__module__.startswith("transformers.models.")


def _targets(model: Any, linear: Mapping[str, nn.Module]) -> list[str]:
    """The modules to adapt: by the last part of their name, as PEFT's "all-linear" does, where that is no other's."""
    output = getattr(model, "get_output_embeddings", lambda: None)()
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    within = {id(module) for module in decoder.modules()}
    if not any(id(module) in within for module in linear.values()):
        within = {id(module) for module in model.modules()}
    chosen = {path for path, module in linear.items() if module is not output and id(module) in within}
    moved = {last for last in {path.rsplit(".", 1)[-1] for path in chosen} if _moved_to_experts(model, last)}
    chosen = {path for path in chosen if path.rsplit(".", 1)[-1] not in moved}
    short = {path.rsplit(".", 1)[-1] for path in chosen}
    others = {path.rsplit(".", 1)[-1] for path, _ in model.named_modules() if path not in chosen}
    return sorted(chosen if short & others else short)


def _moved_to_experts(model: Any, name: str) -> bool:
    """Whether PEFT takes the name of a layer for that of a fused expert's part, and goes for the expert."""
    config = LoraConfig(target_modules=[name])
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # it wants the other part of what was fused, too
        return True
    return bool(config.target_parameters)


def sizes(module: Any) -> tuple[int, int]:
    """Numbers that go into a linear layer, and that come out of it."""
    if type(module).__name__ == "Conv1D":
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    return int(module.in_features), int(module.out_features)


def _as_json(value: Any) -> Any:
    """What JSON has no word for; never a text that merely looks like the value."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} cannot be written to {CONFIG}")
