"""VLM3D: text-to-3D by score distillation and the reward of a vision-language model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmreward_3d import presets
    from vlmreward_3d.cameras import Cameras
    from vlmreward_3d.config import (
        CameraConfig,
        DenseGridConfig,
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

_MODULES = {
    "Cameras": "cameras",
    "DivergenceError": "errors",
    "Schedule": "schedule",
    "StepReport": "vlm3d",
    "VLM3D": "vlm3d",
    "CameraConfig": "config",
    "DenseGridConfig": "config",
    "GaussiansConfig": "config",
    "HashGridConfig": "config",
    "OccupancyConfig": "config",
    "OptimizerConfig": "config",
    "RaySamplingConfig": "config",
    "RecoveryConfig": "config",
    "RegularizerConfig": "config",
    "ScoreDistillationConfig": "config",
    "ShadingConfig": "config",
    "VLM3DConfig": "config",
    "VLMConfig": "config",
    "WeightingConfig": "config",
    "load_guidances": "guidance",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    """Import on first use, so that nothing loads diffusers before it is needed."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _MODULES:
        return import_module(f"{__name__}.{name}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
