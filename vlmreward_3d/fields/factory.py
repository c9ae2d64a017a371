"""Construction of fields from their configurations."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import torch

from vlmreward_3d.config import DenseGridConfig, GaussiansConfig, HashGridConfig, VolumeConfig
from vlmreward_3d.fields.base import Field, VolumeRepresentation
from vlmreward_3d.fields.color_heads import build_color_head
from vlmreward_3d.fields.dense_grid import DenseGrid
from vlmreward_3d.fields.gaussians import GaussianField
from vlmreward_3d.fields.hash_grid import HashGrid
from vlmreward_3d.fields.volume import VolumeField
from vlmreward_3d.rendering.occupancy import OccupancyGrid
from vlmreward_3d.schedule import Schedule

__all__ = ["build_field"]


@singledispatch
def build_field(config: object, generator: torch.Generator | None = None) -> Field:
    """The field of a configuration at the start of a run, on the CPU.

    A record of another kind of field registers its builder with `build_field.register`.

    Args:
        config: The `field` of a `VLM3DConfig`.
        generator: CPU source of the initial values.

    Raises:
        TypeError: There is no builder for such a record.
    """
    raise TypeError(
        f"config is a {type(config).__name__}; expected the record of a field, such as a "
        "DenseGridConfig"
    )


@build_field.register
def _(config: DenseGridConfig, generator: torch.Generator | None = None) -> Field:
    grid = DenseGrid(
        config.resolutions,
        **_shape(config),
        learned_gain=config.learned_gain,
        generator=generator,
    )
    return _volume_field(config, grid, tv_weight=config.tv_weight)


@build_field.register
def _(config: HashGridConfig, generator: torch.Generator | None = None) -> Field:
    coarsest, finest = config.resolution_range
    size = (config.levels, coarsest, finest, config.table_size)
    return _volume_field(config, HashGrid(*size, **_shape(config), generator=generator))


@build_field.register
def _(config: GaussiansConfig, generator: torch.Generator | None = None) -> Field:
    return GaussianField(
        config.n_gaussians,
        radius=config.radius,
        generator=generator,
        densification=config.densification,
    )


def _shape(config: VolumeConfig) -> dict[str, Any]:
    names = ("bound", "blob_density", "blob_radius", "density_bias", "density_scale")
    shape = {name: getattr(config, name) for name in names}
    return {**shape, "head": build_color_head(config.latents)}


def _volume_field(
    config: VolumeConfig, representation: VolumeRepresentation, **options: Schedule
) -> VolumeField:
    occupancy = config.occupancy
    grid = OccupancyGrid(
        occupancy.resolution,
        bound=config.bound,
        threshold=occupancy.threshold,
        decay=occupancy.decay,
    )
    return VolumeField(
        representation,
        grid,
        rays=config.rays,
        shading=config.shading,
        occupancy_interval=occupancy.interval,
        orientation_weight=config.orientation_weight,
        emptiness_weight=config.emptiness_weight,
        emptiness_scale=config.emptiness_scale,
        **options,
    )
