"""Linear layers of a pass over rows of several adapters, on devices that are fast where products are large."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from windowshift.backends.local.pass_plan import PackedSite, PassPlan, Site


class Batched(torch.autograd.Function):
    """One product of the base for all rows, and batched products for all adapters, ranks padded with zeros.

    Of a layer whose weight is packed, the part of the adapters alone.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, _anchor: Tensor, site: Site | PackedSite, plan: PassPlan) -> Tensor:
        """Multiply `x` [rows, columns, in], the layer's inputs."""
        rows = x if len(plan.spans) > 1 else x.reshape(1, -1, x.shape[-1])
        # What is given out must be no view of another tensor: some models change it in place.
        if isinstance(site, Site):
            out = x.new_empty(*x.shape[:-1], site.right.shape[1])
            every = out.view(*rows.shape[:-1], -1)
            torch.matmul(rows, site.right, out=every)
            if site.bias is not None:
                every += site.bias
        else:
            out = x.new_zeros(*x.shape[:-1], site.features)
            every = out.view(*rows.shape[:-1], -1)
        low = downs = ups = None
        stacks = plan.stacks(site.path, x)
        if stacks is not None:
            downs, ups = stacks
            low = torch.bmm(_by_job(rows, plan), _matrices(downs, plan).transpose(1, 2))
            low = low * _each(plan.scales(site.path, x), plan, x)
            every += torch.bmm(low, _matrices(ups, plan).transpose(1, 2)).view(every.shape)
        ctx.save_for_backward(rows, low, downs, ups)
        ctx.site, ctx.plan, ctx.shape = site, plan, x.shape
        return out

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, ...]:
        """Add the adapters' gradients to theirs, and return those of `x`."""
        rows, low, downs, ups = ctx.saved_tensors
        site, plan, wanted = ctx.site, ctx.plan, ctx.needs_input_grad[0]
        error = upper.reshape(*rows.shape[:-1], -1)
        found: Tensor | None = None
        if wanted:
            found = error @ site.left if isinstance(site, Site) else torch.zeros_like(rows)
        if low is not None:
            stacked = _by_job(error, plan)
            back = torch.bmm(stacked, _matrices(ups, plan)) * _each(plan.scales(site.path, rows), plan, rows)
            up_gradients = _of_jobs(torch.bmm(stacked.transpose(1, 2), low), plan)
            down_gradients = _of_jobs(torch.bmm(back.transpose(1, 2), _by_job(rows, plan)), plan)
            places: list[Tensor] = []
            parts: list[Tensor] = []
            own = [span.matrices(site.path) for span in plan.spans]
            first = next(each for each in own if each is not None)
            ups_there = up_gradients.to(first.up.device, first.up.dtype)
            downs_there = down_gradients.to(first.down.device, first.down.dtype)
            for number, each in enumerate(own):
                if each is not None:
                    rank = each.down.shape[0]
                    places += [each.down_gradient, each.up_gradient]
                    parts += [downs_there[number, :rank], ups_there[number, :, :rank]]
            torch._foreach_add_(places, parts)
            if found is not None:
                found = found + torch.bmm(back, _matrices(downs, plan)).view(found.shape)
        return (None if found is None else found.view(ctx.shape)), None, None, None


def _by_job(rows: Tensor, plan: PassPlan) -> Tensor:
    """[jobs, tokens, features] where every job has as many rows, else [rows, tokens, features]."""
    return rows.reshape(len(plan.spans), -1, rows.shape[-1]) if plan.even else rows


def _matrices(stack: Tensor, plan: PassPlan) -> Tensor:
    """The matrix of each job, or of each row."""
    return stack if plan.even else stack[plan.jobs(stack.device)]


def _each(scales: Tensor | float, plan: PassPlan, x: Tensor) -> Tensor | float:
    """The factors of each job, or of each row."""
    return scales if plan.even or not isinstance(scales, Tensor) else scales[plan.jobs(x.device)]


def _of_jobs(gradients: Tensor, plan: PassPlan) -> Tensor:
    """Gradients of each row, added up by job."""
    if plan.even:
        return gradients
    found = gradients.new_zeros(len(plan.spans), *gradients.shape[1:])
    return found.index_add_(0, plan.jobs(gradients.device), gradients)
