"""Presets with Stable Diffusion, a denoiser of single views: DreamFusion and ProlificDreamer."""

from __future__ import annotations

import dataclasses

from vlmreward_3d.config import CameraConfig, RegularizerConfig
from vlmreward_3d.config.preset import Preset
from vlmreward_3d.presets._fields import scale_fields
from vlmreward_3d.presets.multi_view import mvdream, paper
from vlmreward_3d.schedule import Schedule

__all__ = ["dreamfusion", "prolificdreamer"]

STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"


dreamfusion = Preset(
    steps=10_000,
    camera=CameraConfig(
        views_per_group=1,
        fov_deg=(40.0, 70.0),
        elevation_deg=(-10.0, 45.0),
        elevations="threestudio",
        object_radius=(0.8, 1.0),
    ),
    fields=scale_fields(orientation=Schedule.ramp(10.0, 1000.0, until=0.5), shading_start=0.2001),
    score_distillation=dataclasses.replace(
        paper.score_distillation,
        denoiser=STABLE_DIFFUSION,
        view_prompts=True,
        guidance_scale=100.0,
        t_min=Schedule.constant(0.02),
        t_max=Schedule.constant(0.98),
    ),
    vlm=mvdream.vlm,
    uses_vlm=False,
    optimizer=paper.optimizer,
    regularizers=RegularizerConfig(sparsity_weight=Schedule.constant(1.0)),
)
"""DreamFusion (Poole et al., 2022) with Stable Diffusion, as threestudio's configuration says.

SDS with a guidance of 100, t ~ U(0.02, 0.98), one view a step, its side said in the prompt, 64 px
throughout, shading from a fifth of the run on, orientation loss from 10 to 1000 over the first half
and sparsity loss 1. A VLM, where one is named, weighs lambda 1. docs/presets.md lists what differs
from it and from the paper.
"""


prolificdreamer = Preset(
    steps=25_000,
    camera=dataclasses.replace(dreamfusion.camera, resolution=Schedule.constant(256)),
    fields=scale_fields(orientation=Schedule.constant(0)),
    score_distillation=dataclasses.replace(
        dreamfusion.score_distillation, rule="vsd", guidance_scale=7.5
    ),
    vlm=dreamfusion.vlm,
    uses_vlm=False,
    optimizer=dataclasses.replace(dreamfusion.optimizer, weight_decay=0.01),
    regularizers=RegularizerConfig(sparsity_weight=Schedule.constant(10.0)),
)
"""The first stage of ProlificDreamer (Wang et al., 2023), as threestudio's configuration says.

Variational score distillation with a guidance of 7.5, t ~ U(0.02, 0.98), one view of 256 px a step,
its side said in the prompt to the denoiser and not to the student, no shading, no orientation loss,
sparsity loss 10, weight decay. Meshes and textures, its later stages, are not here. A VLM, where
one is named, weighs lambda 1. docs/presets.md lists what differs.
"""
