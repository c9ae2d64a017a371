"""The judge of compositions without learning: prompts are read, and clean scenes recognized."""

import math

import numpy as np
import pytest
from caption_templates import CaptionTemplates, colored, descriptions, overlap, placed, scene_of
from template_reader import cameras_of_runs, on_white

from vlmreward_3d.blocks.world.compositions import KINDS, sample_composition
from vlmreward_3d.blocks.world.descriptions import caption, same_meaning


@pytest.fixture(scope="module")
def cameras():
    return cameras_of_runs(4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_is_read_as_the_scene_that_it_describes(kind):
    rng = np.random.default_rng(1)
    for _ in range(40):
        drawn = sample_composition(rng, kind)
        for said in (caption(drawn), caption(drawn, rng)):
            read = scene_of(said)
            assert same_meaning(read, drawn)
            assert (read.count, read.links) == (drawn.count, drawn.links)
            assert [t.words for t in read.things] == [t.words for t in drawn.things]


def test_words_of_another_world_are_refused():
    for text in ("a red elephant", "a red cube without a handle"):
        with pytest.raises(ValueError, match="no object of the blocks world"):
            scene_of(text)


def test_descriptions_begin_with_the_prompt_and_differ_from_it():
    rng = np.random.default_rng(2)
    single = descriptions("a green mug", rng)
    assert single[0] == "a green mug"
    assert any("without a handle" in text for text in single)
    pair = descriptions("a green mug inside a red torus", rng)
    assert not any("without" in text for text in pair)
    assert len({*pair}) == len(pair) > 4
    assert not any(same_meaning(scene_of(text), scene_of(pair[0])) for text in pair[1:])


def test_a_scene_can_be_turned(cameras):
    rng = np.random.default_rng(3)
    scene = scene_of("a red cube on top of a blue sphere next to a green cone")
    straight = placed(scene, 0.0, np.random.default_rng(0))
    turned = placed(scene, math.pi / 2, np.random.default_rng(0))
    for a, b in zip(straight.things, turned.things, strict=True):
        x, y, z = a.position
        assert b.position == pytest.approx((-y, x, z))
        assert b.yaw - a.yaw == pytest.approx(math.pi / 2)
    # four cameras see after a quarter of a turn what the next one saw
    views, after = (on_white(placed(scene, t, rng), cameras) for t in (0.0, math.pi / 2))
    assert overlap(colored(views), colored(after).roll(-1, 0)[None]) > 0.8
    assert overlap(colored(views), colored(after).roll(-1, 0)[None]) > overlap(
        colored(views), colored(after)[None]
    )


@pytest.mark.parametrize(
    ("shown", "other"),
    [
        ("two red cubes", "three red cubes"),
        ("a striped blue sphere", "a dotted blue sphere"),
        (
            "a small red cube next to a large blue cube",
            "a large red cube next to a small blue cube",
        ),
        ("a green cone in front of a red chair", "a green cone behind a red chair"),
        ("a pink sphere inside a blue mug", "a pink sphere next to a blue mug"),
        ("a green mug without a handle", "a green mug"),
    ],
)
def test_what_is_shown_is_told_from_what_is_nearly_it(cameras, shown, other):
    judge = CaptionTemplates(cameras, draws=8)
    rng = np.random.default_rng(7)
    for text in (shown, other):
        views = on_white(placed(scene_of(text), 0.4, rng), cameras)
        assert judge.best(views, [shown, other]) == text
