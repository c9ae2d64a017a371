"""Cameras against hand-computed geometry."""

import math

import pytest
import torch
from torch.testing import assert_close

from vlmreward_3d.cameras import Cameras, look_at, orbit, sample_rings

BLOCKS = {"fov_deg": (30.0, 45.0), "elevation_deg": (0.0, 30.0), "scale": (0.8, 1.0)}


def test_azimuth_zero_stands_on_x_and_sees_y_to_the_right():
    camera = orbit(0.0, 0.0, 3.0, 40.0)
    expected = [[0.0, 0, 1, 3], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert_close(camera.c2w[0], torch.tensor(expected))
    assert_close(camera.fov, torch.tensor([math.radians(40)]))


def test_azimuth_grows_counter_clockwise_and_elevation_upwards():
    positions = orbit(torch.tensor([90.0, 180.0, 0.0]), torch.tensor([0.0, 0, 30]), 2.0, 40.0)
    expected = torch.tensor([[0.0, 2, 0], [-2, 0, 0], [math.sqrt(3), 0, 1]])
    assert_close(positions.positions, expected, atol=1e-6, rtol=0)


def test_rotations_are_proper_even_from_straight_above():
    eyes = torch.tensor([[0.0, 0, 2], [0, 0, -2], [1, 2, 3]], dtype=torch.float64)
    rotation = look_at(eyes)[:, :3, :3]
    identity = torch.eye(3, dtype=torch.float64).expand(3, 3, 3)
    assert_close(rotation @ rotation.mT, identity)
    assert_close(torch.linalg.det(rotation), torch.ones(3, dtype=torch.float64))


def test_rays_project_back_to_pixel_centres():
    cameras = orbit(torch.tensor([10.0, 200.0], dtype=torch.float64), 25.0, 3.0, 37.0)
    height, width = 6, 10
    origins, directions = cameras.rays(height, width)
    assert_close(directions.norm(dim=-1), torch.ones(2, height, width, dtype=torch.float64))
    points = origins + 2.7 * directions
    local = torch.einsum(
        "nji,nhwj->nhwi", cameras.c2w[:, :3, :3], points - cameras.positions[:, None, None]
    )
    focal = 0.5 * height / math.tan(math.radians(37) / 2)
    column = focal * local[..., 0] / -local[..., 2] + width / 2
    row = -focal * local[..., 1] / -local[..., 2] + height / 2
    assert_close(column, (torch.arange(width) + 0.5).double().expand(2, height, width))
    assert_close(row, (torch.arange(height) + 0.5).double()[:, None].expand(2, height, width))


def test_condition_has_the_position_at_unit_length_and_leaves_the_camera_alone():
    cameras = orbit(30.0, 20.0, 4.0, 40.0)
    condition = cameras.condition().reshape(1, 4, 4)
    assert_close(condition[0, :3, 3].norm(), torch.tensor(1.0))
    assert_close(condition[:, :3, :3], cameras.c2w[:, :3, :3])
    assert_close(cameras.positions.norm(dim=-1), torch.tensor([4.0]))


def test_rings_share_everything_but_the_azimuth():
    cameras = sample_rings(3, 4, generator=torch.Generator().manual_seed(0), **BLOCKS)
    position = cameras.positions.reshape(3, 4, 3)
    azimuth = torch.rad2deg(torch.atan2(position[..., 1], position[..., 0]))
    steps = (azimuth.roll(-1, dims=1) - azimuth) % 360
    assert_close(steps, torch.full((3, 4), 90.0), atol=1e-3, rtol=0)
    for shared in (position[..., 2], position.norm(dim=-1), cameras.fov.reshape(3, 4)):
        assert_close(shared, shared[:, :1].expand(3, 4))
        assert len(shared[:, 0].unique()) == 3
    size = position.norm(dim=-1) * torch.tan(cameras.fov.reshape(3, 4) / 2)
    assert size.min() >= 0.8
    assert size.max() <= 1.0


def test_the_generator_decides():
    one = sample_rings(2, 4, generator=torch.Generator().manual_seed(5), **BLOCKS)
    two = sample_rings(2, 4, generator=torch.Generator().manual_seed(5), **BLOCKS)
    other = sample_rings(2, 4, generator=torch.Generator().manual_seed(6), **BLOCKS)
    assert torch.equal(one.c2w, two.c2w)
    assert not torch.equal(one.c2w, other.c2w)


def test_turntable_closes_the_circle():
    cameras = Cameras.turntable(8, elevation=0, distance=2.0, fov=40)
    assert_close(cameras.positions[2], torch.tensor([0.0, 2, 0]), atol=1e-6, rtol=0)
    assert_close(cameras.positions.sum(0), torch.zeros(3), atol=1e-5, rtol=0)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"received c2w \(4, 4\).*expected \(N, 4, 4\)"):
        Cameras(torch.eye(4), torch.ones(1))
