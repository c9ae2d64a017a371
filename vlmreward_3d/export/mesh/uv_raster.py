"""Rasterization of triangles in the plane: the texels that they cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Texels", "rasterize"]


@dataclass(frozen=True)
class Texels:
    """P pairs of a texel and a triangle that contains its center.

    Attributes:
        columns: (P,) int.
        rows: (P,) int.
        triangles: (P,) int.
        weights: (P, 3) barycentric coordinates, each in (0, 1).
    """

    columns: np.ndarray
    rows: np.ndarray
    triangles: np.ndarray
    weights: np.ndarray


def rasterize(corners: np.ndarray, width: int, height: int) -> Texels:
    """The texels whose centers (at +0.5) lie strictly inside triangles, all of them at once.

    Args:
        corners: (T, 3, 2) column and row in texels, in either orientation.
        width: Columns of the picture.
        height: Rows of the picture.

    Returns:
        The texels, triangle by triangle.
    """
    low = np.ceil(corners.min(axis=1) - 0.5).astype(np.int64).clip(0)
    high = np.floor(corners.max(axis=1) - 0.5).astype(np.int64)
    extent = np.maximum(np.minimum(high, (width - 1, height - 1)) - low + 1, 0)
    counts = extent.prod(axis=1)
    triangles = np.repeat(np.arange(len(corners)), counts)
    within = np.arange(len(triangles)) - np.repeat(counts.cumsum() - counts, counts)
    columns = low[triangles, 0] + within % extent[triangles, 0]
    rows = low[triangles, 1] + within // extent[triangles, 0]

    a, b, c = corners.transpose(1, 0, 2)
    twice_area = _cross(b - a, c - a)
    center = np.stack([columns, rows], axis=1) + 0.5 - a[triangles]
    with np.errstate(divide="ignore", invalid="ignore"):
        second = _cross(center, (c - a)[triangles]) / twice_area[triangles]
        third = _cross((b - a)[triangles], center) / twice_area[triangles]
        weights = np.stack([1 - second - third, second, third], axis=1)
        inside = (weights > 0).all(axis=1)
    return Texels(columns[inside], rows[inside], triangles[inside], weights[inside])


def _cross(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
