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
    _windowshift_refusal = (
        "this vLLM loads its model in another way than vLLM 0.32, so that steering did not get into it: "
        "generate with  backend: local"
    )

    def windowshift_about(self, text: str) -> dict[str, Any]:  # noqa: ARG002 - every method takes one string
        """The model's layers and width, or why it cannot be steered."""
        return self._windowshift_guarded(lambda steering: steering.about())

    def windowshift_open(self, text: str) -> dict[str, Any]:
        """Open slots: ``{name: [pushes]}``."""
        return self._windowshift_guarded(lambda steering: steering.open(json.loads(text)))

    def windowshift_close(self, text: str) -> dict[str, Any]:
        """Close the slots of a list of names: what was done in each, by its name."""
        return self._windowshift_guarded(lambda steering: steering.close(json.loads(text)))

    def _windowshift_install(self) -> None:
        """The model is loaded, and has not run yet."""
        from windowshift.backends.vllm.batch_steering import BatchSteering
        from windowshift.core.contract.errors import BackendError

        try:
            self._windowshift_steering = BatchSteering(self.model_runner, self.vllm_config)
        except BackendError as error:  # it is told to who wants to steer; without steering the engine is fine
            self._windowshift_refusal = str(error)

    def _windowshift_guarded(self, work: Any) -> dict[str, Any]:
        from windowshift.core.contract.errors import WindowshiftError

        if self._windowshift_steering is None:
            return {"error": self._windowshift_refusal}
        try:
            found: dict[str, Any] = work(self._windowshift_steering)
            return found
        except WindowshiftError as error:
            return {"error": str(error)}


def _steer_what_is_loaded() -> None:
    """Let every worker of this process put steering into its model as soon as that is loaded, and not yet compiled."""
    from vllm.v1.worker.gpu_worker import Worker  # a CPU's worker is one too

    if getattr(Worker, "windowshift_steers", False):
        return
    original = Worker.load_model

    def load_model(self: Any, *args: Any, **by: Any) -> Any:
        found = original(self, *args, **by)
        if isinstance(self, SteeringWorker):
            self._windowshift_install()
        return found

    Worker.load_model = load_model
    Worker.windowshift_steers = True


if "vllm.v1.worker" in sys.modules:  # in a worker of vLLM, and not where somebody only reads this module
    from windowshift.backends.vllm.cpu_lora import mend_cpu_lora
    from windowshift.backends.vllm.cpu_seeds import mend_cpu_seeds

    mend_cpu_lora()
    mend_cpu_seeds()
    _steer_what_is_loaded()
