"""What PEFT is told of a plain LoRA adapter: which modules it has, and how they are scaled; nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from windowshift.backends.shared.adapter_fields import CONFIG, plain_lora_fields
from windowshift.core.contract.errors import BackendError

ALL_LINEAR = "all-linear"


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The part of an adapter_config.json that says what a plain LoRA adapter computes."""

    rank: int
    alpha: float
    targets: str | tuple[str, ...]
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    match: LoraConfig

    @classmethod
    def read(cls, folder: Path) -> AdapterConfig:
        """Read the configuration of the adapter in a folder.

        Raises:
            BackendError: it cannot be read, or asks for something else than plain LoRA; the field is named.
        """
        fields = plain_lora_fields(folder)
        try:
            return cls._parsed(fields)
        except (TypeError, ValueError, re.error) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BackendError(f"adapter '{folder}' cannot be read: {CONFIG}: {reason}") from error

    @classmethod
    def _parsed(cls, fields: Mapping[str, Any]) -> AdapterConfig:
        rank, alpha = _number(fields, "r", 8, whole=True), _number(fields, "lora_alpha", 8)
        targets = fields.get("target_modules")
        if isinstance(targets, list) and all(isinstance(each, str) for each in targets):
            targets = tuple(targets)
        if not targets or not isinstance(targets, str | tuple):
            raise ValueError("target_modules names no modules")
        patterns = {name: fields.get(name) or {} for name in ("rank_pattern", "alpha_pattern")}
        for name, values in patterns.items():
            if not isinstance(values, dict):
                raise TypeError(f"{name} is not a JSON object")
            for key in values:
                re.compile(key)
                _number(values, key, 0, whole=name == "rank_pattern")
        if isinstance(targets, str) and targets != ALL_LINEAR:
            re.compile(targets)
        excluded, layers = fields.get("exclude_modules"), fields.get("layers_to_transform")
        pattern = fields.get("layers_pattern")
        for name, value in (("exclude_modules", excluded), ("layers_pattern", pattern)):
            if not _listed(value, str):
                raise TypeError(f"{name} is neither a text nor a list of texts")
            for each in [value] if isinstance(value, str) else value or ():
                re.compile(each)
        if not _listed(layers, int):
            raise TypeError("layers_to_transform is neither a whole number nor a list of them")
        match = LoraConfig(
            target_modules=targets if isinstance(targets, str) else list(targets),
            exclude_modules=excluded,
            layers_to_transform=layers,
            layers_pattern=pattern,
        )
        rslora = bool(fields.get("use_rslora") or False)
        return cls(int(rank), alpha, targets, patterns["rank_pattern"], patterns["alpha_pattern"], rslora, match)

    def names(self, module: str) -> bool:
        """Whether the adapter is to have weights for the linear layer at this path."""
        if self.targets == ALL_LINEAR and not self.match.exclude_modules:
            return True
        return bool(check_target_module_exists(self.match, module))

    def rank_of(self, module: str) -> int:
        """The rank at a path."""
        return int(self.rank_pattern.get(get_pattern_key(list(self.rank_pattern), module), self.rank))

    def plain(self, modules: Mapping[str, int]) -> LoraConfig:
        """What PEFT is given: modules by their whole paths with their ranks, and nothing else of the file."""
        alphas = {
            path: self.alpha_pattern.get(get_pattern_key(list(self.alpha_pattern), path), self.alpha)
            for path in modules
        }
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=0.0,
            bias="none",
            use_rslora=self.rslora,
            target_modules=list(modules),
            rank_pattern={re.escape(path): rank for path, rank in modules.items() if rank != self.rank},
            alpha_pattern={re.escape(path): alpha for path, alpha in alphas.items() if alpha != self.alpha},
            task_type="CAUSAL_LM",
            inference_mode=True,
        )


def _listed(value: Any, kind: type) -> bool:
    """Whether a value is missing, of a kind, or a list of that kind."""
    return value is None or isinstance(value, kind) or (isinstance(value, list) and all(type(e) is kind for e in value))


def _number(fields: Mapping[str, Any], name: str, default: float, *, whole: bool = False) -> float:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise TypeError(f"{name} is not a {'whole ' if whole else ''}number")
    if not math.isfinite(value) or (whole and value < 1):
        raise ValueError(f"{name} cannot be {value}")
    return value
