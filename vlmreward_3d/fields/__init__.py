"""Fields: differentiable representations of an object, with their rendering."""

from vlmreward_3d.fields.base import Field, VolumeRepresentation
from vlmreward_3d.fields.dense_grid import DenseGrid
from vlmreward_3d.fields.factory import build_field
from vlmreward_3d.fields.gaussians import GaussianField
from vlmreward_3d.fields.hash_grid import HashGrid
from vlmreward_3d.fields.volume import VolumeField

__all__ = [
    "DenseGrid",
    "Field",
    "GaussianField",
    "HashGrid",
    "VolumeField",
    "VolumeRepresentation",
    "build_field",
]
