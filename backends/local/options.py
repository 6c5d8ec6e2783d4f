"""The options of backend `local`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from windowshift.backends.shared.option_checks import OptionChecks
from windowshift.core.contract.errors import BackendError

_DTYPES = ("auto", "float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """How backend `local` computes.

    Attributes:
        device: ``auto`` (cuda where there is one), ``cpu``, ``cuda``, ``cuda:1``, ...
        dtype: ``auto`` or a torch dtype name. ``auto`` samples in float64 from CPU models below
            50 M parameters (where their architecture knows it), in float32 from larger ones, and in bfloat16
            on cuda.
        batch_rows: completions decoded at once; 0 chooses by model size.
        threads: CPU threads; 0 takes one for a very small model, torch's choice otherwise.
        workers: processes that share the work on a very small CPU model; 0 takes one a core, 1 stays
            in this process.
        attention: a transformers attention implementation (``sdpa``, ``eager``,
            ``flash_attention_2``, ...); ``auto`` takes flash attention on cuda where installed.
        state_seconds: a training job saves its resume state this often; 0 is after every step.
        progress_seconds: a training job reports its loss this often; 0 is after every step, None what
            suits a screen.
    """

    device: str = "auto"
    dtype: str = "auto"
    batch_rows: int = 0
    threads: int = 0
    workers: int = 0
    attention: str = "auto"
    state_seconds: float = 20.0
    progress_seconds: float | None = None

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> LocalOptions:
        """Check options that a person wrote.

        Raises:
            BackendError: an unknown option (with a suggestion), or a value that makes no sense.
        """
        check = OptionChecks("local")
        check.names(options, [field.name for field in fields(cls)])
        for name in ("device", "dtype", "attention"):
            if name in options and not (isinstance(options[name], str) and options[name]):
                raise BackendError(f"option '{name}' of backend 'local' must be a name, got {options[name]!r}")
        if options.get("dtype", "auto") not in _DTYPES:
            near = difflib.get_close_matches(options["dtype"], _DTYPES, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(_DTYPES)}"
            raise BackendError(f"option 'dtype' of backend 'local' cannot be '{options['dtype']}': {hint}")
        for name in ("batch_rows", "threads", "workers"):
            check.number(options, name, 0, whole=True)
        check.number(options, "state_seconds", 0)
        if options.get("progress_seconds") is not None:
            check.number(options, "progress_seconds", 0)
        return cls(**options)
