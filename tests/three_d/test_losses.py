"""Shading and regularisers in closed form."""

import math

import torch
from torch.testing import assert_close

from vlmreward_3d.regularizers import (
    opacity_entropy,
    orientation_loss,
    sparsity_loss,
    total_variation,
)
from vlmreward_3d.shading import lambertian, light_direction, textureless


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


def test_orientation_counts_only_what_faces_away_on_visible_rays():
    weights = torch.tensor([[0.5, 0.25], [1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    normals = torch.tensor(
        [[[0.0, 0, 1], [0, 0, -1]], [[0, 0.6, 0.8], [1, 0, 0]], [[0, 0, 1], [0, 0, 1]]],
        requires_grad=True,
    )
    directions = torch.tensor([[0.0, 0, 1]]).expand(3, 3)
    opacity = weights.sum(dim=1, keepdim=True)
    loss = orientation_loss(weights, normals, directions, opacity)
    assert_close(loss, torch.tensor((0.5 * 1 + 1.0 * 0.64) / 2))
    loss.backward()
    assert weights.grad is None
    assert normals.grad[0, 0, 2] > 0
    assert normals.grad[0, 1].abs().sum() == 0


def test_no_visible_ray_means_no_orientation_loss():
    nothing = torch.zeros(2, 3)
    loss = orientation_loss(nothing, torch.ones(2, 3, 3), torch.ones(2, 3), torch.zeros(2, 1))
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
