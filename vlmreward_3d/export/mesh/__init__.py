"""Meshes: surfaces, textures and files."""

from vlmreward_3d.export.mesh.marching_cubes import NoSurfaceError, Surface, extract_surface
from vlmreward_3d.export.mesh.texture import Textured, bake_texture
from vlmreward_3d.export.mesh.writers import (
    MESH_FILES,
    save_glb,
    save_meshes,
    save_obj,
    save_ply,
    save_textured_glb,
)

__all__ = [
    "MESH_FILES",
    "NoSurfaceError",
    "Surface",
    "Textured",
    "bake_texture",
    "extract_surface",
    "save_glb",
    "save_meshes",
    "save_obj",
    "save_ply",
    "save_textured_glb",
]
