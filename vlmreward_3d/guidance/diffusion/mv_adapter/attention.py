"""Attention across the views of a group, row by row, beside a UNet's own self-attention."""

from __future__ import annotations

import math
from typing import Any

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DecoupledAttention", "RowAttention"]


class RowAttention(nn.Module):
    """Attention of each token to the same row of the picture in all views of its group.

    Cameras at elevation 0 see a point in the same row of every view. Attribute names are those of
    MV-Adapter's state dicts.

    Args:
        width: Channels of the hidden states.
        inner: Channels of queries, keys and values.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.to_q_mv = nn.Linear(width, inner, bias=False)
        self.to_k_mv = nn.Linear(width, inner, bias=False)
        self.to_v_mv = nn.Linear(width, inner, bias=False)
        self.to_out_mv = nn.Sequential(nn.Linear(inner, width))

    def forward(self, hidden: Tensor, *, heads: int, n_views: int) -> Tensor:
        """Attend across views.

        Args:
            hidden: (G * n_views, side^2, width), group by group; rows of square pictures.
            heads: Number of attention heads.
            n_views: Views in a group.

        Returns:
            (G * n_views, side^2, width), differentiable.

        Raises:
            ValueError: There are no whole groups, or no squares.
        """
        n, length, _ = hidden.shape
        side = math.isqrt(length)
        if n % n_views or side * side != length:
            raise ValueError(
                f"received {n} pictures of {length} tokens; expected a multiple of {n_views} "
                "square ones: pass whole groups, view after view"
            )

        def in_rows(x: Tensor) -> Tensor:
            x = x.unflatten(1, (side, side)).unflatten(0, (-1, n_views))  # (G, view, row, column)
            x = x.transpose(1, 2).flatten(0, 1).flatten(1, 2)  # (G * row, view * column, inner)
            return x.unflatten(-1, (heads, -1)).transpose(1, 2)

        q, k, v = (in_rows(f(hidden)) for f in (self.to_q_mv, self.to_k_mv, self.to_v_mv))
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        seen = seen.unflatten(1, (n_views, side)).unflatten(0, (-1, side)).transpose(1, 2)
        return self.to_out_mv(seen.flatten(0, 1).flatten(1, 2))


class DecoupledAttention:
    """An attention processor: the UNet's own self-attention, plus a `RowAttention` of its input.

    Args:
        rows: The attention across views, which it shares with its copies and does not own.
        n_views: Views in a group.
    """

    def __init__(self, rows: RowAttention, n_views: int) -> None:
        self.rows, self.n_views = rows, n_views
        self.inner = AttnProcessor2_0()

    def __deepcopy__(self, memo: dict[int, Any]) -> DecoupledAttention:
        return DecoupledAttention(self.rows, self.n_views)

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: object,
    ) -> Tensor:
        """The sum of both, for hidden states (N, side^2, width) of whole groups."""
        own = self.inner(attn, hidden_states, None, attention_mask, **kwargs)
        return own + self.rows(hidden_states, heads=attn.heads, n_views=self.n_views)
