"""Presets that render the latents of Stable Diffusion: SJC and Latent-NeRF."""

from __future__ import annotations

import dataclasses
from typing import cast

from vlmreward_3d.config import (
    DenseGridConfig,
    LatentRenderingConfig,
    OccupancyConfig,
    OptimizerConfig,
    RaySamplingConfig,
    RecoveryConfig,
    RegularizerConfig,
    VolumeConfig,
)
from vlmreward_3d.config.preset import Preset
from vlmreward_3d.presets._fields import scale_fields
from vlmreward_3d.presets.single_view import dreamfusion
from vlmreward_3d.schedule import Schedule

__all__ = ["latent_nerf", "sjc"]


sjc = Preset(
    steps=10_000,
    camera=dreamfusion.camera,
    fields={
        "dense_grid": DenseGridConfig(
            resolutions=(100,),
            blob_density=0.0,
            density_bias=-1.0,
            learned_gain=True,
            rays=RaySamplingConfig(samples_per_ray=300, rays_per_chunk=16384),
            occupancy=OccupancyConfig(threshold=0.0),
            latents=LatentRenderingConfig(),
            emptiness_weight=Schedule.steps(1e4, (0.5, 2e5)),
            emptiness_scale=10.0,
        )
    },
    score_distillation=dataclasses.replace(
        dreamfusion.score_distillation,
        rule="sjc",
        t_min=Schedule.constant(0.01),
        t_max=Schedule.constant(0.97),
    ),
    vlm=dreamfusion.vlm,
    uses_vlm=False,
    optimizer=OptimizerConfig(
        name="adamax", learning_rate=Schedule.constant(0.05), betas=(0.9, 0.999), eps=1e-8
    ),
    recovery=RecoveryConfig(patience=1000),
)
"""Score Jacobian chaining (Wang et al., 2023), as its authors' code and threestudio say.

A voxel grid of 100 nodes a side with the latents of Stable Diffusion, which begins as haze
everywhere; its rule with a guidance of 100, t ~ U(0.01, 0.97), one view of 64 x 64 latents a step,
its side said in the prompt, Adamax, and the emptiness loss, twenty times as strong in the second
half. Haze is no failure before 1,000 steps in a row. A VLM, where one is named, weighs lambda 1.
docs/presets.md lists what differs.
"""


def _learning_rate(stages: int, warm_up: float, pieces: int = 10) -> Schedule:
    """In each stage from 0.001 to 0.01 in a line, and back exponentially, in straight pieces.

    Args:
        stages: Equally long stages of the run.
        warm_up: Share of a stage that the rise takes.
        pieces: Pieces of each exponential; with 10 the lines are within 0.7 % of it.
    """
    shares = [warm_up + (1 - warm_up) * i / pieces for i in range(pieces + 1)]
    stage = [(0.0, 1e-3), *((at, 0.01 * 10 ** (-i / pieces)) for i, at in enumerate(shares))]
    points = [((first + at) / stages, rate) for first in range(stages) for at, rate in stage]
    return Schedule(tuple(points))


def _of_latents(kind: str, *, refine_at: float) -> VolumeConfig:
    field = cast(VolumeConfig, scale_fields(orientation=Schedule.constant(0))[kind])
    return dataclasses.replace(field, latents=LatentRenderingConfig(refine_at=refine_at))


latent_nerf = Preset(
    steps=20_000,
    camera=dreamfusion.camera,
    fields={kind: _of_latents(kind, refine_at=0.5) for kind in ("dense_grid", "hash_grid")},
    score_distillation=dreamfusion.score_distillation,
    vlm=dreamfusion.vlm,
    uses_vlm=False,
    optimizer=OptimizerConfig(learning_rate=_learning_rate(2, warm_up=0.01)),
    regularizers=RegularizerConfig(sparsity_weight=Schedule.constant(5e-4)),
)
"""Latent-NeRF (Metzer et al., 2023) without a shape, as threestudio's two configurations say.

SDS with a guidance of 100 on rendered latents for half of the run, t ~ U(0.02, 0.98), one view of
64 x 64 a step, its side said in the prompt; then on RGB of as many pixels, decoded from the latents
by a matrix that is trained too, through the encoder. Learning rate and optimizer begin anew there.
A VLM, where one is named, weighs lambda 1. docs/presets.md lists what differs.
"""
