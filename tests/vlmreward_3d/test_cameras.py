"""Cameras against hand-computed geometry."""

import math

import pytest
import torch
from torch.testing import assert_close

from vlmreward_3d.cameras import Cameras, look_at, orbit, sample_groups

BLOCKS = {"fov_deg": (30.0, 45.0), "elevation_deg": (0.0, 30.0), "object_radius": (0.8, 1.0)}


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


def test_rays_project_back_to_pixel_centers():
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


def test_rays_of_an_orthographic_camera_are_parallel_and_fill_the_plane_at_the_origin():
    cameras = orbit(
        torch.tensor([10.0, 200.0], dtype=torch.float64), 25.0, 3.0, 37.0, projection="orthographic"
    )
    height, width = 6, 10
    origins, directions = cameras.rays(height, width)
    forward = -torch.nn.functional.normalize(cameras.positions, dim=-1)
    assert_close(directions, forward[:, None, None].expand_as(directions))
    points = origins + 2.7 * directions
    local = torch.einsum(
        "nji,nhwj->nhwi", cameras.c2w[:, :3, :3], points - cameras.positions[:, None, None]
    )
    half = 3.0 * math.tan(math.radians(37) / 2)
    assert_close(cameras.half_heights, torch.full((2,), half).double())
    column = local[..., 0] / half * height / 2 + width / 2
    row = -local[..., 1] / half * height / 2 + height / 2
    assert_close(column, (torch.arange(width) + 0.5).double().expand(2, height, width))
    assert_close(row, (torch.arange(height) + 0.5).double()[:, None].expand(2, height, width))


def test_a_projection_stays_with_parts_and_copies():
    cameras = orbit(torch.tensor([0.0, 90.0]), 0.0, 3.0, 40.0, projection="orthographic")
    assert cameras[1:].projection == cameras.to(torch.float64).projection == "orthographic"
    with pytest.raises(ValueError, match="projection='fisheye'; expected one of"):
        orbit(0.0, 0.0, 3.0, 40.0, projection="fisheye")


def test_groups_of_fixed_azimuths_and_orthographic_pictures():
    generator = torch.Generator().manual_seed(0)
    azimuths = (0.0, 45.0, 180.0)
    options = {"azimuth_deg": azimuths, "projection": "orthographic", "generator": generator}
    cameras = sample_groups(2, 3, **options, **BLOCKS)
    assert_close(cameras.angles()[:, 0].abs(), torch.tensor([*azimuths, *azimuths]))
    radius = cameras.half_heights.view(2, 3)
    assert_close(radius, radius[:, :1].expand(2, 3))
    assert (radius >= 0.8).all()
    assert (radius <= 1.0).all()
    assert radius[0, 0] != radius[1, 0]
    with pytest.raises(ValueError, match="3 azimuths for groups of 4 views; expected one a view"):
        sample_groups(1, 4, azimuth_deg=azimuths, **BLOCKS)


def test_condition_has_the_position_at_unit_length_and_leaves_the_camera_alone():
    cameras = orbit(30.0, 20.0, 4.0, 40.0)
    condition = cameras.condition().reshape(1, 4, 4)
    assert_close(condition[0, :3, 3].norm(), torch.tensor(1.0))
    assert_close(condition[:, :3, :3], cameras.c2w[:, :3, :3])
    assert_close(cameras.positions.norm(dim=-1), torch.tensor([4.0]))


def test_rings_share_everything_but_the_azimuth():
    cameras = sample_groups(3, 4, generator=torch.Generator().manual_seed(0), **BLOCKS)
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
    one = sample_groups(2, 4, generator=torch.Generator().manual_seed(5), **BLOCKS)
    two = sample_groups(2, 4, generator=torch.Generator().manual_seed(5), **BLOCKS)
    other = sample_groups(2, 4, generator=torch.Generator().manual_seed(6), **BLOCKS)
    assert torch.equal(one.c2w, two.c2w)
    assert not torch.equal(one.c2w, other.c2w)


def elevations(kind: str, rings: int, seed: int, bounds=(0.0, 30.0)) -> torch.Tensor:
    """The elevation of each ring of one call, degrees."""
    cameras = sample_groups(
        rings,
        2,
        fov_deg=(40.0, 40.0),
        elevation_deg=bounds,
        object_radius=(1.0, 1.0),
        elevations=kind,
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.float64,
    )
    outward = torch.nn.functional.normalize(cameras.positions[::2], dim=-1)
    return torch.rad2deg(torch.asin(outward[:, 2]))


