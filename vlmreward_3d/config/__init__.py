"""The settings of a run: frozen, validated records that nest in `VLM3DConfig`."""

from vlmreward_3d.config.camera import ELEVATIONS, CameraConfig
from vlmreward_3d.config.densification import (
    DENSIFICATIONS,
    SIZE_MEASURES,
    DensificationConfig,
)
from vlmreward_3d.config.fields import (
    FIELDS,
    DenseGridConfig,
    FieldConfig,
    GaussiansConfig,
    HashGridConfig,
    OccupancyConfig,
    RaySamplingConfig,
    ShadingConfig,
    VolumeConfig,
)
from vlmreward_3d.config.guidance import (
    PRECISIONS,
    RANKINGS,
    GuidanceConfig,
    NoiseSelectionConfig,
    ScoreDistillationConfig,
    StudentConfig,
    WeightingConfig,
)
from vlmreward_3d.config.optimization import OptimizerConfig, RecoveryConfig, RegularizerConfig
from vlmreward_3d.config.run import VLM3DConfig
from vlmreward_3d.config.vlm import OBJECTIVES, PIXEL_MODES, VLMConfig

__all__ = [
    "DENSIFICATIONS",
    "ELEVATIONS",
    "FIELDS",
    "OBJECTIVES",
    "PIXEL_MODES",
    "PRECISIONS",
    "RANKINGS",
    "SIZE_MEASURES",
    "CameraConfig",
    "DenseGridConfig",
    "DensificationConfig",
    "FieldConfig",
    "GaussiansConfig",
    "GuidanceConfig",
    "HashGridConfig",
    "NoiseSelectionConfig",
    "OccupancyConfig",
    "OptimizerConfig",
    "RaySamplingConfig",
    "RecoveryConfig",
    "RegularizerConfig",
    "ScoreDistillationConfig",
    "ShadingConfig",
    "StudentConfig",
    "VLM3DConfig",
    "VLMConfig",
    "VolumeConfig",
    "WeightingConfig",
]
