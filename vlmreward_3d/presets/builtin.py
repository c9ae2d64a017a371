"""The preset of the built-in models, and other presets' methods with these models."""

from __future__ import annotations

import dataclasses
from typing import cast

from vlmreward_3d.config import (
    CameraConfig,
    DenseGridConfig,
    GaussiansConfig,
    OptimizerConfig,
    RaySamplingConfig,
    RegularizerConfig,
    ScoreDistillationConfig,
    VLMConfig,
    WeightingConfig,
)
from vlmreward_3d.config.preset import Preset
from vlmreward_3d.presets._fields import volumes
from vlmreward_3d.schedule import Schedule

__all__ = ["blocks", "with_builtin_models"]


blocks = Preset(
    steps=300,
    camera=CameraConfig(
        fov_deg=(30.0, 45.0),
        elevation_deg=(5.0, 40.0),
        object_radius=(0.8, 1.0),
        background="gray",
    ),
    fields=volumes(
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
        objective="log-probability",
        weighting=WeightingConfig(
            weight=Schedule.ramp(300.0, 0.0, until=2 / 3), max_grad_ratio=0.25
        ),
    ),
    optimizer=OptimizerConfig(learning_rate=Schedule(((0.0, 0.05), (0.7, 0.05), (1.0, 0.01)))),
    regularizers=RegularizerConfig(
        sparsity_weight=Schedule.ramp(0.0, 200.0, until=0.5),
        entropy_weight=Schedule.ramp(0.0, 60.0),
    ),
)
"""The built-in models on a laptop CPU.

As in the paper: Algorithm 1, the selected question, lambda falling from 300 over the first two
thirds (10,000 of 15,000 steps there), noise annealed as in the authors' release.

Different from the paper, because the models are small and work in pixels: 4 views of 64 px,
hundreds of steps, cameras and gray backgrounds that the denoiser was trained on, albedo without
shading, a dense field that begins with ten times the density of the presets at scale, for crisp
surfaces after few steps. The reward is kept small: this denoiser knows its world, and whatever the
VLM adds to it shows as roughness. Lambda times the reward's gradient stays within a quarter of the
score-distillation gradient's norm at the pixels (`max_grad_ratio`), the objective is log P(Yes),
which rests where the answer is Yes, and lambda ends at 0 in place of 1. (The paper's 300 weighs
against sums over 4 x 32 x 32 latents of Stable Diffusion.) For a denoiser that is wrong,
docs/text_to_3d.md has flags that let the VLM decide. Against the haze that a denoiser on gray
backgrounds leaves, regularizers push opacities to be few, and each to be 0 or 1.
"""


def with_builtin_models(preset: Preset) -> Preset:
    """The method of a preset at paper scale, at the size of `blocks`, for a laptop CPU.

    Of the preset: the distillation rule and its noise levels, the rescaling, the selection of
    noises, the kind of its field, the growth of Gaussians, and the VLM's question, objective and
    weighting. Of `blocks`: everything else, with a guidance of at most 4, which is the scale that
    the built-in denoisers need. Where the preset renders one view a group, the denoiser is
    `builtin/single-view`, which knows no words for the sides of an object. Lambda times the VLM's
    gradient stays within the norm of score distillation's: a lambda for the latents of a large
    model means nothing for pixels.

    Args:
        preset: A preset of `vlmreward_3d.presets`; `blocks` is returned as it is.

    Raises:
        ValueError: The method needs what no built-in model has: latents, an adapter, or the weights
            of a learnt reward.
    """
    if preset is blocks:
        return preset
    kind, field = next(iter(preset.fields.items()))
    own = preset.score_distillation
    for needed, what in (
        (getattr(field, "latents", None) is not None, "latents"),
        (own.adapter is not None, "an adapter of Stable Diffusion"),
        (bool(preset.further_guidances), "the weights of a learnt reward"),
    ):
        if needed:
            raise ValueError(
                f"received a preset that needs {what}; expected one whose method the built-in "
                "models can serve: these have none"
            )
    fields = {kind: blocks.fields[kind], **blocks.fields}
    if (growth := getattr(field, "densification", None)) is not None:
        gaussians = cast(GaussiansConfig, blocks.fields[kind])
        fields[kind] = dataclasses.replace(gaussians, densification=growth)
    several = preset.camera.views_per_group > 1
    return dataclasses.replace(
        blocks,
        fields=fields,
        score_distillation=dataclasses.replace(
            own,
            denoiser="builtin/blocks" if several else "builtin/single-view",
            negative_prompt="",
            view_prompts=False,
            guidance_scale=min(own.guidance_scale, blocks.score_distillation.guidance_scale),
        ),
        vlm=dataclasses.replace(
            preset.vlm,
            model=blocks.vlm.model,
            resolution=blocks.vlm.resolution,
            weighting=dataclasses.replace(preset.vlm.weighting, max_grad_ratio=1.0),
        ),
        uses_vlm=preset.uses_vlm,
    )