def distance(sample: torch.Tensor, cdf) -> float:
    """Kolmogorov's: the largest one between the empirical distribution and a closed form."""
    ordered = sample.sort().values
    steps = torch.arange(len(ordered) + 1, dtype=torch.float64) / len(ordered)
    expected = cdf(ordered)
    return max(float((steps[1:] - expected).max()), float((expected - steps[:-1]).max()))


RANGES = {"mvdream": (0.0, 30.0), "threestudio": (-10.0, 45.0)}


def sines(kind: str, lo: float, hi: float) -> tuple[float, float]:
    if kind == "mvdream":
        return lo / 90, hi / 90
    return math.sin(math.radians(lo)), math.sin(math.radians(hi))


@pytest.mark.parametrize(("kind", "bounds"), RANGES.items())
def test_half_of_the_calls_take_elevations_with_a_uniform_sine(kind, bounds):
    lo, hi = bounds
    first, last = sines(kind, lo, hi)

    def even(x):
        return (x - lo) / (hi - lo)

    def sine(x):
        return ((torch.sin(torch.deg2rad(x)) - first) / (last - first)).clamp(0, 1)

    # the coin is thrown once for all rings of a call: each call follows one of the two alone
    calls = [elevations(kind, 2000, seed, bounds) for seed in range(60)]
    by_sine = [call for call in calls if distance(call, sine) < distance(call, even)]
    by_angle = [call for call in calls if distance(call, sine) >= distance(call, even)]
    assert 18 <= len(by_sine) <= 42
    # 1.95 / sqrt(n) is exceeded once in a thousand times
    assert all(distance(call, sine) < 2.2 / 2000**0.5 for call in by_sine)
    assert all(distance(call, even) < 2.2 / 2000**0.5 for call in by_angle)
    whole = torch.cat(by_sine)
    assert distance(whole, sine) < 1.95 / len(whole) ** 0.5
    assert whole.min() >= lo if kind == "threestudio" else whole.min() >= 0
    assert whole.max() <= math.degrees(math.asin(last)) + 1e-9
    # calls of one ring, as of a step with four views
    single = torch.cat([elevations(kind, 1, 1000 + seed, bounds) for seed in range(2000)])
    assert distance(single, lambda x: (even(x) + sine(x)) / 2) < 1.95 / 2000**0.5


def test_mvdream_s_elevations_lie_below_20_degrees_where_their_sine_is_uniform():
    calls = [elevations("mvdream", 4000, seed) for seed in range(20)]
    low = torch.cat([call for call in calls if call.max() < 20])
    high = torch.cat([call for call in calls if call.max() >= 20])
    assert low.max() == pytest.approx(math.degrees(math.asin(1 / 3)), abs=0.02)
    # of asin(u), u ~ U(0, a): (a asin(a) + sqrt(1 - a^2) - 1) / a
    a = 1 / 3
    mean = math.degrees((a * math.asin(a) + math.sqrt(1 - a * a) - 1) / a)
    assert mean == pytest.approx(9.64, abs=0.01)
    assert low.mean().item() == pytest.approx(mean, abs=0.15)
    assert high.mean().item() == pytest.approx(15.0, abs=0.25)
    assert high.max() <= 30


def test_uniform_elevations_are_what_they_were():
    assert distance(elevations("uniform", 4000, 0), lambda x: x / 30) < 1.95 / 4000**0.5
    generator = torch.Generator().manual_seed(5)
    sample_groups(2, 4, generator=generator, **BLOCKS)
    other = torch.Generator().manual_seed(5)
    torch.rand(4, 2, generator=other)  # no draw more
    assert torch.equal(generator.get_state(), other.get_state())


def test_unknown_elevations_are_refused():
    with pytest.raises(ValueError, match="received elevations='sphere'; expected one of"):
        sample_groups(1, 4, elevations="sphere", **BLOCKS)


def test_turntable_closes_the_circle():
    cameras = Cameras.turntable(8, elevation=0, distance=2.0, fov=40)
    assert_close(cameras.positions[2], torch.tensor([0.0, 2, 0]), atol=1e-6, rtol=0)
    assert_close(cameras.positions.sum(0), torch.zeros(3), atol=1e-5, rtol=0)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"received c2w \(4, 4\).*expected \(N, 4, 4\)"):
        Cameras(torch.eye(4), torch.ones(1))


def test_angles_are_those_of_the_orbit():
    azimuth = torch.tensor([-170.0, -90.0, 0.0, 33.0, 180.0], dtype=torch.float64)
    elevation = torch.tensor([-80.0, 0.0, 15.0, 60.0, 89.0], dtype=torch.float64)
    found = orbit(azimuth, elevation, 2.5, 40.0).angles()
    torch.testing.assert_close(found, torch.stack([azimuth, elevation], dim=-1))
