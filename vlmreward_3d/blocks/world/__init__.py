"""The built-in world: scenes, captions, questions and a ray caster that renders them."""

from vlmreward_3d.blocks.world.augment import augment_and_composite
from vlmreward_3d.blocks.world.captions import known_words
from vlmreward_3d.blocks.world.compositions import sample_composition
from vlmreward_3d.blocks.world.dataset import (
    BlocksData,
    load_dataset,
    render_dataset,
    sample_cameras,
)
from vlmreward_3d.blocks.world.descriptions import caption
from vlmreward_3d.blocks.world.ground_truth import facts_of
from vlmreward_3d.blocks.world.questions import QuestionSampler
from vlmreward_3d.blocks.world.raycast import raycast
from vlmreward_3d.blocks.world.scenes import COLORS, SHAPES, Scene, SceneObject, sample_scene
from vlmreward_3d.blocks.world.solids import Primitive, solids

__all__ = [
    "COLORS",
    "SHAPES",
    "BlocksData",
    "Primitive",
    "QuestionSampler",
    "Scene",
    "SceneObject",
    "augment_and_composite",
    "caption",
    "facts_of",
    "known_words",
    "load_dataset",
    "raycast",
    "render_dataset",
    "sample_cameras",
    "sample_composition",
    "sample_scene",
    "solids",
]
