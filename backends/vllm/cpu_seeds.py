"""A fault of vLLM 0.32's seeds on a CPU, mended in its workers; CUDA's generators can step back, and do not have it."""

from __future__ import annotations

from typing import Any


def mend_cpu_seeds() -> None:
    """Let a seeded request whose prompt is read in parts go on, once a process.

    A step that reads a part of a prompt draws a token for it, throws it away, and takes the request's generator
    back by one draw. A CPU's generator cannot be taken back like that: the original ends there, and the whole
    engine with it, as soon as many prompts arrive at once. Here the generator's state before the draw is put back,
    so that what a seed draws does not depend on how its prompt was cut.
    """
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    if getattr(CPUModelRunner, "windowshift_mended", False):
        return
    sample, keep_books = CPUModelRunner._sample, CPUModelRunner._bookkeeping_sync

    def _sample(self: Any, *args: Any, **by: Any) -> Any:
        before = {row: self.input_batch.generators[row].get_state() for row in _read_in_part(self)}
        found = sample(self, *args, **by)
        for row, state in before.items():
            self.input_batch.generators[row].set_state(state)
        return found

    def _bookkeeping_sync(self: Any, *args: Any, **by: Any) -> Any:
        generators = self.input_batch.generators
        aside = {row: generators.pop(row) for row in _read_in_part(self)}  # they are where they must be
        try:
            return keep_books(self, *args, **by)
        finally:
            generators.update(aside)

    CPUModelRunner._sample = _sample
    CPUModelRunner._bookkeeping_sync = _bookkeeping_sync
    CPUModelRunner.windowshift_mended = True


def _read_in_part(runner: Any) -> list[int]:
    """Rows of the batch that have a seed, and whose prompt goes on in the next step."""
    batch = runner.input_batch
    thrown_away = runner.discard_request_mask.np[: batch.num_reqs].nonzero()[0]
    return [int(row) for row in thrown_away if int(row) in batch.generators]
