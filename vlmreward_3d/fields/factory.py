"""The field that a configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vlmreward_3d.fields.base import Field, VolumeRepresentation
from vlmreward_3d.fields.dense_grid import DenseGrid
from vlmreward_3d.fields.gaussians import GaussianField
from vlmreward_3d.fields.hash_grid import HashGrid
from vlmreward_3d.fields.volume import RaySampling, Shading, VolumeField
from vlmreward_3d.rendering.occupancy import OccupancyGrid

if TYPE_CHECKING:
    from vlmreward_3d.config import VLM3DConfig

__all__ = ["build_field"]


def build_field(config: VLM3DConfig, generator: torch.Generator | None = None) -> Field:
    """The field of a configuration at the start of a run, on the CPU.

    Args:
        config: The run's settings.
        generator: Source of the initial values.
    """
    return _BUILDERS[config.field](config, generator)


def _dense_grid(config: VLM3DConfig, generator: torch.Generator | None) -> Field:
    return _volume_field(
        config, DenseGrid(config.field_resolutions, **_volume_options(config), generator=generator)
    )


def _hash_grid(config: VLM3DConfig, generator: torch.Generator | None) -> Field:
    coarsest, finest = config.hash_resolution
    return _volume_field(
        config,
        HashGrid(
            config.hash_levels,
            coarsest,
            finest,
            config.hash_size,
            **_volume_options(config),
            generator=generator,
        ),
    )


def _gaussians(config: VLM3DConfig, generator: torch.Generator | None) -> Field:
    return GaussianField(config.splat_count, radius=config.blob_radius, generator=generator)


def _volume_options(config: VLM3DConfig) -> dict[str, Any]:
    names = ("bound", "blob_density", "blob_radius", "density_scale")
    return {name: getattr(config, name) for name in names}


def _volume_field(config: VLM3DConfig, representation: VolumeRepresentation) -> VolumeField:
    occupancy = OccupancyGrid(
        config.occupancy_resolution,
        bound=config.bound,
        threshold=config.occupancy_threshold,
        decay=config.occupancy_decay,
    )
    sampling = RaySampling(
        samples_per_ray=config.samples_per_ray,
        rays_per_chunk=config.rays_per_chunk,
        occupancy_interval=config.occupancy_every,
    )
    shading = None
    if config.shading is not None:
        shading = Shading(probabilities=config.shading, start=config.shading_from)
    return VolumeField(representation, occupancy, sampling=sampling, shading=shading)


_BUILDERS = {"pyramid": _dense_grid, "hash": _hash_grid, "splats": _gaussians}
"""Builders of fields by the name in a configuration."""
