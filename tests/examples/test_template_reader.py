"""The judge without learning reads scenes whose truth is known."""

import numpy as np
import pytest
import torch
from judge import target
from template_reader import SIDE, TemplateReader, cameras_of_runs, on_white

from vlmreward_3d.blocks.world.scenes import Scene, SceneObject, arrange

SHAPES = ("sphere", "cube", "cone")


@pytest.fixture(scope="module")
def reader():
    return TemplateReader(cameras_of_runs(4), SHAPES)


def seen(reader, relation, *words, size=0.36):
    rng = np.random.default_rng(1)
    things = [SceneObject(shape, color, size, yaw=0.15) for color, shape in words]
    scene = Scene(arrange(things, relation, rng), relation, seed=5)
    return on_white(scene, reader.cameras)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("color", ["red", "cyan", "pink", "yellow"])
def test_single_objects_are_read(reader, color, shape):
    images = seen(reader, None, (color, shape), size=0.55)
    assert reader.read(images) == target(None, [(color, shape)])


@pytest.mark.parametrize("relation", ["on top of", "next to"])
@pytest.mark.parametrize("pair", [("cube", "sphere"), ("sphere", "cube"), ("cone", "cube")])
def test_pairs_are_read_with_their_binding_and_order(reader, relation, pair):
    for colors in (("red", "blue"), ("blue", "red"), ("green", "orange")):
        words = list(zip(colors, pair))
        assert reader.read(seen(reader, relation, *words)) == target(relation, words)


def test_where_it_stands_and_how_large_it_is_does_not_matter(reader):
    images = seen(reader, "on top of", ("red", "cube"), ("blue", "sphere"), size=0.3)
    moved = images.roll((3, -4), (2, 3))
    expected = target("on top of", [("red", "cube"), ("blue", "sphere")])
    assert reader.read(images) == reader.read(moved) == expected


def test_nothing_is_read_where_nothing_is(reader):
    assert reader.read(torch.ones(4, 3, SIDE, SIDE)) is None
    assert reader.read(torch.full((4, 3, SIDE, SIDE), 0.5)) is None
