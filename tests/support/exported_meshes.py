"""Fields with a known surface, and readers of mesh files."""

from __future__ import annotations

import json
import struct

import numpy as np
import torch
import trimesh

from vlmreward_3d.fields.dense_grid import DenseGrid
from vlmreward_3d.fields.volume import VolumeField
from vlmreward_3d.rendering.occupancy import OccupancyGrid

__all__ = ["read_glb", "read_mesh", "solid", "srgb_colors", "tower"]


def solid(inside, color) -> VolumeField:
    """A field that is opaque where inside(x, y, z) > 0 and has logits color(x, y, z)."""
    volume = DenseGrid((64,), blob_density=0.0, density_scale=10.0)
    axis = torch.linspace(-1, 1, 64)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    with torch.no_grad():
        volume.levels[0][0, 0] = 200 * inside(x, y, z)
        volume.levels[0][0, 1:] = torch.stack(color(x, y, z))
    field = VolumeField(volume, OccupancyGrid(32))
    field.update_occupancy()
    return field


def tower() -> VolumeField:
    """A hollow ball of radius 0.3, red in front (+x) and blue behind, 0.3 above the center."""

    def inside(x, y, z):
        radius = (x * x + y * y + (z - 0.3) ** 2).sqrt()
        return torch.minimum(0.3 - radius, radius - 0.1)

    def color(x, y, z):
        return 40 * x, torch.full_like(x, -9.0), -40 * x

    return solid(inside, color)


def read_mesh(path) -> trimesh.Trimesh:
    return trimesh.load(path, force="mesh", process=False)


def read_glb(path) -> tuple[dict, dict[str, np.ndarray]]:
    """The JSON of a GLB file with one mesh, and its vertices' attributes as they are stored."""
    data = path.read_bytes()
    magic, version, total, length, kind = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, total, kind) == (b"glTF", 2, len(data), b"JSON")
    tree, binary = json.loads(data[20 : 20 + length]), data[28 + length :]
    types = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
    arrays = {}
    (primitive,) = tree["meshes"][0]["primitives"]
    for name, index in primitive["attributes"].items():
        accessor = tree["accessors"][index]
        view = tree["bufferViews"][accessor["bufferView"]]
        assert "byteStride" not in view
        columns = int(accessor["type"].removeprefix("VEC"))
        dtype = np.dtype(types[accessor["componentType"]])
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        assert start % 4 == dtype.itemsize * columns % 4 == 0
        array = np.frombuffer(binary, dtype, accessor["count"] * columns, start)
        arrays[name] = array.reshape(-1, columns)
    return tree, arrays


def srgb_colors(path) -> np.ndarray:
    """Colors (V, 3) in [0, 255] that a viewer shows of linear 16-bit ones."""
    tree, arrays = read_glb(path)
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    assert (accessor["componentType"], accessor["type"]) == (5123, "VEC4")
    assert accessor["normalized"] is True
    assert (arrays["COLOR_0"][:, 3] == 65535).all()
    linear = arrays["COLOR_0"][:, :3] / 65535
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
