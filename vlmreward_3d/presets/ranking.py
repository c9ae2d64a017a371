"""Presets in which a reward ranks noises, without its gradient: DreamDPO and RewardSDS."""

from __future__ import annotations

import dataclasses

from vlmreward_3d.config import NoiseSelectionConfig, VLMConfig, WeightingConfig
from vlmreward_3d.config.preset import QWEN, Preset
from vlmreward_3d.presets._fields import scale_fields
from vlmreward_3d.presets.multi_view import mvdream
from vlmreward_3d.schedule import Schedule

__all__ = ["dreamdpo", "rewardsds"]

_ORIENTATION = Schedule.ramp(10.0, 1000.0, until=0.5)
_WITHOUT_GRADIENT = VLMConfig(
    model=QWEN, question="yes-no", resolution=256, weighting=WeightingConfig(stop_at=0.0)
)


dreamdpo = Preset(
    steps=10_000,
    camera=dataclasses.replace(mvdream.camera, n_groups=Schedule.constant(1)),
    fields=scale_fields(orientation=_ORIENTATION),
    score_distillation=dataclasses.replace(
        mvdream.score_distillation,
        rule="sds",
        guidance_scale=7.5,
        guidance_rescale=0.0,
        selection=NoiseSelectionConfig(n_candidates=2, stop_at=1.0, ranking="preference"),
    ),
    vlm=_WITHOUT_GRADIENT,
    optimizer=mvdream.optimizer,
)
"""DreamDPO (Zhou et al., 2025) with a VLM as its reward, as its authors' configuration says.

Two noises a step at a guidance of 7.5: the gradient of the one that the VLM prefers, less that of
the other one without guidance. Four views of 64 px for half of the steps and then of 256 px, no
shading, and noise, orientation loss and optimizer as in MVDream. docs/presets.md lists what
differs.
"""


rewardsds = dataclasses.replace(
    mvdream,
    score_distillation=dataclasses.replace(
        mvdream.score_distillation,
        selection=NoiseSelectionConfig(n_candidates=7, stop_at=0.7, ranking="min-max"),
    ),
    vlm=_WITHOUT_GRADIENT,
    uses_vlm=True,
)
"""RewardSDS (Chachy et al., 2025) with a VLM as its reward, as its authors' configuration says.

MVDream, and in the first 70 % of the steps seven noises at each: 0.9 times the mean gradient of the
two that the VLM likes best, less 0.1 times that of the two that it likes least. docs/presets.md
lists what differs.
"""
