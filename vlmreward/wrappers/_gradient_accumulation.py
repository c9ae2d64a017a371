"""A differentiable sum of terms that keeps the graph of one term in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from vlmreward.images.batch import ImageBatch
from vlmreward.images.layout import ImageBatchSpec, to_compute_dtype
from vlmreward.rewards.protocol import require_graph
from vlmreward.utils.autograd_context import Context

__all__ = ["Term", "accumulate_gradients"]

Term = Callable[[ImageBatch], torch.Tensor]
"""A batch of images -> values ``(B,)``; a query's value depends on its own images alone."""


def _value_and_gradients(
    term: Term, batch: ImageBatch, tensors: Sequence[torch.Tensor], needed: Sequence[int]
) -> tuple[torch.Tensor, Sequence[torch.Tensor | None]]:
    """Values ``(B,)`` and the gradients of their sum; the graph is freed."""
    inputs = [tensor.detach() for tensor in tensors]
    for i in needed:
        inputs[i] = inputs[i].requires_grad_()
    with torch.enable_grad():
        values = term(batch.with_tensors(inputs, same_values=True))
    require_graph(values)
    ones = torch.ones_like(values)
    gradients = torch.autograd.grad(values, [inputs[i] for i in needed], ones, allow_unused=True)
    return values.detach(), gradients


class _GradientAccumulation(torch.autograd.Function):
    """Sum of terms whose gradients are computed term by term, with one graph in memory at a time.

    A query's value depends on its own images alone, so that the gradient of the sum over the
    queries holds each query's gradient, to be multiplied later by what comes from behind.
    """

    @staticmethod
    def forward(
        ctx: Context,
        terms: Sequence[Term],
        batch: ImageBatch,
        double_backward_error: str,
        *tensors: torch.Tensor,
    ) -> torch.Tensor:
        needed = [i for i, need in enumerate(ctx.needs_input_grad[3:]) if need]
        total: torch.Tensor | None = None
        sums = [torch.zeros_like(to_compute_dtype(tensor)) for tensor in tensors]
        for term in terms:
            values, gradients = _value_and_gradients(term, batch, tensors, needed)
            for i, gradient in zip(needed, gradients):
                if gradient is not None:
                    sums[i] += gradient
            total = values if total is None else total + values
        ctx.spec, ctx.double_backward_error = batch.spec, double_backward_error
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        ctx.save_for_backward(*sums)
        assert total is not None
        return total

    @staticmethod
    def backward(ctx: Context, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():  # with create_graph, where silence would mean zeros
            raise RuntimeError(ctx.double_backward_error)
        spec: ImageBatchSpec = ctx.spec
        scaled = spec.scaled(ctx.saved_tensors, grad)
        return (None, None, None, *(g.to(dtype) for g, dtype in zip(scaled, ctx.dtypes)))


def accumulate_gradients(
    terms: Sequence[Term], batch: ImageBatch, double_backward_error: str
) -> torch.Tensor:
    """Sum of the terms, with the graph of only one term in memory at a time.

    The gradients of several terms are computed during the call and can be used in one backward
    pass; a single term keeps its ordinary graph.

    Args:
        terms: functions from the batch to ``(B,)``.
        batch: the images.
        double_backward_error: message of the error for derivatives of the gradient.

    Returns:
        ``(B,)``, differentiable to the images.

    Raises:
        RuntimeError: a term is not differentiable, or with ``double_backward_error`` in a backward
            pass under ``create_graph=True``.
    """
    if len(terms) == 1:
        return terms[0](batch)
    if torch.is_grad_enabled() and batch.requires_grad:
        return _GradientAccumulation.apply(terms, batch, double_backward_error, *batch.tensors)
    return torch.stack([term(batch) for term in terms]).sum(dim=0)
