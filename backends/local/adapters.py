"""LoRA adapters on one shared base model: attach, train, save, load, merge."""

from __future__ import annotations

import json
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from peft import LoraConfig, PeftConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.training import Sft

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
ATTACHED = 16


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter folder as it was when a request named it: a changed folder is another adapter."""

    folder: Path
    size: int
    changed: int

    @classmethod
    def at(cls, folder: str | Path) -> AdapterFile:
        """Find the adapter in a folder.

        Raises:
            BackendError: the folder does not hold a PEFT adapter.
        """
        path = Path(folder).expanduser()
        for name in (CONFIG, WEIGHTS):
            if not (path / name).is_file():
                raise BackendError(f"adapter folder '{folder}' has no {name}")
        found = (path / WEIGHTS).stat()
        return cls(path, found.st_size, found.st_mtime_ns)


class Adapters:
    """The LoRA adapters attached to one model; at most `ATTACHED` loaded ones stay attached.

    The base model is changed in place: its linear layers become PEFT layers that know several
    adapters, of which one or none is in force.
    """

    def __init__(self, model: nn.Module, label: str, base: str) -> None:
        self._model, self._label, self._base = model, label, base
        self._peft: Any = None
        self._loaded: OrderedDict[AdapterFile, str] = OrderedDict()
        self._in_force: str | None = None
        self._count = 0
        output = getattr(model, "get_output_embeddings", lambda: None)()
        linear = {
            name: module
            for name, module in model.named_modules()
            if module is not output and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        }
        # Names are matched by their last part, as PEFT's "all-linear" does.
        self.targets = sorted({name.rsplit(".", 1)[-1] for name in linear})
        self._transposed = any(type(module).__name__ == "Conv1D" for module in linear.values())

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
        """Attach a fresh adapter whose weights depend on `seed` only; its parameters by name."""
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
        name = self._attach(config, seed)
        parameters = {
            key: parameter for key, parameter in self._model.named_parameters() if f".{name}." in key and "lora_" in key
        }
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        return name, parameters

    def load(self, file: AdapterFile) -> str:
        """Attach a saved adapter, or find it attached.

        Raises:
            BackendError: it is not a plain LoRA adapter of this model.
        """
        if file in self._loaded:
            self._loaded.move_to_end(file)
            return self._loaded[file]
        where = f"adapter '{file.folder}'"
        try:
            config = PeftConfig.from_pretrained(str(file.folder))
            state = load_file(str(file.folder / WEIGHTS))
        except Exception as error:  # PEFT and safetensors raise many kinds for a bad file
            raise BackendError(f"{where} cannot be read: {_first_line(error)}") from error
        plain = all(key.endswith((".lora_A.weight", ".lora_B.weight")) for key in state)
        if not isinstance(config, LoraConfig) or not plain:
            raise BackendError(f"{where} is not a plain LoRA adapter, which is what backend 'local' can use")
        config.inference_mode = True
        try:
            name = self._attach(config, seed=0)
        except Exception as error:
            raise BackendError(f"{where} does not fit '{self._label}': {_first_line(error)}") from error
        expected = get_peft_model_state_dict(self._peft, adapter_name=name, save_embedding_layers=False)
        problem = _difference(state, expected)
        if problem is None:
            set_peft_model_state_dict(self._peft, state, adapter_name=name)
        else:
            self.drop(name)
            raise BackendError(f"{where} does not fit '{self._label}': {problem}")
        self._loaded[file] = name
        while len(self._loaded) > ATTACHED:
            self.drop(self._loaded.popitem(last=False)[1])
        return name

    def save(self, name: str, folder: Path) -> None:
        """Write a PEFT folder, whole or not at all."""
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        state = get_peft_model_state_dict(self._peft, adapter_name=name, save_embedding_layers=False)
        tensors = {key: value.detach().float().cpu().contiguous() for key, value in state.items()}
        save_file(tensors, str(partial / WEIGHTS), metadata={"format": "pt"})
        config = self._peft.peft_config[name].to_dict()
        config |= {"inference_mode": True, "target_modules": self.targets, "peft_version": peft.__version__}
        text = json.dumps(config, indent=2, sort_keys=True, default=str)
        (partial / CONFIG).write_text(text + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    def drop(self, name: str) -> None:
        """Detach an adapter."""
        self.use(None)
        with warnings.catch_warnings():
            # PEFT puts another adapter in force when the active one goes, and says so; the next line undoes it.
            warnings.simplefilter("ignore", UserWarning)
            self._peft.delete_adapter(name)
        self._peft.base_model.disable_adapter_layers()
        self._in_force = None

    @torch.no_grad()
    def deltas(self, name: str) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Of every layer that an adapter changes: its path, base weight and change, in float64."""
        for path, module in self._model.named_modules():
            if isinstance(module, LoraLayer) and name in module.lora_A:
                down = module.lora_A[name].weight.double()
                change = module.scaling[name] * (module.lora_B[name].weight.double() @ down)
                weight = module.get_base_layer().weight.double()
                yield path, weight, change.T if getattr(module, "fan_in_fan_out", False) else change

    def _attach(self, config: Any, seed: int) -> str:
        name = f"adapter{self._count}"
        self._count += 1
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # between PEFT and transformers
            torch.manual_seed(seed % (1 << 63))
            if self._peft is None:
                self._peft = PeftModel(self._model, config, adapter_name=name)
            else:
                self._peft.add_adapter(name, config)
        self._peft.base_model.disable_adapter_layers()
        self._in_force = None
        return name


def _difference(state: dict[str, Tensor], expected: dict[str, Tensor]) -> str | None:
    """What keeps saved weights from being exactly the adapter's, in words; None where nothing does."""
    missing, extra = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing:
        return f"it lacks {len(missing)} weights, such as {min(missing)}"
    if extra:
        return f"it has {len(extra)} weights too many, such as {min(extra)}"
    for key, value in state.items():
        if value.shape != expected[key].shape:
            return f"{key} is {tuple(value.shape)} where the model needs {tuple(expected[key].shape)}"
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
