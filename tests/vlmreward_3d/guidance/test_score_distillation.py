"""Score distillation in closed form."""

import torch
from torch.testing import assert_close

from vlmreward_3d.guidance.rules.sds import sds_gradient
from vlmreward_3d.guidance.rules.x0 import x0_reconstruction_gradient
from vlmreward_3d.guidance.score_distillation import (
    add_noise,
    classifier_free_guidance,
    predicted_original,
    rescale_guidance,
)

KIND = {"dtype": torch.float64, "generator": torch.Generator().manual_seed(0)}


def images(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 3, 5, 6, **KIND)


def test_sds_is_the_weighted_difference_per_image():
    predicted, noise = images(), images()
    weight = torch.tensor([0.0, 1.0, 0.5, 2.0], dtype=torch.float64)
    gradient = sds_gradient(predicted, noise, weight)
    for i in range(4):
        assert_close(gradient[i], float(weight[i]) * (predicted[i] - noise[i]) / 4)


def test_sds_agrees_with_the_score_form_of_the_paper():
    # Algorithm 1 with x_t = x_0 + sigma eps and the score of a point mass at m
    x0, noise, m, sigma = images(), images(), images(), 0.7
    score = (m - (x0 + sigma * noise)) / sigma**2
    predicted = -score * sigma
    descent = sds_gradient(predicted, noise, torch.tensor(sigma))
    assert_close(descent, -(sigma**2) * (score + noise / sigma) / 4)
    assert_close(descent, (x0 - m) / 4)


def test_predicted_original_inverts_the_noising():
    latents, noise = images(), images()
    alpha_bar = torch.tensor([0.9, 0.5, 0.1, 0.01], dtype=torch.float64)
    noisy = add_noise(latents, noise, alpha_bar)
    assert_close(noisy[1], 0.5**0.5 * (latents[1] + noise[1]))
    assert_close(predicted_original(noisy, noise, alpha_bar), latents)


def test_guidance_extrapolates():
    u, c = images(), images()
    assert_close(classifier_free_guidance(u, c, 0.0), u)
    assert_close(classifier_free_guidance(u, c, 1.0), c)
    assert_close(classifier_free_guidance(u, c, 7.5), -6.5 * u + 7.5 * c)


def test_full_rescaling_gives_each_group_the_conditional_spread():
    guided, conditional = 10 * images(8), images(8)
    guided[4:] *= 5
    out = rescale_guidance(guided, conditional, 1.0, group_size=4).view(2, -1)
    assert_close(out.std(dim=1), conditional.view(2, -1).std(dim=1))
    # one factor for a whole group: the views keep their ratios
    assert_close((out / guided.view(2, -1)).std(dim=1), torch.zeros(2, dtype=torch.float64))


def test_half_rescaling_is_half_way():
    guided, conditional = 3 * images(), images()
    none = rescale_guidance(guided, conditional, 0.0, 4)
    full = rescale_guidance(guided, conditional, 1.0, 4)
    assert_close(none, guided)
    assert_close(rescale_guidance(guided, conditional, 0.5, 4), (none + full) / 2)


def test_x0_reconstruction_is_the_gradient_of_its_loss():
    latents, original = images().requires_grad_(), images()
    loss = 0.5 * (latents - original).square().sum() / len(latents)
    (expected,) = torch.autograd.grad(loss, latents)
    assert_close(x0_reconstruction_gradient(latents.detach(), original), expected)


def test_sds_is_the_gradient_of_its_loss():
    latents, predicted, noise = images(8).requires_grad_(), images(8), images(8)
    weight = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    target = latents - weight.view(-1, 1, 1, 1) * (predicted - noise)
    loss = 0.5 * (latents - target.detach()).square().sum() / 8
    (expected,) = torch.autograd.grad(loss, latents)
    assert_close(sds_gradient(predicted, noise, weight), expected)
