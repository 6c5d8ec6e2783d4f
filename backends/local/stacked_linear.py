"""Linear layers of a base model in a pass over rows of several adapters: the base product, and each row's own LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from windowshift.backends.local.batched_linear import Batched
from windowshift.backends.local.pass_plan import PackedSite, PassPlan, Site
from windowshift.backends.local.row_adapters import replaced
from windowshift.core.contract.errors import BackendError


class StackedLinears:
    """The linear layers of a model, able to compute for several adapters at once.

    With `alike`, on a CPU, each job's products are computed in the shape that they have when the job is alone, so that
    they round alike whatever shares the pass; all that is shared is what goes token by token. Elsewhere one product
    serves all rows, and the adapters' are batched.
    """

    def __init__(self, model: nn.Module, *, alike: bool) -> None:
        self._model, self._alike = model, alike
        self._sites = list(self._found())

    @contextmanager
    def serving(self, plan: PassPlan) -> Iterator[None]:
        """Within this block the model's linear layers compute for the jobs of `plan`."""
        anchor = torch.zeros((), requires_grad=torch.is_grad_enabled())
        calls: list[tuple[nn.Module, Any]] = []
        for module, site in self._sites:
            if isinstance(site, PackedSite):
                calls.append((module, partial(_call_packed, site, plan, anchor)))
            else:
                calls.append((module, partial(_call, _Alike if self._alike else Batched, site, plan, anchor)))
        with replaced(calls):
            yield

    def _found(self) -> Iterator[tuple[nn.Module, Site | PackedSite]]:
        inside: set[int] = set()
        for path, module in self._model.named_modules():
            if id(module) in inside:
                continue
            base: Any = module
            if isinstance(module, LoraLayer):
                inside.update(id(each) for each in module.modules())
                base = module.get_base_layer()
            if base is not module and _packed(base):
                yield module, PackedSite(path, base.out_features, base)
            elif type(base) is nn.Linear or (base is not module and _dense(base)):
                yield module, Site(path, base.weight.t(), base.weight, base.bias)
            elif type(base).__name__ == "Conv1D":
                yield module, Site(path, base.weight, base.weight.t(), base.bias)
            elif base is not module:
                raise BackendError(f"adapters of {path}, a {type(base).__name__}, cannot be trained")


def _packed(base: Any) -> bool:
    """Whether a linear layer's weight is not a plain tensor of floating point numbers: bitsandbytes, torchao."""
    weight = getattr(base, "weight", None)
    return isinstance(base, nn.Linear) and (
        not isinstance(weight, Tensor) or type(weight) not in (nn.Parameter, Tensor) or not weight.is_floating_point()
    )


def _dense(base: Any) -> bool:
    """Whether a subclass of a linear layer keeps its weight as it is."""
    return isinstance(base, nn.Linear) and base.weight.shape == (base.out_features, base.in_features)


def _call(function: Any, site: Site, plan: PassPlan, anchor: Tensor, x: Tensor, *_: Any, **__: Any) -> Tensor:
    x = x.to(site.right.device)  # where the layers of a model lie on several devices
    plan.check(site.path, x)
    found: Tensor = function.apply(x, anchor, site, plan)
    return found


def _call_packed(site: PackedSite, plan: PassPlan, anchor: Tensor, x: Tensor, *_: Any, **__: Any) -> Tensor:
    plan.check(site.path, x)
    out = site.base(x)
    more: Tensor = Batched.apply(x.to(out.device), anchor, site, plan)  # type: ignore[no-untyped-call]  # torch's
    return out + more


class _Alike(torch.autograd.Function):
    """Job by job, in the shapes of each job alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, _anchor: Tensor, site: Site, plan: PassPlan) -> Tensor:
        shift = plan.shift(x)
        owns = plan.parts(x, shift)
        out = plan.room(x, site.right.shape[1], shift)
        lows: list[Tensor | None] = []
        for span, own, result in zip(plan.spans, owns, out.parts, strict=True):
            if site.bias is None:
                torch.mm(own, site.right, out=result)
            else:
                torch.addmm(site.bias, own, site.right, out=result)
            matrices, low = span.matrices(site.path), None
            if matrices is not None:
                low = own.to(matrices.down.dtype) @ matrices.down_t
                _add(result, low, matrices.up_t, matrices.scale)
            lows.append(low)
        ctx.save_for_backward(x)
        ctx.site, ctx.plan, ctx.shift, ctx.lows = site, plan, shift, lows
        return out.whole()

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        site, plan, shift = ctx.site, ctx.plan, ctx.shift
        owns = plan.parts(x, shift)
        errors = plan.parts(upper, shift, keep=False)
        found = plan.room(x, x.shape[-1], shift) if ctx.needs_input_grad[0] else None
        for number, (span, low) in enumerate(zip(plan.spans, ctx.lows, strict=True)):
            error = errors[number]
            if found is not None:
                torch.mm(error, site.left, out=found.parts[number])
            matrices = span.matrices(site.path)
            if matrices is None:
                continue
            wide = error.to(low.dtype)
            # [rank, out] is much the faster way round.
            matrices.up_gradient.add_((low.t() @ wide).t(), alpha=matrices.scale)
            back = wide @ matrices.up
            matrices.down_gradient.addmm_(back.t(), owns[number].to(low.dtype), alpha=matrices.scale)
            if found is not None:
                _add(found.parts[number], back, matrices.down, matrices.scale)
        return (None if found is None else found.whole()), None, None, None


def _add(result: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
    """Add a product, which may be of a wider type."""
    if left.dtype == result.dtype:
        result.addmm_(left, right, alpha=scale)
    else:
        result += ((left @ right) * scale).to(result.dtype)
