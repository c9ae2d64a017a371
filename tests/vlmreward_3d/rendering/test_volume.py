"""Rendering against the closed forms of a slab and a ball, values and gradients."""

import math

import pytest
import torch
from torch.testing import assert_close

from vlmreward_3d.cameras import Cameras, orbit
from vlmreward_3d.rendering.base import FieldSamples
from vlmreward_3d.rendering.occupancy import OccupancyGrid
from vlmreward_3d.rendering.volume import composite, render, render_rays

SIGMA = 1.7


def everywhere(density, color=(0.2, 0.5, 0.9)):
    """A field that fills its box evenly."""

    def query(points):
        value = torch.as_tensor(density, dtype=points.dtype)
        rgb = torch.as_tensor(color, dtype=points.dtype)
        return FieldSamples(value.expand(len(points)), rgb.expand(len(points), 3))

    return query


def test_a_slab_dims_exponentially():
    origins = torch.tensor([[-3.0, 0, 0], [0, 0, -4.0], [0, 5, 0]], dtype=torch.float64)
    directions = torch.tensor([[1.0, 0, 0], [0, 0, 1], [1, 0, 0]], dtype=torch.float64)
    background = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    seen = render_rays(
        everywhere(SIGMA),
        OccupancyGrid(4),
        origins,
        directions,
        n_samples=400,
        background=background,
    )
    through = math.exp(-2 * SIGMA)
    opacity = torch.tensor([[1 - through], [1 - through], [0]], dtype=torch.float64)
    color = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    assert_close(seen.opacity, opacity)
    assert_close(seen.rgb, opacity * color + (1 - opacity) * background)
    # mean depth of an exponential, cut off at length 2
    depth = 1 / SIGMA - 2 * through / (1 - through)
    expected = torch.tensor([[2 + depth], [3 + depth], [0]], dtype=torch.float64)
    assert_close(seen.depth, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("projection", ["perspective", "orthographic"])
def test_a_ball_dims_by_its_chords(projection):
    radius, size = 0.6, 48

    def ball(points):
        inside = points.norm(dim=-1) < radius
        return FieldSamples(SIGMA * inside.double(), points.new_ones(len(points), 3))

    azimuth = torch.tensor([33.0], dtype=torch.float64)
    cameras = orbit(azimuth, 21.0, 3.0, 40.0, projection=projection)
    grid = OccupancyGrid(24)
    grid.update(lambda p: ball(p.double()).density, torch.Generator().manual_seed(0))
    seen = render(ball, grid, cameras, size, size, n_samples=600)
    origins, directions = cameras.rays(size, size)
    along = (origins * directions).sum(-1)
    nearest = origins.square().sum(-1) - along.square()
    chord = 2 * (radius**2 - nearest).clamp_min(0).sqrt()
    # a regular quadrature of a step is off by up to one sample's length, 2 * 0.7 / 600
    assert_close(seen.opacity[:, 0], 1 - torch.exp(-SIGMA * chord), atol=5e-3, rtol=0)
    assert (chord > 0).double().mean() > 0.2


def test_two_layers_hide_each_other_in_order():
    middles = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    density = torch.tensor([[math.log(2), 100.0]], dtype=torch.float64)
    rgb = torch.eye(3, dtype=torch.float64)[None, :2]
    seen = composite(middles, torch.ones(1, 1, dtype=torch.float64), density, rgb, rgb)
    assert_close(seen.rgb, torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64))
    assert_close(seen.depth, torch.tensor([[1.5]], dtype=torch.float64))
    assert_close(seen.normals, seen.rgb)


def test_compositing_gradients():
    generator = torch.Generator().manual_seed(0)
    kind = {"dtype": torch.float64, "generator": generator}
    middles = torch.rand(3, 5, **kind).sort(dim=1).values
    lengths = torch.rand(3, 1, **kind)
    density = (3 * torch.rand(3, 5, **kind)).requires_grad_()
    rgb = torch.rand(3, 5, 3, **kind).requires_grad_()

    def outputs(density, rgb):
        seen = composite(middles, lengths, density, rgb, rgb)
        return seen.rgb, seen.opacity, seen.depth, seen.normals

    assert torch.autograd.gradcheck(outputs, (density, rgb))


