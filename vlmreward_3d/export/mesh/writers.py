"""Writers of surfaces in common file formats, all of them in glTF's axes.

In glTF +y is up, and the front of an object faces +z; in the world these are +z and +x (azimuth 0).
The world's (x, y, z) is written as (y, z, x).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmreward_3d.atomic_io import write_atomically
from vlmreward_3d.export.mesh.marching_cubes import Surface, colors_at
from vlmreward_3d.export.mesh.texture import Textured, bake_texture
from vlmreward_3d.fields.volume import VolumeField

if TYPE_CHECKING:
    from trimesh.visual.material import PBRMaterial

__all__ = [
    "MESH_FILES",
    "save_glb",
    "save_meshes",
    "save_obj",
    "save_ply",
    "save_textured_glb",
]

MESH_FILES = {
    "glb": "mesh.glb",
    "texture": "mesh_textured.glb",
    "obj": "mesh.obj",
    "ply": "mesh.ply",
}
"""Names of the files that `save_meshes` can write, by their kinds."""


def save_glb(path: Path, surface: Surface) -> None:
    """Save as binary glTF with linear vertex colors, smooth normals and a fully rough material.

    The colors are 16-bit integers, because 8 bits of linear color have few levels in dark areas.
    """
    from trimesh.visual import TextureVisuals

    mesh = _whole(surface)
    mesh.visual = TextureVisuals(material=_rough())
    colors = np.round(65535 * _opaque(_linear(surface.rgb)))
    # trimesh writes colors in 8 bits, and of any type what begins with an underscore
    mesh.vertex_attributes["_COLOR_0"] = colors.astype("<u2")

    def declare_colors(tree: dict[str, Any]) -> None:
        attributes = tree["meshes"][0]["primitives"][0]["attributes"]
        attributes["COLOR_0"] = attributes.pop("_COLOR_0")
        tree["accessors"][attributes["COLOR_0"]]["normalized"] = True

    data = _exported(mesh, "glb", include_normals=True, tree_postprocessor=declare_colors)
    write_atomically(path, data)


def save_obj(path: Path, surface: Surface) -> None:
    """Save as Wavefront OBJ with sRGB colors in [0, 1] behind the coordinates of the vertices."""
    _write(path, surface)


def save_ply(path: Path, surface: Surface) -> None:
    """Save as binary PLY with 8-bit sRGB vertex colors."""
    _write(path, surface)


def save_textured_glb(path: Path, surface: Surface, textured: Textured) -> None:
    """Save as binary glTF with an embedded PNG texture, smooth normals and a rough material.

    Args:
        path: The .glb file.
        surface: The geometry before it was cut, whose normals are smooth across seams.
        textured: The same geometry with UVs and a picture.
    """
    import trimesh
    from PIL import Image
    from trimesh.visual import TextureVisuals

    material = _rough(baseColorTexture=Image.fromarray(textured.picture))
    mesh = trimesh.Trimesh(
        _gltf_axes(textured.vertices),
        textured.atlas.faces,
        vertex_normals=_whole(surface).vertex_normals[textured.atlas.vertices],
        visual=TextureVisuals(uv=textured.uv, material=material),
        process=False,
    )
    write_atomically(path, _exported(mesh, "glb", include_normals=True))


def save_meshes(
    folder: Path,
    surface: Surface,
    field: VolumeField,
    kinds: Sequence[str] = ("glb", "texture"),
    *,
    texture_resolution: int = 1024,
) -> list[Path]:
    """Save a field's surface in each of several formats.

    Args:
        folder: Folder that the files are written to.
        surface: Surface of the field, from `extract_surface`.
        field: Field whose colors become the texture.
        kinds: Keys of `MESH_FILES`.
        texture_resolution: Approximate side of the texture in texels.

    Returns:
        The files, in the order of `kinds`.

    Raises:
        ValueError: A kind is unknown.
    """
    for kind in kinds:
        if kind not in MESH_FILES:
            raise ValueError(
                f"received the kind of mesh {kind!r}; expected some of {', '.join(MESH_FILES)}; "
                "name those"
            )

    def save_texture(path: Path, surface: Surface) -> None:
        colors = partial(colors_at, field)
        textured = bake_texture(surface, colors, resolution=texture_resolution)
        save_textured_glb(path, surface, textured)

    savers: dict[str, Callable[[Path, Surface], None]] = {
        "glb": save_glb,
        "texture": save_texture,
        "obj": save_obj,
        "ply": save_ply,
    }
    paths = [folder / MESH_FILES[kind] for kind in kinds]
    for kind, path in zip(kinds, paths):
        savers[kind](path, surface)
    return paths


def _write(path: Path, surface: Surface) -> None:
    mesh = _whole(surface)
    mesh.visual.vertex_colors = np.round(255 * _opaque(surface.rgb)).astype(np.uint8)
    write_atomically(path, _exported(mesh, path.suffix.removeprefix(".")))


def _whole(surface: Surface) -> Any:
    """The surface as trimesh's class, in glTF's axes."""
    import trimesh

    return trimesh.Trimesh(_gltf_axes(surface.vertices), surface.faces, process=False)


def _rough(**maps: Any) -> PBRMaterial:
    """A material of trimesh without gloss; without one, glTF's readers assume polished metal."""
    from trimesh.visual.material import PBRMaterial

    return PBRMaterial(
        baseColorFactor=(255, 255, 255, 255), metallicFactor=0.0, roughnessFactor=1.0, **maps
    )


def _opaque(rgb: np.ndarray) -> np.ndarray:
    return np.concatenate([rgb, np.ones((len(rgb), 1))], axis=1)


def _exported(mesh: Any, kind: str, **options: Any) -> bytes:
    data = mesh.export(file_type=kind, **options)
    return data.encode() if isinstance(data, str) else data


def _gltf_axes(points: np.ndarray) -> np.ndarray:
    return points[:, [1, 2, 0]]


def _linear(srgb: np.ndarray) -> np.ndarray:
    """Linear colors, for glTF's vertex colors, from sRGB colors of rendered pixels."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
