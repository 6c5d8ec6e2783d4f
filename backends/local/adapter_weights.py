"""The weights of one adapter while it is trained: one flat tensor, of which PEFT's matrices are views."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from windowshift.backends.local.adapters import Adapters
from windowshift.core.contract.training import Sft

_ALIGNED = 16
"""Numbers (64 bytes): products may round otherwise where a matrix begins elsewhere."""


@dataclass(frozen=True, slots=True)
class Matrices:
    """Of one layer: `down` [rank, in] and `up` [out, rank], also transposed, their gradients' places, and the scale.

    `down_at` and `up_at` are where they begin in the tensor of all.
    """

    down: Tensor
    up: Tensor
    down_gradient: Tensor
    up_gradient: Tensor
    scale: float
    down_t: Tensor
    up_t: Tensor
    down_at: int
    up_at: int


class AdapterWeights:
    """A fresh adapter in training, attached to the model under `name`.

    One tensor of weights and one of gradients make clipping and the optimizer one operation each, however many
    layers there are. What PEFT holds are views of it, so that saving takes the weights as they are.

    Attributes:
        name: the adapter's, in `Adapters`.
        flat: all of its weights [numbers], with their gradient.
        layers: the matrices by the path of their layer.
        layout: where they lie in `flat`, and their ranks; equal ones can be stacked as they are.

    Raises:
        BackendError: the model has no layers that an adapter could be attached to, or PEFT refuses them.
    """

    def __init__(self, adapters: Adapters, sft: Sft, seed: int) -> None:
        self.name, parameters = adapters.create(sft, seed)
        starts: dict[str, int] = {}
        size = 0
        for key, parameter in parameters.items():
            starts[key] = size
            size += -(-parameter.numel() // _ALIGNED) * _ALIGNED
        first = next(iter(parameters.values()))
        self.flat = nn.Parameter(torch.zeros(size, dtype=first.dtype, device=first.device))
        gradient = torch.zeros_like(self.flat)
        self.flat.grad = gradient
        self._parameters = parameters
        places: dict[int, Tensor] = {}
        for key, parameter in parameters.items():
            part = slice(starts[key], starts[key] + parameter.numel())
            view = self.flat.detach()[part].view(parameter.shape)
            view.copy_(parameter.detach())
            parameter.requires_grad_(False)
            parameter.data = view
            places[id(parameter)] = gradient[part].view(parameter.shape)
        at = {id(parameter): starts[key] for key, parameter in parameters.items()}
        self.layers = {
            path: Matrices(
                down.data, up.data, places[id(down)], places[id(up)], scale, down.data.t(), up.data.t(),
                at[id(down)], at[id(up)],
            )
            for path, down, up, scale in adapters.matrices(self.name)
        }  # fmt: skip
        self.layout = tuple((path, each.down_at, each.up_at, each.down.shape[0]) for path, each in self.layers.items())

    @property
    def bytes_in_training(self) -> int:
        """What it takes: weights, gradients and AdamW's two moments."""
        return 4 * self.flat.numel() * self.flat.element_size()

    def forget_gradients(self) -> None:
        """Set the gradients to 0: layers add to them."""
        if self.flat.grad is not None:
            self.flat.grad.zero_()

    def state(self) -> dict[str, Tensor]:
        """The matrices by a name that does not depend on what else is attached."""
        return {key.replace(self.name, "adapter"): value.detach() for key, value in self._parameters.items()}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Take the matrices of `state`.

        Raises:
            KeyError, RuntimeError: they are not this adapter's.
        """
        for key, value in self._parameters.items():
            value.copy_(state[key.replace(self.name, "adapter")])
