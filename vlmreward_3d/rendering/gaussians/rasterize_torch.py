"""Rasterization of projected Gaussians in pure torch, on any device, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreward_3d.rendering.gaussians.primitives import MOST_OPAQUE
from vlmreward_3d.rendering.gaussians.projection import CUTOFF, Projection

__all__ = ["draw"]


def draw(
    projection: Projection,
    opacity: Tensor,
    channels: Tensor,
    height: int,
    width: int,
    *,
    tile: int = 8,
    chunk: int = 2**18,
) -> tuple[Tensor, Tensor]:
    """Composite Gaussians front to back (Kerbl et al., 2023, Eq. 3), sorted by depth in each view.

    sum_i c_i a_i prod_{j<i} (1 - a_j), with a = o exp(-d^T Sigma'^-1 d / 2) at most 0.99, and 0
    below 1/255. A tile takes the Gaussians that reach the cutoff somewhere in it, so that the tile
    size affects only the time. Rays do not end at a low transmittance.

    Args:
        projection: N Gaussians in V views.
        opacity: (N,) in (0, 1).
        channels: (V, N, C) values to composite.
        height: Rows.
        width: Columns.
        tile: Side of the tiles in pixels.
        chunk: Pairs of a Gaussian and a pixel that are computed together; bounds the temporary
            memory.

    Returns:
        Sums (V, C, height, width) over black, and opacities (V, 1, height, width) in [0, 1];
        differentiable to centers, covariances, opacity and channels.
    """
    views, _, columns = channels.shape
    across, down = -(-width // tile), -(-height // tile)
    tables = _tables(projection, opacity, channels)
    pixel = torch.arange(tile).to(channels) + 0.5
    order, sums = [], []
    for bin_ in _bins(projection, across, down, tile, chunk):
        corner = bin_.corners.to(channels) * tile
        sums.append(
            _composite(
                F.embedding(bin_.members, tables),
                corner[:, :1] + pixel,
                corner[:, 1:] + pixel,
                columns,
            )
        )
        order.append(bin_.tiles)
    whole = channels.new_zeros(views * down * across, tile * tile, columns + 1)
    if order:
        whole = whole.index_copy(0, torch.cat(order), torch.cat(sums))
    image = whole.view(views, down, across, tile, tile, columns + 1)
    image = image.permute(0, 5, 1, 3, 2, 4).reshape(views, columns + 1, down * tile, across * tile)
    image = image[:, :, :height, :width]
    return image[:, :columns], image[:, columns:]


def _tables(projection: Projection, opacity: Tensor, channels: Tensor) -> Tensor:
    """(V * N + 1, 6 + C) values of each Gaussian that pixels need; the last row is invisible.

    The quadratic form is split by Cholesky's decomposition, dx^2 / xx + (dy - dx xy / xx)^2 /
    (det / xx), which has no differences of large terms for a long and thin Gaussian.
    """
    xx, xy, _ = projection.covariances.unbind(-1)
    # the logarithm of an opacity that is rounded to 0 has no finite gradient
    opacity = opacity.clamp_min(torch.finfo(opacity.dtype).tiny)
    columns = [
        projection.means,
        torch.stack([xx.rsqrt(), xy / xx, (xx / projection.determinants).sqrt()], dim=-1),
        opacity.log().expand_as(xx)[..., None],
        channels,
    ]
    rows = torch.cat(columns, dim=-1).flatten(0, 1)
    none = torch.zeros_like(rows[:1])
    none[:, 5] = -1e4
    return torch.cat([rows, none])


def _composite(rows: Tensor, x: Tensor, y: Tensor, columns: int) -> Tensor:
    """(T, S * S, C + 1) sums and opacities of tiles.

    Args:
        rows: (T, K, 6 + C) of the tiles' Gaussians, front to back.
        x: (T, S) centers of the tiles' columns, pixels.
        y: (T, S) centers of the tiles' rows.
        columns: C.
    """
    mean_x, mean_y, wide, lean, narrow, log_opacity = rows[..., :6, None].unbind(-2)
    dx = x[:, None] - mean_x
    dy = y[:, None] - mean_y
    first = log_opacity - 0.5 * (wide * dx).square()
    second = (narrow * dy)[..., None] - (narrow * lean * dx)[..., None, :]
    alpha = (first[..., None, :] - 0.5 * second.square()).exp()
    alpha = torch.where(alpha >= CUTOFF, alpha.clamp_max(MOST_OPAQUE), 0.0).flatten(2)
    passed = torch.log1p(-alpha)
    # exclusive, as a difference: one pass less than with a shifted copy
    before = (passed.cumsum(dim=1) - passed).exp()
    ones = torch.ones_like(rows[..., :1])
    values = torch.cat([rows[..., 6 : 6 + columns], ones], dim=-1)
    return (before * alpha).transpose(1, 2) @ values


@dataclass(frozen=True)
class _Bin:
    """Tiles that similar numbers of Gaussians reach.

    Attributes:
        tiles: (T,) indices of the tiles, view by view, row by row.
        corners: (T, 2) column and row of the tiles in their grid.
        members: (T, K) rows of the Gaussians, front to back, padded with the invisible row.
    """

    tiles: Tensor
    corners: Tensor
    members: Tensor


@torch.no_grad()
def _bins(projection: Projection, across: int, down: int, tile: int, chunk: int) -> Iterator[_Bin]:
    views, count = projection.depths.shape
    order = projection.depths.argsort(dim=1, stable=True)
    extents = projection.extents.gather(1, order[..., None].expand(-1, -1, 2))
    means = projection.means.detach().gather(1, order[..., None].expand(-1, -1, 2))
    low, high = means - extents, means + extents
    seen = extents[..., 0] >= 0

    def reached(axis: int, tiles: int) -> Tensor:
        """(V, tiles, N): whether a Gaussian's box meets a column or row of tiles."""
        edge = torch.arange(tiles).to(means)[:, None] * tile
        meets = (low[:, None, :, axis] <= edge + tile) & (high[:, None, :, axis] >= edge)
        return meets & seen[:, None]

    hit = (reached(1, down)[:, :, None] & reached(0, across)[:, None]).flatten(0, 2)
    counts = hit.sum(dim=1)
    which, place = hit.nonzero(as_tuple=True)
    rows = order[which // (across * down), place] + which // (across * down) * count
    starts = counts.cumsum(0) - counts
    # long lists first: neighbors in this order are about as long, so that little is filled up
    by_length = counts.argsort(descending=True, stable=True)
    lengths = [n for n in counts[by_length].tolist() if n]
    first = 0
    while first < len(lengths):
        size = max(1, chunk // (lengths[first] * tile * tile))
        tiles = by_length[first : min(first + size, len(lengths))]
        slot = torch.arange(lengths[first], device=tiles.device)
        inside = slot < counts[tiles][:, None]
        at = (starts[tiles][:, None] + slot).clamp_max(len(rows) - 1)
        members = torch.where(inside, rows[at], views * count)
        corners = torch.stack([tiles % across, tiles // across % down], dim=-1)
        yield _Bin(tiles, corners, members)
        first += size
