"""Batched window attention for Qwen-VL vision towers, through transformers' attention interface.

Without flash-attention, transformers splits the packed patches of all images by ``cu_seqlens`` and
calls attention once per window of every image: hundreds of tiny kernels a layer. Windows of equal
length can share one call instead. The values are the same; only the batching differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from vlmreward.models._transformers_private import (
    PACKED_ATTENTION,
    attention_of,
    register_packed_attention,
    set_attention,
)
from vlmreward.utils.autograd_context import Context

__all__ = ["native_attention", "use_batched_windows", "window_attention"]

_SHORT = 64
_SHORT_HALF = 256
"""Windows up to this length go through plain products on CPU where a gradient is wanted: there the
fused kernel's backward is the slowest part of a vision tower, in half precision above all."""


@dataclass(frozen=True)
class _Plan:
    """Windows grouped by length.

    Attributes:
        groups: (length, number) of the windows of each group, in the order of the groups.
        order: index that puts windows of a length next to each other; None where they are.
        inverse: index that undoes it.
    """

    groups: tuple[tuple[int, int], ...]
    order: Tensor | None
    inverse: Tensor | None


def _plan(cu_seqlens: Tensor) -> _Plan:
    """Reading lengths waits for the device, so the plan stays with the tensor it is made from."""
    plan = getattr(cu_seqlens, "_window_plan", None)
    if plan is None:
        by_length: dict[int, list[int]] = {}
        for start, stop in pairwise(cu_seqlens.tolist()):
            by_length.setdefault(stop - start, []).append(start)
        by_length.pop(0, None)
        groups = tuple((n, len(starts)) for n, starts in by_length.items())
        if len(groups) == 1:
            plan = _Plan(groups, None, None)
        else:
            order = torch.cat(
                [
                    (torch.tensor(starts)[:, None] + torch.arange(n)).flatten()
                    for n, starts in by_length.items()
                ]
            )
            device = cu_seqlens.device
            plan = _Plan(groups, order.to(device), order.argsort().to(device))
        cu_seqlens._window_plan = plan  # type: ignore[attr-defined]
    return plan


class _Permuted(torch.autograd.Function):
    """Rows in another order; its backward pass is the inverse order and not a slow addition."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        return rows[order]

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        _, order, inverse = inputs
        ctx.save_for_backward(order, inverse)
        ctx.save_for_forward(order, inverse)

    @staticmethod
    def jvp(ctx: Context, tangent: Tensor, *_: object) -> Tensor:
        order, inverse = ctx.saved_tensors
        return _Permuted.apply(tangent, order, inverse)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return _Permuted.apply(grad, inverse, order), None, None


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Attention over (windows, heads, n, dim), by whichever kernel is faster."""
    short = _SHORT_HALF if query.element_size() == 2 else _SHORT
    plain = query.device.type == "cpu" and torch.is_grad_enabled() and query.shape[-2] <= short
    if not plain:
        return F.scaled_dot_product_attention(query, key, value, scale=scaling)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query * scale) @ key.transpose(-1, -2)
    wanted = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(-1, dtype=wanted).to(value.dtype) @ value


def window_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention inside each segment of a packed sequence, one call per distinct segment length.

    Args:
        module: the attention layer; unused.
        query: (1, heads, S, dim), differentiable.
        key: (1, heads, S, dim), differentiable.
        value: (1, heads, S, dim), differentiable.
        attention_mask: must be None: segments are what masks here.
        scaling: factor of the scores; ``dim ** -0.5`` by default.
        cu_seq_lens_q: (segments + 1,) integer boundaries of the segments, 0 first and S last.

    Returns:
        (1, S, heads, dim) and None in place of the attention weights.
    """
    if attention_mask is not None or cu_seq_lens_q is None:
        raise ValueError(
            "window attention expects segment boundaries (cu_seq_lens_q) and no attention_mask; "
            "use it for vision towers only"
        )
    plan = _plan(cu_seq_lens_q)
    # (S, heads, dim): positions first, so that a window is a slice of rows
    rows = [x[0].transpose(0, 1) for x in (query, key, value)]
    if plan.order is not None:
        rows = [_Permuted.apply(x, plan.order, plan.inverse) for x in rows]
    parts = []
    for (n, number), *qkv in zip(plan.groups, *[_split(x, plan.groups) for x in rows]):
        q, k, v = (x.unflatten(0, (number, n)).transpose(1, 2) for x in qkv)
        parts.append(_attend(q, k, v, scaling).transpose(1, 2).flatten(0, 1))
    if plan.order is None:
        return parts[0][None], None
    return _Permuted.apply(torch.cat(parts), plan.inverse, plan.order)[None], None


def _split(rows: Tensor, groups: tuple[tuple[int, int], ...]) -> tuple[Tensor, ...]:
    return rows.split([n * number for n, number in groups])


def use_batched_windows(model: PreTrainedModel) -> bool:
    """Switch the vision tower of a loaded Qwen-VL model to ``window_attention``.

    Only towers that pack images by ``cu_seqlens`` (Qwen2-VL, Qwen2.5-VL, Qwen3-VL) are changed,
    and only where no flash-attention is configured.

    Args:
        model: any transformers model; changed in place, its weights are not touched.

    Returns:
        Whether the model was changed.
    """
    vision = next(
        (
            m
            for m in model.modules()
            if isinstance(m, PreTrainedModel)
            and type(m).__name__.startswith("Qwen")
            and hasattr(m, "patch_embed")
            and hasattr(m, "merger")
        ),
        None,
    )
    if vision is None or "flash" in str(attention_of(vision.config)):
        return False
    register_packed_attention(window_attention)
    set_attention(vision.config, PACKED_ATTENTION)
    return True


@contextmanager
def native_attention(model: PreTrainedModel) -> Iterator[None]:
    """Context in which the vision tower uses transformers' own attention, for comparisons."""
    configs = {
        id(m.config): m.config
        for m in model.modules()
        if isinstance(m, PreTrainedModel) and attention_of(m.config) == PACKED_ATTENTION
    }
    for config in configs.values():
        set_attention(config, "sdpa")
    try:
        yield
    finally:
        for config in configs.values():
            set_attention(config, PACKED_ATTENTION)
