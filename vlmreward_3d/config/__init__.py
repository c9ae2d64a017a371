"""The settings of a run: frozen, validated records that nest in `VLM3DConfig`."""

from vlmreward_3d.config.camera import ELEVATIONS, CameraConfig
from vlmreward_3d.config.colors import LatentRenderingConfig, ShadingConfig
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
from vlmreward_3d.config.optimization import (
    OPTIMIZERS,
    OptimizerConfig,
    RecoveryConfig,
    RegularizerConfig,
)
from vlmreward_3d.config.regions import RegionConfig
from vlmreward_3d.config.reward3d import Reward3DConfig
from vlmreward_3d.config.run import VLM3DConfig
from vlmreward_3d.config.sampling import OccupancyConfig, RaySamplingConfig
from vlmreward_3d.config.vlm import OBJECTIVES, PIXEL_MODES, VLMConfig

__all__ = [
    "DENSIFICATIONS",
    "ELEVATIONS",
    "FIELDS",
    "OBJECTIVES",
    "OPTIMIZERS",
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
    "LatentRenderingConfig",
    "NoiseSelectionConfig",
    "OccupancyConfig",
    "OptimizerConfig",
    "RaySamplingConfig",
    "RecoveryConfig",
    "RegionConfig",
    "RegularizerConfig",
    "Reward3DConfig",
    "ScoreDistillationConfig",
    "ShadingConfig",
    "StudentConfig",
    "VLM3DConfig",
    "VLMConfig",
    "VolumeConfig",
    "WeightingConfig",
]
