"""Shading and regularizers in closed form."""

import math

import pytest
import torch
from torch.testing import assert_close

from vlmreward_3d.cameras import sample_groups
from vlmreward_3d.losses import (
    emptiness_loss,
    opacity_entropy,
    orientation_loss,
    sparsity_loss,
    total_variation,
)
from vlmreward_3d.rendering.shading import lambertian, light_direction, sample_lights, textureless


def test_lambertian_mixes_ambient_and_diffuse():
    albedo = torch.tensor([[0.8, 0.4, 0.2]])
    normal = torch.tensor([[0.0, 0, 1]])
    slanted = torch.tensor([[0.0, math.sqrt(0.75), 0.5]])
    assert_close(lambertian(albedo, normal, slanted, 1.0), albedo * 0.5)
    assert_close(lambertian(albedo, normal, slanted, 0.4), albedo * (0.4 * 0.5 + 0.6))
    assert_close(lambertian(albedo, normal, -slanted, 0.4), albedo * 0.6)
    assert_close(lambertian(albedo, normal, slanted, 0.0), albedo)
    assert_close(textureless(normal, slanted, 1.0), torch.full((1, 3), 0.5))


def test_a_point_light_shines_from_where_it_is():
    direction = light_direction(torch.tensor([[1.0, 0, 0]]), torch.tensor([1.0, 0, 5]))
    assert_close(direction, torch.tensor([[0.0, 0, 1]]))


@pytest.mark.parametrize("distance", [1.2, 1.9, 3.6, 7.6])
def test_lights_are_spread_around_their_cameras_as_in_the_sources(distance):
    """E cos of the angle between c and c + n, n ~ N(0, I), |c| = d, in closed form."""
    generator = torch.Generator().manual_seed(0)
    camera = distance * torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5]), dim=0)
    lights = sample_lights(camera.expand(40_000, 3), 1, generator)
    lengths = lights.norm(dim=1)
    assert 0.8 <= lengths.min() < 0.801
    assert 1.499 < lengths.max() <= 1.5 + 1e-6
    assert lengths.mean().item() == pytest.approx(1.15, abs=0.005)
    assert lengths.var().item() == pytest.approx(0.7**2 / 12, rel=0.03)
    cosine = lights @ camera / lengths / distance
    expected = (1 - 1 / distance**2) * math.erf(distance / math.sqrt(2))
    expected += math.sqrt(2 / math.pi) * math.exp(-(distance**2) / 2) / distance
    error = cosine.std().item() / math.sqrt(len(cosine))
    assert cosine.mean().item() == pytest.approx(expected, abs=4 * error)


def test_lights_of_a_ring_turn_with_its_cameras():
    generator = torch.Generator().manual_seed(0)
    cameras = sample_groups(
        50,
        4,
        fov_deg=(15, 60),
        elevation_deg=(0, 30),
        object_radius=(0.8, 1),
        generator=generator,
        dtype=torch.float64,
    )
    lights = sample_lights(cameras.positions, 4, generator)
    cosine = torch.cosine_similarity(lights, cameras.positions, dim=1)
    assert cosine.mean() > 0.8
    assert (cosine > 0).double().mean() > 0.98  # one light for all: half of the views
    rings, places = lights.view(50, 4, 3), cameras.positions.view(50, 4, 3)
    lengths = rings.norm(dim=2)
    assert_close(lengths, lengths[:, :1].expand(50, 4))
    assert lengths[:, 0].unique().numel() == 50
    apart = (rings[:, :, None] - rings[:, None]).norm(dim=-1) + 10 * torch.eye(4)
    assert apart.min() > 0.01
    # c_i + n lies along light i for all views of a ring with one n: 12 equations, 7 unknowns
    for light, place in zip(rings, places):
        sides = torch.block_diag(*(row[:, None] for row in light))
        unknown = torch.cat([sides, -torch.eye(3).repeat(4, 1).to(light)], dim=1)
        solved = torch.linalg.lstsq(unknown, place.flatten()[:, None]).solution
        assert_close(unknown @ solved, place.flatten()[:, None], atol=1e-9, rtol=0)
        assert solved[:4].min() > 0


