"""The points of a model where activations are read and changed: the outputs of its decoder layers.

This is the one place that talks to nnsight. Opening a trace at every forward pass costs 0.4 to 1 ms: the
block is found in its source and skipped with a trace function, and every module of the tree hands its input
and output over. Here the block is recorded once, as an nnsight *edit*, and replayed by `Envoy.interleave`;
and envoys exist for the decoder layers alone, so that no other module hands anything over. What is left is
one greenlet switch a layer (bench/steering.py measures it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nnsight.intervention.envoy import Envoy
from nnsight.intervention.interleaver import EarlyStopException, OutOfOrderError
from torch import Tensor, nn

from windowshift.core.contract.errors import BackendError
from windowshift.steering.architecture import Decoder, find_decoder

Visit = Callable[[int, Tensor], Tensor | None]
"""Given a layer and its residual stream [rows, tokens, width]: what takes its place, or None to leave it."""


class LayerPoints:
    """The decoder layers of one model, open to visits.

    One instance serves any number of forward passes, with gradients or without. It is no safer for two
    threads at once than the model is.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.decoder: Decoder = find_decoder(model)
        self._root: Any = _Point(nn.Module())
        self._points: dict[int, Any] = {}
        self._layers: list[int] = []
        self._visit: Visit = lambda _layer, _hidden: None
        self._stop = False
        _record(self._root, self)

    def run(
        self, layers: Sequence[int], visit: Visit, inputs: dict[str, Any], *, stop: bool = False, call: Any = None
    ) -> Any:
        """Run the model on `inputs`, visiting the outputs of `layers`, and return what it gives out.

        With `stop`, the pass ends behind the last of the layers, and None is returned. `call` stands in for
        the model where a wrapper of it is to be called.

        Raises:
            BackendError: there is no such layer, or the pass did not come by it.
        """
        model = self.model if call is None else call
        order = sorted(set(layers))
        for layer in order:
            if not 0 <= layer < len(self.decoder.layers):
                raise BackendError(f"'{self.decoder.name}' has no layer {layer}, only {len(self.decoder.layers)}")
            if layer not in self._points:
                module = self.decoder.layers[layer]
                self._points[layer] = _Point(
                    module, path=f"layer{layer}", interleaver=self._root.interleaver, parent=self._root
                )
        if any(getattr(layer, "gradient_checkpointing", False) and layer.training for layer in self.decoder.layers):
            # The layers run again in the backward pass, where no edit is replayed.
            raise BackendError("steering does not work with gradient checkpointing: switch it off")
        before = (self._layers, self._visit, self._stop)
        self._layers, self._visit, self._stop = order, visit, stop
        try:
            return self._root.interleave(model, **inputs)
        except OutOfOrderError as error:
            raise BackendError(
                f"the steering hook did not fire: a pass through '{self.decoder.name}' did not come by one of "
                f"the layers {order} in their order"
            ) from error
        finally:
            self._layers, self._visit, self._stop = before

    def replay(self) -> None:
        """Visit the layers of the pass in progress; nnsight calls this in step with the model."""
        for layer in self._layers:
            point = self._points[layer]
            output = point.output
            changed = self._visit(layer, self.decoder.hidden(output))
            if changed is not None:
                point.output = self.decoder.replaced(output, changed)
        if self._stop:
            raise EarlyStopException


class _Point(Envoy):  # type: ignore[misc]  # nnsight is untyped here
    """An envoy without children: its module's parts hand nothing over, which is most of a trace's cost."""

    def _add_envoy(self, name: str, module: nn.Module) -> None:
        """Leave the parts of the module alone."""


def _record(root: Any, points: LayerPoints) -> None:
    """Store the block that every later pass replays; `points` is looked up when it runs."""
    with root.edit(inplace=True):
        points.replay()
