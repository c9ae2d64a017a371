"""Schedules against the paper's numbers and hand-computed ones."""

import pytest

from vlmreward_3d.presets import blocks
from vlmreward_3d.schedule import Schedule


def test_the_paper_s_weight_scales_with_the_length():
    weight = blocks("a red cube", steps=600).vlm_weight
    assert weight(0) == 300
    assert weight(200 / 600) == pytest.approx(150.5)
    assert weight(400 / 600) == 1
    assert weight(599 / 600) == 1


def test_pieces_are_linear_and_the_ends_constant():
    schedule = Schedule(((0.25, 2.0), (0.5, 4.0), (1.0, 0.0)))
    values = [schedule(p) for p in (0.0, 0.25, 0.375, 0.5, 0.75, 1.0)]
    assert values == [2.0, 2.0, 3.0, 4.0, 2.0, 0.0]


def test_two_points_at_one_place_jump():
    schedule = Schedule(((0.0, 1.0), (0.5, 1.0), (0.5, 7.0)))
    assert schedule(0.4999) == 1.0
    assert schedule(0.5) == 7.0


@pytest.mark.parametrize(
    "points", [(), ((0.5, 1.0), (0.2, 1.0)), ((-0.1, 1.0),), ((0.0, 1.0), (10000, 1.0))]
)
def test_points_outside_the_run_are_refused(points):
    with pytest.raises(ValueError, match=r"expected \(progress, value\) pairs"):
        Schedule(points)
