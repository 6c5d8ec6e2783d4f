"""What `--worker-extension-cls` adds to every vLLM worker: steering, called over `collective_rpc`.

vLLM makes `SteeringWorker` a base class of its worker. Arguments are strings of JSON, as its HTTP route takes no
others, and what a caller can get wrong comes back as ``{"error": sentence}``: vLLM would write an exception's
whole traceback to its log and leave the caller with a part of it.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from windowshift.backends.vllm.batch_steering import BatchSteering


class SteeringWorker:
    """The worker's side of steering. A slot is one way of being steered within one call of `generate`."""

    model_runner: Any
    vllm_config: Any
    _windowshift_steering: BatchSteering | None = None

    def windowshift_about(self, text: str) -> dict[str, Any]:  # noqa: ARG002 - every method takes one string
        """The model's layers and width, or why it cannot be steered."""
        return self._windowshift_guarded(lambda steering: steering.about())

    def windowshift_open(self, text: str) -> dict[str, Any]:
        """Open slots: ``{name: [pushes]}``."""
        return self._windowshift_guarded(lambda steering: steering.open(json.loads(text)))

    def windowshift_close(self, text: str) -> dict[str, Any]:
        """Close the slots of a list of names: what was done in each, by its name."""
        return self._windowshift_guarded(lambda steering: steering.close(json.loads(text)))

    def _windowshift_guarded(self, work: Any) -> dict[str, Any]:
        from windowshift.core.contract.errors import WindowshiftError

        try:
            if self._windowshift_steering is None:
                from windowshift.backends.vllm.batch_steering import BatchSteering

                self._windowshift_steering = BatchSteering(self.model_runner, self.vllm_config)
            found: dict[str, Any] = work(self._windowshift_steering)
            return found
        except WindowshiftError as error:
            return {"error": str(error)}


if "vllm.v1.worker" in sys.modules:  # in a worker of vLLM, and not where somebody only reads this module
    from windowshift.backends.vllm.cpu_lora import mend_cpu_lora
    from windowshift.backends.vllm.cpu_seeds import mend_cpu_seeds

    mend_cpu_lora()
    mend_cpu_seeds()
