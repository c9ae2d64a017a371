"""Rendering: from the values of a field to images, and gradients back."""

from vlmreward_3d.rendering.base import BakedField, FieldSamples, RegularizerWeights, Shader, Views
from vlmreward_3d.rendering.deferred import render_deferred, render_with_graph
from vlmreward_3d.rendering.evaluation import evaluation_cameras, image_bytes, render_volume_images
from vlmreward_3d.rendering.gaussians import (
    Gaussians,
    render_gaussian_images,
    render_gaussian_views,
    render_gaussians,
)
from vlmreward_3d.rendering.occupancy import OccupancyGrid
from vlmreward_3d.rendering.ray_sampling import RaySamples, sample_rays
from vlmreward_3d.rendering.shading import lambertian, sample_shader, textureless
from vlmreward_3d.rendering.volume import composite, render, render_rays

__all__ = [
    "BakedField",
    "FieldSamples",
    "Gaussians",
    "OccupancyGrid",
    "RaySamples",
    "RegularizerWeights",
    "Shader",
    "Views",
    "composite",
    "evaluation_cameras",
    "image_bytes",
    "lambertian",
    "render",
    "render_deferred",
    "render_gaussian_images",
    "render_gaussian_views",
    "render_gaussians",
    "render_rays",
    "render_volume_images",
    "render_with_graph",
    "sample_rays",
    "sample_shader",
    "textureless",
]