def test_the_slab_s_gradient_is_its_closed_form():
    sigma = torch.tensor(SIGMA, dtype=torch.float64, requires_grad=True)
    background = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    seen = render_rays(
        everywhere(sigma, (1.0, 1.0, 1.0)),
        OccupancyGrid(4),
        torch.tensor([[-3.0, 0, 0]], dtype=torch.float64),
        torch.tensor([[1.0, 0, 0]], dtype=torch.float64),
        n_samples=16,
        background=background,
        generator=torch.Generator().manual_seed(0),
    )
    seen.rgb[0, 0].backward()
    through = math.exp(-2 * SIGMA)
    assert_close(sigma.grad.item(), 2 * through)
    assert_close(background.grad, torch.tensor([through, 0, 0], dtype=torch.float64))


def test_each_camera_has_its_background_and_the_default_is_white():
    cameras = orbit(torch.tensor([0.0, 90.0]), 0.0, 3.0, 60.0)
    grid = OccupancyGrid(4)
    grid.occupied[:] = False
    colors = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    seen = render(everywhere(1.0), grid, cameras, 2, 3, n_samples=2, background=colors)
    assert_close(seen.rgb, colors[:, :, None, None].expand(2, 3, 2, 3))
    white = render(everywhere(1.0), grid, cameras, 2, 3, n_samples=2)
    assert_close(white.rgb, torch.ones(2, 3, 2, 3))
    assert white.opacity.sum() == 0


def test_pictures_are_the_right_way_up_and_round():
    """A field that is red above, and green to the right, of a camera on +x."""

    def query(points):
        rgb = torch.stack(
            [(points[:, 2] > 0).float(), (points[:, 1] > 0).float(), torch.zeros(len(points))], -1
        )
        return FieldSamples(points.new_full((len(points),), 100.0), rgb)

    seen = render(query, OccupancyGrid(4), orbit(0.0, 0.0, 4.0, 20.0), 2, 2, n_samples=8)
    expected = torch.tensor([[[1.0, 1.0], [0, 0]], [[0, 1], [0, 1]], [[0, 0], [0, 0]]])
    assert_close(seen.rgb[0], expected)


def test_a_shader_sees_the_field_and_the_places():
    def shader(field, points, views):
        return field.rgb * (points[:, :1] > 0)

    origins, directions = torch.tensor([[-3.0, 0, 0]]), torch.tensor([[1.0, 0, 0]])
    seen = render_rays(
        everywhere(0.5, (1.0, 1.0, 1.0)),
        OccupancyGrid(4),
        origins,
        directions,
        n_samples=64,
        background=torch.zeros(3),
        shader=shader,
    )
    behind = math.exp(-0.5) * (1 - math.exp(-0.5))
    assert seen.rgb[0, 0].item() == pytest.approx(behind, abs=1e-4)


def test_a_shader_knows_which_camera_sees_a_place():
    def shader(field, points, views):
        return torch.nn.functional.one_hot(views, 3).to(points)

    cameras = Cameras.turntable(3, distance=4.0, fov=30.0)
    seen = render(
        everywhere(20.0, (1.0, 1.0, 1.0)),
        OccupancyGrid(4),
        cameras,
        5,
        5,
        n_samples=8,
        background=torch.zeros(3),
        shader=shader,
    )
    assert_close(seen.rgb[:, :, 2, 2], torch.eye(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("core", "mist", "solid_elsewhere", "expected"),
    [(2.0, 1.0, False, 21), (1.0, 0.5, True, 0), (0.2, 0.1, False, 21)],
)
def test_rays_are_visible_where_a_sample_takes_a_hundredth_of_the_light(
    core, mist, solid_elsewhere, expected
):
    """A hundredth over 1/512 of the box's diagonal is a density of 1.485.

    In a thin field, whose mean peak takes less than that, the mean decides.
    """

    def query(points):
        inside = points[:, 1].abs() < 0.5
        density = torch.where(inside, core, mist).to(points)
        return FieldSamples(density, torch.ones_like(points))

    grid = OccupancyGrid(8)
    grid.update(lambda points: query(points).density)
    if solid_elsewhere:
        grid.peak[0, 0, 0] = 1e4
    least = -math.log(0.99) / (2 * math.sqrt(3) / 512)
    assert_close(grid.faintest(), grid.peak.mean() if core < 1 else torch.tensor(least))
    y = torch.linspace(-0.99, 0.99, 41)
    origins = torch.stack([torch.full_like(y, -3), y, torch.zeros_like(y)], dim=1)
    rays = render_rays(
        query,
        grid,
        origins,
        torch.tensor([[1.0, 0, 0]]).expand(41, 3),
        n_samples=16,
        background=torch.zeros(3),
    )
    assert rays.visible.shape == rays.composite.weights.shape == (41, 16)
    assert int(rays.visible.any(dim=1).sum()) == expected
    assert (rays.opacity > 0).all()
