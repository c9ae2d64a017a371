"""The preset of DreamReward: MVDream, with Reward3D in the last two fifths of the run."""

from __future__ import annotations

import dataclasses

from vlmreward_3d.config import Reward3DConfig, WeightingConfig
from vlmreward_3d.presets._fields import scale_fields
from vlmreward_3d.presets.multi_view import mvdream
from vlmreward_3d.schedule import Schedule

__all__ = ["dreamreward"]


dreamreward = dataclasses.replace(
    mvdream,
    fields=scale_fields(orientation=Schedule.constant(0)),
    score_distillation=dataclasses.replace(
        mvdream.score_distillation, weighting=WeightingConfig(stop_at=0.98)
    ),
    further_guidances=(Reward3DConfig(weighting=WeightingConfig(start_at=0.6, grad_ratio=0.6)),),
)
"""DreamReward (Ye et al., 2024), as its authors' first configuration says.

MVDream's reconstruction loss without shading and orientation loss; from three fifths of the run on
max(0, 4 - Reward3D) of each group of four views, whose gradient at the pixels has 0.6 times the
norm of the denoiser's, and in the last fiftieth nothing else. docs/presets.md lists what differs.
"""
