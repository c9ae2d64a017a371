"""UV unwrapping: a mesh is cut into charts by six box directions and packed into one texture.

The cut takes linear time for any surface; the segmentation of general-purpose unwrappers takes
minutes on the rough surfaces that score distillation may leave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vlmreward_3d.export.mesh.uv_raster import rasterize

__all__ = ["Atlas", "unwrap"]

_STEEPEST = 0.35
"""Least cosine between a face and its chart's direction; bounds the stretching of colors."""
_PASSES = 8
_FILLED = 0.6
"""Approximate share of a texture that charts cover."""


@dataclass(frozen=True)
class Atlas:
    """Texture coordinates of the corners of all faces of a mesh.

    Attributes:
        vertices: (W,) int, the vertex of the mesh for each vertex of the atlas; a vertex at a seam
            occurs several times.
        faces: (F, 3) int into `vertices`, in the mesh's order.
        pixels: (W, 2) float, column and row in texels, (0, 0) the picture's upper left corner.
        charts: (F,) int, the chart of each face.
        width: Width of the texture in texels.
        height: Height of the texture in texels.
    """

    vertices: np.ndarray
    faces: np.ndarray
    pixels: np.ndarray
    charts: np.ndarray
    width: int
    height: int


def unwrap(
    vertices: np.ndarray, faces: np.ndarray, *, resolution: int = 1024, padding: int = 4
) -> Atlas:
    """Map every face of a mesh to a separate area of a texture.

    Args:
        vertices: (V, 3) float.
        faces: (F, 3) int; no edge belongs to more than two faces.
        resolution: Approximate side of the texture in texels.
        padding: Width in texels of the free border around each chart.

    Returns:
        The atlas; no texel's center lies in two faces.
    """
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    neighbors = _neighbors(faces)
    direction = _directions(normals, neighbors)
    layer = np.zeros(len(faces), dtype=np.int64)
    while True:
        charts = _connected(direction * (layer.max() + 1) + layer, neighbors)
        atlas = _pack(vertices, faces, direction, charts, resolution, padding)
        # a chart may pass over itself, like a spiral stair seen from above
        covered = _covered(atlas)
        if not covered.any():
            return atlas
        layer[covered] += 1


def _neighbors(faces: np.ndarray) -> np.ndarray:
    """(N, 2) pairs of faces that share an edge."""
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    order = np.lexsort(edges.T)
    same = (edges[order[1:]] == edges[order[:-1]]).all(axis=1)
    return np.stack([order[:-1][same], order[1:][same]], axis=1) // 3


def _directions(normals: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    """(F,) direction in 0..5 (+x, +y, +z, -x, -y, -z) that most of a face and its neighbors face.

    The vote reduces many ragged charts to few large ones.
    """
    towards = np.concatenate([normals, -normals], axis=1)
    steep = towards < _STEEPEST
    everyone = np.arange(len(normals))
    direction = towards.argmax(axis=1)
    for _ in range(_PASSES):
        votes = towards.copy()
        for one, other in (neighbors.T, neighbors.T[::-1]):
            np.add.at(votes, (one, direction[other]), 1.0)
        votes[steep] = -1.0
        votes[everyone, towards.argmax(axis=1)] += 1e-6
        direction = votes.argmax(axis=1)
    return direction


def _connected(label: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    """(F,) index of each face's patch, a connected set of faces with the same label."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    one, other = neighbors[label[neighbors[:, 0]] == label[neighbors[:, 1]]].T
    graph = coo_matrix((np.ones(len(one)), (one, other)), shape=(len(label),) * 2)
    return connected_components(graph, directed=False)[1]


def _pack(
    vertices: np.ndarray,
    faces: np.ndarray,
    direction: np.ndarray,
    charts: np.ndarray,
    resolution: int,
    padding: int,
) -> Atlas:
    import xatlas

    # a vertex of the atlas for each chart that a vertex is in
    keys = charts[:, None] * len(vertices) + faces
    unique, inverse = np.unique(keys, return_inverse=True)
    split = inverse.reshape(faces.shape)
    origin, chart = unique % len(vertices), unique // len(vertices)
    toward = np.zeros(charts.max() + 1, dtype=np.int64)
    toward[charts] = direction
    along = toward[chart] % 3
    flat = np.stack(
        [
            vertices[origin, (along + 1) % 3] * np.where(toward[chart] < 3, 1, -1),
            vertices[origin, (along + 2) % 3],
        ],
        axis=1,
    )
    # as large as in the texture: xatlas leaves out faces that are small in absolute terms
    corners = flat[split]
    area = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])).sum() / 2
    flat *= resolution * math.sqrt(_FILLED / area)

    packer = xatlas.Atlas()
    # faces of different materials are in different charts even where they meet in the plane
    packer.add_uv_mesh(
        flat.astype(np.float32), split.astype(np.uint32), charts[:, None].astype(np.uint32)
    )
    options = xatlas.PackOptions()
    # with a fixed resolution xatlas would begin a second texture when the first is full
    options.padding, options.bilinear, options.texels_per_unit = padding, True, 1.0
    packer.generate(xatlas.ChartOptions(), options)
    mapping, packed, uv = packer.get_mesh(0)
    size = (packer.width, packer.height)
    return Atlas(origin[mapping], packed.astype(np.int64), uv * size, charts, *size)


def _covered(atlas: Atlas) -> np.ndarray:
    """(F,) bool, True for faces that share a texel with an earlier face."""
    texels = rasterize(atlas.pixels[atlas.faces], atlas.width, atlas.height)
    place = texels.rows * atlas.width + texels.columns
    first = np.full(atlas.width * atlas.height, len(atlas.faces))
    np.minimum.at(first, place, texels.triangles)
    covered = np.zeros(len(atlas.faces), dtype=bool)
    covered[texels.triangles[first[place] < texels.triangles]] = True
    return covered
