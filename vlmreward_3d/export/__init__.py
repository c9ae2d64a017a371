"""Export: images, a turntable, geometry files and a report of a finished run."""

from vlmreward_3d.export.gaussian_ply import save_gaussians
from vlmreward_3d.export.geometry import Geometry, export_geometry
from vlmreward_3d.export.mesh import (
    MESH_FILES,
    NoSurfaceError,
    Surface,
    extract_surface,
    save_meshes,
)
from vlmreward_3d.export.report import save_report
from vlmreward_3d.export.run_artifacts import export_all, save_curves, save_turntable, save_views

__all__ = [
    "MESH_FILES",
    "Geometry",
    "NoSurfaceError",
    "Surface",
    "export_all",
    "export_geometry",
    "extract_surface",
    "save_curves",
    "save_gaussians",
    "save_meshes",
    "save_report",
    "save_turntable",
    "save_views",
]
