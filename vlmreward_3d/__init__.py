"""VLM3D: text-to-3D by score distillation and the reward of a vision-language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmreward.utils.lazy import lazy_names

if TYPE_CHECKING:
    from vlmreward_3d import presets
    from vlmreward_3d.cameras import Cameras
    from vlmreward_3d.config import (
        CameraConfig,
        DenseGridConfig,
        DensificationConfig,
        GaussiansConfig,
        HashGridConfig,
        OccupancyConfig,
        OptimizerConfig,
        RaySamplingConfig,
        RecoveryConfig,
        RegularizerConfig,
        ScoreDistillationConfig,
        ShadingConfig,
        VLM3DConfig,
        VLMConfig,
        WeightingConfig,
    )
    from vlmreward_3d.guidance import load_guidances
    from vlmreward_3d.schedule import Schedule
    from vlmreward_3d.vlm3d import VLM3D, DivergenceError, StepReport

__all__ = [
    "VLM3D",
    "CameraConfig",
    "Cameras",
    "DenseGridConfig",
    "DensificationConfig",
    "DivergenceError",
    "GaussiansConfig",
    "HashGridConfig",
    "OccupancyConfig",
    "OptimizerConfig",
    "RaySamplingConfig",
    "RecoveryConfig",
    "RegularizerConfig",
    "Schedule",
    "ScoreDistillationConfig",
    "ShadingConfig",
    "StepReport",
    "VLM3DConfig",
    "VLMConfig",
    "WeightingConfig",
    "load_guidances",
    "presets",
]

__getattr__ = lazy_names(
    __name__,
    {
        "CameraConfig": "config",
        "Cameras": "cameras",
        "DenseGridConfig": "config",
        "DensificationConfig": "config",
        "DivergenceError": "errors",
        "GaussiansConfig": "config",
        "HashGridConfig": "config",
        "OccupancyConfig": "config",
        "OptimizerConfig": "config",
        "RaySamplingConfig": "config",
        "RecoveryConfig": "config",
        "RegularizerConfig": "config",
        "Schedule": "schedule",
        "ScoreDistillationConfig": "config",
        "ShadingConfig": "config",
        "StepReport": "vlm3d",
        "VLM3D": "vlm3d",
        "VLM3DConfig": "config",
        "VLMConfig": "config",
        "WeightingConfig": "config",
        "load_guidances": "guidance",
        "presets": "",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
