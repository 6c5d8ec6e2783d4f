"""Linear layers of a base model in a pass over rows of several adapters: the base product, and each row's own LoRA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from windowshift.backends.local.adapter_weights import AdapterWeights, Matrices
from windowshift.core.contract.errors import BackendError


@dataclass(frozen=True, slots=True)
class Span:
    """The place of one job in a pass: its rows, and the columns that it would have alone.

    Attributes:
        first: its first row.
        rows: how many it has.
        width: the columns of its rows; what is right of them is padding for the sake of other jobs.
        learned_from: the first column with a loss.
        adapter: None trains nothing: the base model's rows.
    """

    first: int
    rows: int
    width: int
    learned_from: int
    adapter: AdapterWeights | None

    def take(self, every: Tensor, shift: int) -> Tensor:
        """Its part of a tensor [rows, columns, features] that lacks the first `shift` columns: a view."""
        return every[self.first : self.first + self.rows, self._start(shift) : self.width - shift]

    def _start(self, shift: int) -> int:
        """Where the columns were cut, a job alone would have been cut at its own first loss."""
        return self.learned_from - shift if shift else 0


@dataclass(frozen=True, slots=True)
class Site:
    """A linear layer: its path, and its frozen weight as [in, out] and as [out, in]."""

    path: str
    right: Tensor
    left: Tensor
    bias: Tensor | None


class StackedLinears:
    """The linear layers of a model, able to compute for several adapters at once.

    On a CPU each job's products are computed in the shape that they have when the job is alone, so that they round
    alike whatever shares the pass; all that is shared is what goes token by token. Elsewhere one product serves all
    rows, and the adapters' are batched.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    @contextmanager
    def serving(self, spans: Sequence[Span], width: int) -> Iterator[None]:
        """Within this block the model's linear layers compute for the jobs of `spans`, in rows of `width` columns."""
        anchor = torch.zeros((), requires_grad=torch.is_grad_enabled())
        exact = next(self._model.parameters()).device.type == "cpu"
        plan = _Plan(spans, width)
        patched: list[nn.Module] = []
        try:
            for module, site in self._sites():
                function = _Alike if exact else _Batched
                # An attribute of the instance comes before the class's method.
                module.forward = partial(_call, function, site, plan, anchor)
                patched.append(module)
            yield
        finally:
            for module in patched:
                del module.forward

    def _sites(self) -> Iterator[tuple[nn.Module, Site]]:
        inside: set[int] = set()
        for path, module in self._model.named_modules():
            if id(module) in inside:
                continue
            base: Any = module
            if isinstance(module, LoraLayer):
                inside.update(id(each) for each in module.modules())
                base = module.get_base_layer()
            if type(base) is nn.Linear or (base is not module and _dense(base)):
                yield module, Site(path, base.weight.t(), base.weight, base.bias)
            elif type(base).__name__ == "Conv1D":
                yield module, Site(path, base.weight, base.weight.t(), base.bias)
            elif base is not module:
                raise BackendError(f"adapters of {path}, a {type(base).__name__}, cannot be trained")


def _dense(base: Any) -> bool:
    """Whether a subclass of a linear layer keeps its weight as it is: a quantised one packs it."""
    return isinstance(base, nn.Linear) and base.weight.shape == (base.out_features, base.in_features)


def _call(function: Any, site: Site, plan: _Plan, anchor: Tensor, x: Tensor, *_: Any, **__: Any) -> Tensor:
    last = plan.spans[-1]
    if len(plan.spans) > 1 and (x.dim() != 3 or x.shape[0] != last.first + last.rows or x.shape[1] > plan.width):
        raise BackendError(f"{site.path} gets {tuple(x.shape)} where rows of tokens are needed")
    found: Tensor = function.apply(x, anchor, site, plan)
    return found


def _own(span: Span, site: Site) -> Matrices | None:
    return None if span.adapter is None else span.adapter.layers.get(site.path)


class _Alike(torch.autograd.Function):
    """Job by job, in the shapes of each job alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, _anchor: Tensor, site: Site, plan: _Plan) -> Tensor:
        shift = plan.shift(x)
        owns = plan.parts(x, shift)
        out = plan.room(x, site.right.shape[1], shift)
        lows: list[Tensor | None] = []
        for span, own, result in zip(plan.spans, owns, out.parts, strict=True):
            if site.bias is None:
                torch.mm(own, site.right, out=result)
            else:
                torch.addmm(site.bias, own, site.right, out=result)
            matrices, low = _own(span, site), None
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
            matrices = _own(span, site)
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


@dataclass(slots=True)
class _Room:
    """A place for what each job gives out, and where it goes in the tensor of all: None where it is there already."""

    every: Tensor
    parts: Sequence[Tensor]
    places: Sequence[Tensor] | None

    def whole(self) -> Tensor:
        """The tensor of all: never a view of another one, which the model might not change in place."""
        if self.places is not None:
            for place, part in zip(self.places, self.parts, strict=True):
                place.copy_(part.view(place.shape))
        return self.every


class _Plan:
    """How the rows of one pass are dealt out to its jobs."""

    def __init__(self, spans: Sequence[Span], width: int) -> None:
        self.spans, self.width = tuple(spans), width
        self._even = all(span.width == width for span in spans)
        self._last: tuple[Tensor, int, Sequence[Tensor]] | None = None

    def shift(self, x: Tensor) -> int:
        """How many columns at the beginning a tensor [rows, columns, features] lacks."""
        return 0 if len(self.spans) == 1 else self.width - x.shape[1]

    def parts(self, x: Tensor, shift: int, *, keep: bool = True) -> Sequence[Tensor]:
        """Each job's numbers [tokens, features]; several layers in a row ask for those of the same tensor."""
        if self._last is not None and self._last[0] is x and self._last[1] == x._version:
            return self._last[2]
        if self._whole(shift):
            found: Sequence[Tensor] = torch.split(x.reshape(-1, x.shape[-1]), self._sizes(x))
        else:
            found = [span.take(x, shift).reshape(-1, x.shape[-1]) for span in self.spans]
        if keep and not x.is_inference():  # such a tensor does not know whether it was changed in place since
            self._last = (x, x._version, found)
        return found

    def room(self, x: Tensor, features: int, shift: int) -> _Room:
        """A place for `features` numbers a token of `x`; those of padding are 0."""
        if self._whole(shift):
            every = x.new_empty(*x.shape[:-1], features)
            return _Room(every, torch.split(every.view(-1, features), self._sizes(x)), None)
        every = x.new_zeros(*x.shape[:-1], features)
        places = [span.take(every, shift) for span in self.spans]
        return _Room(every, [x.new_empty(place.shape[0] * place.shape[1], features) for place in places], places)

    def _whole(self, shift: int) -> bool:
        """Whether no job has padding, nor a column that it would lack alone."""
        return len(self.spans) == 1 or (
            self._even and (not shift or all(span.learned_from == shift for span in self.spans))
        )

    def _sizes(self, x: Tensor) -> list[int]:
        rows = x.numel() // x.shape[-1]
        return [rows] if len(self.spans) == 1 else [span.rows * x.shape[1] for span in self.spans]


