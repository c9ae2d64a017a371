"""Schedules against the paper's numbers and hand-computed ones."""

import pytest

from vlmreward_3d.presets import paper
from vlmreward_3d.schedule import Schedule


def test_the_paper_s_weight_scales_with_the_length():
    weight = paper("a red cube", steps=600).vlm.weighting.weight
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


def test_steps_are_constant_between_jumps():
    schedule = Schedule.steps(64, (0.25, 128), (0.5, 256), (0.75, 256))
    values = [schedule(p) for p in (0.0, 0.2499, 0.25, 0.4999, 0.5, 0.9, 1.0)]
    assert values == [64, 64, 128, 128, 256, 256, 256]
    assert schedule.is_stepwise
    assert schedule.jumps == (0.25, 0.5)
    assert str(schedule) == "64, then 128 from 25% on, then 256 from 50% on"


def test_a_jump_may_be_at_either_end():
    assert Schedule.steps(1, (0.0, 2))(0.0) == 2
    assert [Schedule.steps(1, (1.0, 2))(p) for p in (0.9999, 1.0)] == [1, 2]


def test_ramps_are_no_steps():
    ramp = Schedule.ramp(300, 1, until=2 / 3)
    assert not ramp.is_stepwise
    assert ramp.jumps == ()
    assert str(ramp) == "300 at 0%, 1 at 67%"
    assert Schedule.constant(2).is_stepwise
    assert str(Schedule.constant(2)) == "2"


@pytest.mark.parametrize("later", [((0.5, 1), (0.2, 2)), ((1.5, 1),), ((-0.5, 1),)])
def test_steps_outside_the_run_are_refused(later):
    with pytest.raises(ValueError, match=r"expected \(progress, value\) pairs"):
        Schedule.steps(1, *later)


def test_another_ending_keeps_what_comes_before():
    assert Schedule.constant(0.9).ending(0.1) == Schedule(((0.0, 0.9), (1.0, 0.1)))
    assert Schedule.ramp(0.9, 0.5).ending(0.1) == Schedule(((0.0, 0.9), (1.0, 0.1)))
    annealed = Schedule.ramp(0.98, 0.5, until=0.4).ending(0.2)
    assert [round(annealed(p), 6) for p in (0, 0.2, 0.4, 0.7, 1)] == [0.98, 0.74, 0.5, 0.35, 0.2]