def test_orientation_counts_only_what_faces_away_on_visible_rays():
    weights = torch.tensor([[0.5, 0.25], [1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    normals = torch.tensor(
        [[[0.0, 0, 1], [0, 0, -1]], [[0, 0.6, 0.8], [1, 0, 0]], [[0, 0, 1], [0, 0, 1]]],
        requires_grad=True,
    )
    directions = torch.tensor([[0.0, 0, 1]]).expand(3, 3)
    visible = torch.tensor([[True, True], [True, False], [False, False]])
    loss = orientation_loss(weights, normals, directions, visible)
    assert_close(loss, torch.tensor((0.5 * 1 + 1.0 * 0.64) / 2))
    faint = torch.tensor([[True, True], [False, False], [False, False]])
    assert_close(orientation_loss(weights, normals, directions, faint), torch.tensor(0.5))
    part = orientation_loss(weights, normals, directions, visible, rays=8)
    assert_close(part, loss * 2 / 8)
    loss.backward()
    assert weights.grad is None
    assert normals.grad[0, 0, 2] > 0
    assert normals.grad[0, 1].abs().sum() == 0


def test_no_visible_ray_means_no_orientation_loss():
    nothing = torch.zeros(2, 3)
    loss = orientation_loss(nothing, torch.ones(2, 3, 3), torch.ones(2, 3), nothing > 0)
    assert loss == 0


def test_entropy_is_largest_at_half_and_its_gradient_is_finite():
    opacity = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    assert_close(opacity_entropy(opacity[1:2]), torch.tensor(math.log(2)))
    assert opacity_entropy(opacity[:1]) < 0.01
    opacity_entropy(opacity).backward()
    assert opacity.grad.isfinite().all()


def test_sparsity_prefers_empty_pictures():
    assert_close(sparsity_loss(torch.zeros(4)), torch.tensor(0.1))
    assert_close(sparsity_loss(torch.ones(4)), torch.tensor(math.sqrt(1.01)))


def test_variation_of_a_ramp_is_its_slope_squared():
    x = torch.arange(5.0).expand(1, 1, 5, 5, 5)
    assert_close(total_variation(3 * x), torch.tensor(9.0))
    assert_close(total_variation(3 * x + 2 * x.transpose(2, 4)), torch.tensor(13.0))


def test_emptiness_of_a_homogeneous_medium():
    """Weights of a medium with alpha a a sample are a (1 - a)^i, and their gradient is known."""
    alpha = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    i = torch.arange(6, dtype=torch.float64)
    weights = (alpha * (1 - alpha) ** i).expand(4, 6)
    loss = emptiness_loss(weights, 10.0)
    expected = sum(math.log(1 + 10 * 0.3 * 0.7**k) for k in range(6)) / 6
    assert_close(loss, torch.tensor(expected, dtype=torch.float64))
    (slope,) = torch.autograd.grad(loss, alpha)
    slopes = [0.7**k - 0.3 * k * 0.7 ** (k - 1) for k in range(6)]
    expected = sum(10 * s / (1 + 3 * 0.7**k) for k, s in enumerate(slopes)) / 6
    assert_close(slope, torch.tensor(expected, dtype=torch.float64))


def test_emptiness_prefers_one_surface_to_haze_and_counts_rays_that_meet_nothing():
    surface, haze = torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 4), 0.25)
    assert emptiness_loss(surface, 10.0) < emptiness_loss(haze, 10.0)
    assert_close(emptiness_loss(haze, 1e-4) / 1e-4, torch.tensor(0.25), atol=1e-4, rtol=0)
    assert_close(emptiness_loss(haze, 10.0, rays=8), emptiness_loss(haze, 10.0) / 8)
    assert emptiness_loss(torch.zeros(0, 4), 10.0) == 0
