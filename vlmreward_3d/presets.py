"""Ready-made configurations: `presets.blocks("a red cube", steps=300)` is a `VLM3DConfig`."""

from __future__ import annotations

import dataclasses
from typing import Any

from vlmreward.rewards.questions import NAMED_QUESTIONS
from vlmreward_3d.config import (
    CameraConfig,
    DenseGridConfig,
    FieldConfig,
    GaussiansConfig,
    HashGridConfig,
    OccupancyConfig,
    OptimizerConfig,
    RaySamplingConfig,
    RegularizerConfig,
    ScoreDistillationConfig,
    ShadingConfig,
    VLMConfig,
    WeightingConfig,
)
from vlmreward_3d.config.preset import QWEN, VLMS, Preset
from vlmreward_3d.schedule import Schedule

__all__ = [
    "PRESETS",
    "VLMS",
    "Preset",
    "blocks",
    "dreamfusion",
    "mvdream",
    "paper",
    "release",
]

MVDREAM = "sd-v2.1-base-4view.pt"
"""MVDream's checkpoint, by the name under which its authors publish it."""
STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
NEGATIVE = "blurry, low quality, distorted, cropped, dull colours"


def _volumes(
    dense: DenseGridConfig, *, levels: int, resolution_range: tuple[int, int], table_size: int
) -> dict[str, FieldConfig]:
    """The three kinds of fields of a preset, which share what they have in common."""
    own = ("resolutions", "tv_weight")
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


blocks = Preset(
    steps=300,
    camera=CameraConfig(
        fov_deg=(30.0, 45.0),
        elevation_deg=(5.0, 40.0),
        object_radius=(0.8, 1.0),
        background="gray",
    ),
    fields=_volumes(
        DenseGridConfig(
            resolutions=(6, 12, 24, 48),
            density_scale=10.0,
            rays=RaySamplingConfig(samples_per_ray=32),
            orientation_weight=Schedule.ramp(0.5, 5.0, until=0.5),
        ),
        levels=4,
        resolution_range=(8, 64),
        table_size=2**14,
    ),
    score_distillation=ScoreDistillationConfig(
        denoiser="builtin/blocks",
        guidance_scale=4.0,
        guidance_rescale=0.5,
        t_min=Schedule.ramp(0.98, 0.02, until=0.4),
        t_max=Schedule.ramp(0.98, 0.5, until=0.4),
    ),
    vlm=VLMConfig(
        model="builtin/blocks",
        question="paper/selected",
        weighting=WeightingConfig(
            weight=Schedule.ramp(300.0, 1.0, until=2 / 3), max_grad_ratio=1.0
        ),
    ),
    optimizer=OptimizerConfig(learning_rate=Schedule(((0.0, 0.05), (0.7, 0.05), (1.0, 0.01)))),
    regularizers=RegularizerConfig(
        sparsity_weight=Schedule.ramp(0.0, 200.0, until=0.5),
        entropy_weight=Schedule.ramp(0.0, 60.0),
    ),
)
"""The built-in models on a laptop CPU.

As in the paper: Algorithm 1, the selected question, lambda from 300 to 1 over the first two thirds
and then 1 (10,000 of 15,000 steps there), noise annealed as in the authors' release.

Different from the paper, because the models are small and work in pixels: 4 views of 64 px,
hundreds of steps, cameras and gray backgrounds that the denoiser was trained on, albedo without
shading, a dense field that begins with ten times the density of the presets at scale, for crisp
surfaces after few steps, and a limit to the reward (`max_grad_ratio`): the paper's 300 weighs
against sums over 4 x 32 x 32 latents of Stable Diffusion, and here would leave nothing of score
distillation; lambda times the reward's gradient stays within the score-distillation gradient's norm
at the pixels. Against the haze that a denoiser on gray backgrounds leaves, regularizers push
opacities to be few, and each to be 0 or 1.
"""


_SHADING = (0.25, 0.375, 0.375)


def _scale_fields(
    *, orientation_until: float, shading_start: float | None = None
) -> dict[str, FieldConfig]:
    """The fields of the presets at paper scale.

    Dense grids of up to 128 nodes a side stand where the papers have a hash grid with a small
    network, with the blob of Magic3D and of threestudio's configurations, at their density;
    occupancy-aware samples, and deferred back-propagation in chunks of rays.
    """
    start = shading_start
    return _volumes(
        DenseGridConfig(
            resolutions=(8, 16, 32, 64, 128),
            rays=RaySamplingConfig(samples_per_ray=96, rays_per_chunk=16384),
            occupancy=OccupancyConfig(resolution=64),
            shading=None if start is None else ShadingConfig(probabilities=_SHADING, start=start),
            orientation_weight=Schedule.ramp(10.0, 1000.0, until=orientation_until),
        ),
        levels=16,
        resolution_range=(16, 4096),
        table_size=2**19,
    )


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
    fields=_scale_fields(orientation_until=1 / 3),
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
    fields=_scale_fields(orientation_until=0.25, shading_start=0.25),
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
    fields=_scale_fields(orientation_until=0.5, shading_start=0.5),
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


dreamfusion = Preset(
    steps=10_000,
    camera=CameraConfig(
        views_per_group=1,
        fov_deg=(40.0, 70.0),
        elevation_deg=(-10.0, 45.0),
        elevations="threestudio",
        object_radius=(0.8, 1.0),
    ),
    fields=_scale_fields(orientation_until=0.5, shading_start=0.2001),
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


PRESETS = {
    "blocks": blocks,
    "paper": paper,
    "release": release,
    "mvdream": mvdream,
    "dreamfusion": dreamfusion,
}
"""The presets by name."""