class _Batched(torch.autograd.Function):
    """One product of the base for all rows, and one batched product for all adapters, ranks padded with zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, _anchor: Tensor, site: Site, plan: _Plan) -> Tensor:
        spans = plan.spans
        rows = x if len(spans) > 1 else x.reshape(1, -1, x.shape[-1])
        # What is given out must be no view of another tensor: some models change it in place.
        out = x.new_empty(*x.shape[:-1], site.right.shape[1])
        every = out.view(*rows.shape[:-1], -1)
        torch.matmul(rows, site.right, out=every)
        if site.bias is not None:
            every += site.bias
        owns = [_own(span, site) for span in spans]
        known = [each for each in owns if each is not None]
        low = downs = ups = None
        if known:
            rank = -(-max(each.down.shape[0] for each in known) // 8) * 8
            downs = x.new_zeros(len(spans), rank, x.shape[-1])
            ups = x.new_zeros(len(spans), site.right.shape[1], rank)
            for place, each in enumerate(owns):
                if each is not None:
                    downs[place, : each.down.shape[0]] = each.down * each.scale
                    ups[place, :, : each.up.shape[1]] = each.up
            low = torch.bmm(_stacked(rows, spans), _of_rows(downs, spans, rows).transpose(1, 2))
            more = torch.bmm(low, _of_rows(ups, spans, rows).transpose(1, 2))
            every += more.view(every.shape)
        ctx.save_for_backward(rows, low, downs, ups)
        ctx.site, ctx.spans, ctx.owns, ctx.shape = site, spans, owns, x.shape
        return out

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, ...]:
        rows, low, downs, ups = ctx.saved_tensors
        spans, wanted = ctx.spans, ctx.needs_input_grad[0]
        error = upper.reshape(*rows.shape[:-1], -1)
        found = error @ ctx.site.left if wanted else None
        if low is not None:
            stacked = _stacked(error, spans)
            back = torch.bmm(stacked, _of_rows(ups, spans, rows))
            up_gradients = _of_jobs(torch.bmm(stacked.transpose(1, 2), low), spans)
            down_gradients = _of_jobs(torch.bmm(back.transpose(1, 2), _stacked(rows, spans)), spans)
            places: list[Tensor] = []
            parts: list[Tensor] = []
            for number, each in enumerate(ctx.owns):
                if each is not None:
                    rank = each.down.shape[0]
                    places += [each.down_gradient, each.up_gradient]
                    own = [down_gradients[number, :rank] * each.scale, up_gradients[number, :, :rank]]
                    parts += [part.to(each.down.dtype) for part in own]
            torch._foreach_add_(places, parts)
            if found is not None:
                found = found + torch.bmm(back, _of_rows(downs, spans, rows)).view(found.shape)
        return (None if found is None else found.view(ctx.shape)), None, None, None


def _even(spans: Sequence[Span]) -> bool:
    return len({span.rows for span in spans}) == 1


def _stacked(rows: Tensor, spans: Sequence[Span]) -> Tensor:
    """[jobs, tokens, features] where every job has as many rows, else [rows, tokens, features]."""
    return rows.reshape(len(spans), -1, rows.shape[-1]) if _even(spans) else rows


def _of_rows(matrices: Tensor, spans: Sequence[Span], rows: Tensor) -> Tensor:
    """The matrix of each job, or of each row."""
    if _even(spans):
        return matrices
    return matrices[_jobs(spans, rows.device)]


def _of_jobs(gradients: Tensor, spans: Sequence[Span]) -> Tensor:
    """Gradients of each row, added up by job."""
    if _even(spans):
        return gradients
    found = gradients.new_zeros(len(spans), *gradients.shape[1:])
    return found.index_add_(0, _jobs(spans, gradients.device), gradients)


def _jobs(spans: Sequence[Span], device: torch.device) -> Tensor:
    return torch.tensor([number for number, span in enumerate(spans) for _ in range(span.rows)], device=device)
