"""Which fields there are, and what differs between those that rays sample and those drawn."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.fields.dense_grid import DenseGridField
from vlmreward_3d.fields.gaussians import GaussianField
from vlmreward_3d.fields.hash_grid import HashGridField
from vlmreward_3d.rendering.occupancy import OccupancyGrid

__all__ = ["Field", "VolumeField", "build_field", "update_occupancy"]

VolumeField: TypeAlias = DenseGridField | HashGridField
"""Fields that have a density everywhere, and are sampled along rays."""

Field: TypeAlias = VolumeField | GaussianField


def build_field(config: VLM3DConfig, generator: torch.Generator | None = None) -> Field:
    """The field of a configuration, as it is at the start.

    Args:
        config: The run's settings.
        generator: Source of its initial values.
    """
    if config.field == "splats":
        return GaussianField(config.splat_count, radius=config.blob_radius, generator=generator)
    shared: dict[str, Any] = {
        "bound": config.bound,
        "blob_density": config.blob_density,
        "blob_radius": config.blob_radius,
        "density_scale": config.density_scale,
        "generator": generator,
    }
    if config.field == "hash":
        coarsest, finest = config.hash_resolution
        return HashGridField(config.hash_levels, coarsest, finest, config.hash_size, **shared)
    return DenseGridField(config.field_resolutions, **shared)


def update_occupancy(
    grid: OccupancyGrid, field: Field, generator: torch.Generator | None = None
) -> None:
    """Let a grid look at a field; for splats, which are drawn without one, it stays as it is.

    Args:
        grid: The occupancy; it is changed.
        field: The field.
        generator: See `OccupancyGrid.update`.
    """
    if not isinstance(field, GaussianField):
        grid.update(field.bake().density, generator)
