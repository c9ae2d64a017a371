"""Guidances: models that evaluate rendered views and return gradients at their pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmreward.utils.lazy import lazy_names

if TYPE_CHECKING:
    from vlmreward_3d.guidance.base import Denoiser, Guidance, GuidanceOutput
    from vlmreward_3d.guidance.image_reward import ImageRewardGuidance
    from vlmreward_3d.guidance.loading import (
        build_guidances,
        load_denoiser,
        load_guidance,
        load_guidances,
        load_reward,
    )
    from vlmreward_3d.guidance.sds import ScoreDistillation
    from vlmreward_3d.guidance.vlm import VLMGuidance
    from vlmreward_3d.guidance.weighting import GuidanceSum, WeightedGuidance

__all__ = [
    "Denoiser",
    "Guidance",
    "GuidanceOutput",
    "GuidanceSum",
    "ImageRewardGuidance",
    "ScoreDistillation",
    "VLMGuidance",
    "WeightedGuidance",
    "build_guidances",
    "load_denoiser",
    "load_guidance",
    "load_guidances",
    "load_reward",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Denoiser": "base",
        "Guidance": "base",
        "GuidanceOutput": "base",
        "GuidanceSum": "weighting",
        "ImageRewardGuidance": "image_reward",
        "ScoreDistillation": "sds",
        "VLMGuidance": "vlm",
        "WeightedGuidance": "weighting",
        "build_guidances": "loading",
        "load_denoiser": "loading",
        "load_guidance": "loading",
        "load_guidances": "loading",
        "load_reward": "loading",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
