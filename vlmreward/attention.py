"""Batched window attention for Qwen-VL vision towers, through transformers' attention interface.

Without flash-attention, transformers splits the packed patches of all images by ``cu_seqlens`` and
calls attention once per window of every image: hundreds of tiny kernels a layer. Windows of equal
length can share one call instead. The values are the same; only the batching differs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

__all__ = ["use_batched_windows", "window_attention"]

# transformers hands ``cu_seqlens`` to an implementation only where its name says "flash".
_NAME = "windows_not_flash"
_SHORT = 256
"""Windows up to this length go through plain products on CPU, in half precision and where a
gradient is wanted: there the fused kernel's backward is the slowest part of a vision tower."""


def _plan(cu_seqlens: Tensor) -> list[tuple[int, Tensor | None]]:
    """Windows grouped by length: (length, index of their positions), index None for all in order.

    Reading the lengths waits for the device, so the plan stays with the tensor it was made from.
    """
    plan = getattr(cu_seqlens, "_window_plan", None)
    if plan is None:
        bounds = cu_seqlens.tolist()
        by_length: dict[int, list[int]] = {}
        for start, stop in pairwise(bounds):
            by_length.setdefault(stop - start, []).append(start)
        by_length.pop(0, None)
        if len(by_length) == 1:
            plan = [(next(iter(by_length)), None)]
        else:
            plan = [
                (n, (torch.tensor(s)[:, None] + torch.arange(n)).to(cu_seqlens.device))
                for n, s in by_length.items()
            ]
        cu_seqlens._window_plan = plan  # type: ignore[attr-defined]
    return plan


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Attention over (windows, heads, n, dim), by whichever kernel is faster."""
    half = query.device.type == "cpu" and query.dtype in (torch.bfloat16, torch.float16)
    if not (half and torch.is_grad_enabled() and query.shape[-2] <= _SHORT):
        return F.scaled_dot_product_attention(query, key, value, scale=scaling)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query * scale) @ key.transpose(-1, -2)
    return scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value


def window_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention inside each segment of a packed sequence, one call per distinct segment length.

    Args:
        module: the attention layer; unused.
        query: (1, heads, S, dim), as are ``key`` and ``value``. Differentiable.
        key: see ``query``.
        value: see ``query``.
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
    heads, length, dim = query.shape[1:]
    # (3, S, heads, dim): positions first, so that a segment is a slice of rows
    packed = torch.stack((query[0], key[0], value[0])).transpose(1, 2)
    out = torch.empty_like(packed[0])
    for n, index in _plan(cu_seq_lens_q):
        rows = packed.reshape(3, -1, n, heads, dim) if index is None else packed[:, index]
        q, k, v = rows.transpose(2, 3).unbind(0)
        attended = _attend(q, k, v, scaling).transpose(1, 2)
        if index is None:
            return attended.reshape(1, length, heads, dim), None
        out = out.index_put((index,), attended)
    return out[None], None


def use_batched_windows(model: PreTrainedModel) -> bool:
    """Switch the vision tower of a loaded Qwen-VL model to :func:`window_attention`.

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
    if vision is None or "flash" in str(vision.config._attn_implementation):
        return False
    AttentionInterface.register(_NAME, window_attention)
    vision.config._attn_implementation = _NAME
    return True
