"""Words for the side that a view shows, for guidances without a camera input."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras

__all__ = ["VIEWS", "view_index", "view_prompts"]

VIEWS = ("front", "side", "back", "overhead")
"""Sides of an object; azimuth 0 is its front."""

_OVERHEAD = 60.0
_FRONT = 45.0


def view_prompts(prompt: str) -> list[str]:
    """The prompt for each of ``VIEWS`` (DreamFusion, Section 3.2)."""
    return [f"{prompt}, {view} view" for view in VIEWS]


def view_index(cameras: Cameras) -> Tensor:
    """The index in ``VIEWS`` of the side that each camera sees.

    Above 60 degrees of elevation it is "overhead", as in DreamFusion; below, "front" and "back" are
    the quarters around azimuth 0 and 180 degrees, and "side" is the rest. DreamFusion blends the
    embeddings of neighboring sides instead.

    Args:
        cameras: N cameras that look at the origin.

    Returns:
        (N,) integers, on the cameras' device.
    """
    azimuth, elevation = cameras.angles().unbind(-1)
    azimuth = azimuth.abs()
    index = torch.full_like(azimuth, VIEWS.index("side"), dtype=torch.long)
    index[azimuth <= _FRONT] = VIEWS.index("front")
    index[azimuth >= 180 - _FRONT] = VIEWS.index("back")
    index[elevation > _OVERHEAD] = VIEWS.index("overhead")
    return index
