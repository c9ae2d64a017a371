"""Export of the geometry of a finished field as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path

from vlmreward_3d.export.gaussian_ply import save_gaussians
from vlmreward_3d.export.mesh.marching_cubes import NoSurfaceError, Surface, extract_surface
from vlmreward_3d.export.mesh.writers import save_meshes
from vlmreward_3d.fields.base import Field
from vlmreward_3d.fields.gaussians import GaussianField
from vlmreward_3d.fields.volume import VolumeField

__all__ = ["Geometry", "export_geometry"]


@dataclass(frozen=True)
class Geometry:
    """Files and surface of the exported geometry of a field.

    Attributes:
        files: The files that were written.
        surface: The surface in the mesh files; None where there is none.
        notes: Why files are missing, one sentence each.
    """

    files: tuple[Path, ...] = ()
    surface: Surface | None = None
    notes: tuple[str, ...] = ()


@singledispatch
def export_geometry(
    field: Field, directory: Path, kinds: Sequence[str] = ("glb", "texture")
) -> Geometry:
    """Write the geometry of a field.

    A class of fields registers its exporter with `export_geometry.register`; a field without one
    is exported as images only.

    Args:
        field: The field, with an up-to-date occupancy; see `Field.for_evaluation`.
        directory: Folder that the files are written to.
        kinds: Keys of `MESH_FILES`, for fields with a surface.

    Returns:
        The files, and the surface if there is one.
    """
    return Geometry(notes=(f"no geometry: a {type(field).__name__} has no exporter",))


@export_geometry.register
def _(field: VolumeField, directory: Path, kinds: Sequence[str] = ("glb", "texture")) -> Geometry:
    try:
        surface = extract_surface(field)
    except NoSurfaceError as error:
        return Geometry(notes=(f"no mesh: {error}",))
    return Geometry(tuple(save_meshes(directory, surface, field, kinds)), surface)


@export_geometry.register
def _(field: GaussianField, directory: Path, kinds: Sequence[str] = ("glb", "texture")) -> Geometry:
    path = directory / "splats.ply"
    save_gaussians(path, field)
    return Geometry((path,))
