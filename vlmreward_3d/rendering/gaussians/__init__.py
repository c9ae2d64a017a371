"""Rasterization of 3D Gaussians, with gsplat or in torch."""

from vlmreward_3d.rendering.gaussians.footprints import Footprints
from vlmreward_3d.rendering.gaussians.primitives import Gaussians, rotations
from vlmreward_3d.rendering.gaussians.render import (
    GaussianRendering,
    render_gaussian_images,
    render_gaussian_views,
    render_gaussians,
)

__all__ = [
    "Footprints",
    "GaussianRendering",
    "Gaussians",
    "render_gaussian_images",
    "render_gaussian_views",
    "render_gaussians",
    "rotations",
]
