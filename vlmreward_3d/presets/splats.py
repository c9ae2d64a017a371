"""The preset with growing Gaussians: DreamGaussian."""

from __future__ import annotations

import dataclasses

from vlmreward_3d.config import DENSIFICATIONS, CameraConfig, GaussiansConfig, OptimizerConfig
from vlmreward_3d.config.preset import Preset
from vlmreward_3d.presets.single_view import dreamfusion
from vlmreward_3d.schedule import Schedule

__all__ = ["dreamgaussian"]

_HALF_HEIGHT = 1.142
"""Half the height of the view at the origin: 2.5 tan(49.1 / 2 degrees), world units."""
_LEVEL = Schedule(((0.0, 0.98), (0.02, 0.98), (0.98, 0.02), (1.0, 0.02)))


dreamgaussian = Preset(
    steps=500,
    camera=CameraConfig(
        views_per_group=1,
        resolution=Schedule.steps(128, (0.3, 256), (0.6, 512)),
        fov_deg=(49.1, 49.1),
        elevation_deg=(-30.0, 30.0),
        object_radius=(_HALF_HEIGHT, _HALF_HEIGHT),
        background="black-or-white",
    ),
    fields={
        "gaussians": GaussiansConfig(
            n_gaussians=5000, densification=DENSIFICATIONS["dreamgaussian"]
        ),
        **{kind: field for kind, field in dreamfusion.fields.items() if kind != "gaussians"},
    },
    score_distillation=dataclasses.replace(
        dreamfusion.score_distillation, t_min=_LEVEL, t_max=_LEVEL
    ),
    vlm=dreamfusion.vlm,
    uses_vlm=False,
    optimizer=OptimizerConfig(learning_rate=Schedule.constant(0.05)),
)
"""The first stage of DreamGaussian (Tang et al., 2024), as its authors' configuration says.

5,000 Gaussians that grow, one view a step of 128, 256 and 512 px, SDS with a guidance of 100 and a
noise level that falls from 0.98 to 0.02 with the step, the side said in the prompt, black or white
backgrounds. Meshes and textures, its second stage, are not here. A VLM, where one is named, weighs
lambda 1. docs/presets.md lists what differs.
"""
