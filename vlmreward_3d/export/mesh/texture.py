"""Surfaces with their colors in a texture instead of at the vertices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vlmreward_3d.export.mesh.marching_cubes import Surface
from vlmreward_3d.export.mesh.uv_atlas import Atlas, unwrap
from vlmreward_3d.export.mesh.uv_raster import rasterize

__all__ = ["Textured", "bake_texture"]


@dataclass(frozen=True)
class Textured:
    """A surface's geometry with a texture, in the world's frame: z up.

    Attributes:
        atlas: Vertices and faces, with their positions in the picture.
        vertices: (W, 3) float, world units, the position of each vertex of the atlas.
        uv: (W, 2) float in [0, 1], (0, 0) the picture's lower left corner.
        picture: (H, W, 3) uint8, sRGB.
    """

    atlas: Atlas
    vertices: np.ndarray
    uv: np.ndarray
    picture: np.ndarray


def bake_texture(
    surface: Surface,
    colors: Callable[[np.ndarray], np.ndarray],
    *,
    resolution: int = 1024,
    padding: int = 4,
) -> Textured:
    """Compute a texture from the color at the surface point of each texel.

    Texels that a chart only touches get the color of its border, and texels outside of all charts
    that of the nearest filled texel, so that neither interpolation nor mip-mapping brings another
    color to a seam.

    Args:
        surface: The geometry; its vertex colors are not used.
        colors: Maps points (P, 3) in world units to sRGB colors (P, 3) in [0, 1].
        resolution: About the side of the texture in texels.
        padding: Texels around each chart that belong to no other.

    Returns:
        The same faces in the same order, with UVs and a picture.
    """
    from scipy.ndimage import distance_transform_edt

    atlas = unwrap(surface.vertices, surface.faces, resolution=resolution, padding=padding)
    vertices = surface.vertices[atlas.vertices]
    texels = rasterize(atlas.pixels[atlas.faces], atlas.width, atlas.height)
    corners = vertices[atlas.faces[texels.triangles]]
    points = (texels.weights[..., None] * corners).sum(axis=1)

    picture = np.zeros((atlas.height, atlas.width, 3), dtype=np.uint8)
    outside = np.ones((atlas.height, atlas.width), dtype=bool)
    picture[texels.rows, texels.columns] = np.round(255 * colors(points))
    outside[texels.rows, texels.columns] = False
    places, points = _rims(atlas, vertices)
    places = places.astype(np.int64).clip(0, (atlas.width - 1, atlas.height - 1))
    beside = outside[places[:, 1], places[:, 0]]
    columns, rows = places[beside].T
    picture[rows, columns] = np.round(255 * colors(points[beside]))
    outside[rows, columns] = False
    nearest = distance_transform_edt(outside, return_distances=False, return_indices=True)
    picture = picture[tuple(nearest)]
    uv = atlas.pixels / (atlas.width, atlas.height)
    return Textured(atlas, vertices, uv * (1, -1) + (0, 1), picture)


def _rims(atlas: Atlas, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 2) in texels, dense on the charts' outlines, and (P, 3) on the surface."""
    edges = np.sort(atlas.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges, uses = np.unique(edges, axis=0, return_counts=True)
    one, other = edges[uses == 1].T
    length = np.linalg.norm(atlas.pixels[other] - atlas.pixels[one], axis=1)
    steps = np.ceil(2 * length).astype(np.int64) + 1
    edge = np.repeat(np.arange(len(steps)), steps)
    within = np.arange(len(edge)) - np.repeat(steps.cumsum() - steps, steps)
    share = (within / steps[edge])[:, None]
    first, second = one[edge], other[edge]
    return (
        atlas.pixels[first] * (1 - share) + atlas.pixels[second] * share,
        vertices[first] * (1 - share) + vertices[second] * share,
    )
