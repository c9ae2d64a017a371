"""Presets with MVDream, a denoiser of four views at once: VLM3D and MVDream itself."""

from __future__ import annotations

import dataclasses

from vlmreward.rewards.questions import NAMED_QUESTIONS
from vlmreward_3d.config import (
    CameraConfig,
    OptimizerConfig,
    ScoreDistillationConfig,
    VLMConfig,
    WeightingConfig,
)
from vlmreward_3d.config.preset import QWEN, Preset
from vlmreward_3d.presets._fields import scale_fields
from vlmreward_3d.schedule import Schedule

__all__ = ["mvdream", "paper", "release"]

MVDREAM = "sd-v2.1-base-4view.pt"
"""MVDream's checkpoint, by the name under which its authors publish it."""
NEGATIVE = "blurry, low quality, distorted, cropped, dull colours"


paper = Preset(
    steps=15_000,
    camera=CameraConfig(
        n_groups=Schedule.constant(2),
        resolution=Schedule.steps(64, (1 / 3, 256)),
        fov_deg=(15.0, 60.0),
        elevation_deg=(0.0, 30.0),
        elevations="mvdream",
        object_radius=(0.8, 1.0),
    ),
    fields=scale_fields(orientation=Schedule.ramp(10.0, 1000.0, until=1 / 3)),
    score_distillation=ScoreDistillationConfig(
        denoiser=MVDREAM,
        rule="sds",
        guidance_scale=50.0,
        guidance_rescale=0.0,
        t_min=Schedule.constant(0.0),
        t_max=Schedule.constant(1.0),
        shared_timestep=True,
    ),
    vlm=VLMConfig(
        model=QWEN,
        question="paper/selected",
        resolution=256,
        weighting=WeightingConfig(weight=Schedule.ramp(300.0, 1.0, until=2 / 3)),
    ),
    optimizer=OptimizerConfig(learning_rate=Schedule.constant(1e-2)),
)
"""VLM3D as its text says (Sec. 5.1 and Appendix A).

Eight views in two groups at every step, lambda from 300 to 1 over the first two thirds and then 1,
SDS with a guidance of 50 and t ~ U(0, T), orientation loss from 10 to 1000 over the first third, no
other regularizer. Where the text is silent: 64 px, from a third on 256 px, MVDream's cameras,
colored backgrounds, albedo without shading, and a learning rate that fits our field. For long
prompts, many objects and rare words the paper begins with a higher lambda: `vlm_weight_start=800`.
"""


release = Preset(
    steps=20_000,
    camera=dataclasses.replace(
        paper.camera,
        n_groups=Schedule.steps(2, (0.25, 1)),
        resolution=Schedule.steps(64, (0.25, 256)),
    ),
    fields=scale_fields(orientation=Schedule.ramp(10.0, 1000.0, until=0.25), shading_start=0.25),
    score_distillation=dataclasses.replace(
        paper.score_distillation,
        negative_prompt=NEGATIVE,
        rule="x0",
        guidance_rescale=0.5,
        t_min=Schedule.ramp(0.98, 0.02, until=0.4),
        t_max=Schedule.ramp(0.98, 0.5, until=0.4),
    ),
    vlm=dataclasses.replace(
        paper.vlm,
        question=NAMED_QUESTIONS["paper/selected"].replace("\n", " \n"),
        pixel_mode="float",
        weighting=WeightingConfig(weight=Schedule.ramp(300.0, 1.0, until=0.5), stop_at=0.5),
    ),
    optimizer=dataclasses.replace(paper.optimizer, weight_decay=0.01),
)
"""VLM3D as its authors' configuration says, which differs from the text.

Eight views for a quarter of the steps and then four, 64 px and then 256, the reconstruction loss
with a rescale of 0.5, noise annealed over 8,000 of 20,000 steps, lambda from 300 to 1 over half of
the run and no reward after that, shading from a quarter on, a negative prompt, weight decay, and
the line ends of their question; the VLM's pixels are not clamped after its processor's resize.
docs/presets.md lists what differs.
"""


mvdream = Preset(
    steps=10_000,
    camera=dataclasses.replace(
        paper.camera,
        n_groups=Schedule.steps(2, (0.5, 1)),
        resolution=Schedule.steps(64, (0.5, 256)),
    ),
    fields=scale_fields(orientation=Schedule.ramp(10.0, 1000.0, until=0.5), shading_start=0.5),
    score_distillation=dataclasses.replace(
        release.score_distillation,
        t_min=Schedule.ramp(0.98, 0.02, until=0.8),
        t_max=Schedule.ramp(0.98, 0.5, until=0.8),
    ),
    vlm=dataclasses.replace(paper.vlm, weighting=WeightingConfig()),
    uses_vlm=False,
    optimizer=release.optimizer,
)
"""MVDream (Shi et al., 2023) without a reward, as its authors' configuration says.

Eight views of 64 px for half of the steps and then four of 256 px with shading, the reconstruction
loss with a rescale of 0.5, noise annealed over 80 % of the run. A VLM, where one is named, weighs
lambda 1.
"""
