"""Settings of fields that several presets share."""

from __future__ import annotations

import dataclasses
from typing import Any

from vlmreward_3d.config import (
    DenseGridConfig,
    FieldConfig,
    GaussiansConfig,
    HashGridConfig,
    OccupancyConfig,
    RaySamplingConfig,
    ShadingConfig,
)
from vlmreward_3d.schedule import Schedule

__all__ = ["scale_fields", "volumes"]


def volumes(
    dense: DenseGridConfig, *, levels: int, resolution_range: tuple[int, int], table_size: int
) -> dict[str, FieldConfig]:
    """Settings of the three kinds of fields of a preset, from common and separate values."""
    own = ("resolutions", "learned_gain", "tv_weight")
    names = [field.name for field in dataclasses.fields(dense) if field.name not in own]
    shared: dict[str, Any] = {name: getattr(dense, name) for name in names}
    hash_grid = HashGridConfig(
        levels=levels, resolution_range=resolution_range, table_size=table_size, **shared
    )
    return {
        "dense_grid": dense,
        "hash_grid": hash_grid,
        "gaussians": GaussiansConfig(radius=dense.blob_radius),
    }


_SHADING = (0.25, 0.375, 0.375)


def scale_fields(
    *, orientation: Schedule, shading_start: float | None = None
) -> dict[str, FieldConfig]:
    """The fields of the presets at paper scale.

    Dense grids of up to 128 nodes a side stand where the papers have a hash grid with a small
    network, with the blob of Magic3D and of threestudio's configurations, at their density;
    occupancy-aware samples, and deferred back-propagation in chunks of rays.
    """
    start = shading_start
    return volumes(
        DenseGridConfig(
            resolutions=(8, 16, 32, 64, 128),
            rays=RaySamplingConfig(samples_per_ray=96, rays_per_chunk=16384),
            occupancy=OccupancyConfig(resolution=64),
            shading=None if start is None else ShadingConfig(probabilities=_SHADING, start=start),
            orientation_weight=orientation,
        ),
        levels=16,
        resolution_range=(16, 4096),
        table_size=2**19,
    )
