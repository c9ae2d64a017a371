"""Which fields there are."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.field import PyramidField
from vlmreward_3d.hash_field import HashField

__all__ = ["Field", "build_field"]

Field: TypeAlias = PyramidField | HashField


def build_field(config: VLM3DConfig, generator: torch.Generator | None = None) -> Field:
    """The field of a configuration, as it is at the start.

    Args:
        config: The run's settings.
        generator: Source of its initial values.
    """
    shared: dict[str, Any] = {
        "bound": config.bound,
        "blob_density": config.blob_density,
        "blob_radius": config.blob_radius,
        "density_scale": config.density_scale,
        "generator": generator,
    }
    if config.field == "hash":
        coarsest, finest = config.hash_resolution
        return HashField(config.hash_levels, coarsest, finest, config.hash_size, **shared)
    return PyramidField(config.field_resolutions, **shared)
