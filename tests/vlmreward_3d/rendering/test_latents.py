"""The linear decoding of latents, and colors as latents."""

import pytest
import torch
from torch.testing import assert_close

from vlmreward_3d.rendering.latents import (
    LATENT_TO_RGB,
    decode_latents,
    encode_colors,
    latents_to_rgb,
)


def latents(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_a_picture_is_decoded_channel_by_channel():
    z = latents(2, 4, 3, 5)
    found = decode_latents(z)
    assert found.shape == (2, 3, 3, 5)
    for color in range(3):
        expected = sum(LATENT_TO_RGB[i][color] * z[:, i] for i in range(4))
        assert_close(found[:, color], (expected + 1) / 2)


def test_the_gradient_of_the_decoding_is_that_of_a_matrix():
    z = latents(1, 4, 2, 2).requires_grad_()
    matrix = torch.tensor(LATENT_TO_RGB, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(decode_latents, [z])
    assert torch.autograd.gradcheck(latents_to_rgb, [z.detach()[..., 0].mT, matrix])
    at_images = latents(1, 3, 2, 2, seed=1)
    (found,) = torch.autograd.grad(decode_latents(z), z, at_images)
    assert_close(found, torch.einsum("ic,nchw->nihw", matrix.detach(), at_images) / 2)


def test_the_decoding_commutes_with_compositing():
    z, behind = latents(6, 4), latents(4, seed=1)
    weights = latents(6, seed=2).softmax(dim=0) * 0.7
    mixed = weights @ z + (1 - weights.sum()) * behind
    after = weights @ latents_to_rgb(z) + (1 - weights.sum()) * latents_to_rgb(behind)
    assert_close(latents_to_rgb(mixed), after, atol=1e-14, rtol=0)


@pytest.mark.parametrize("color", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.9, 0.1, 0.4)])
def test_colors_become_their_smallest_latents(color):
    rgb = torch.tensor(color, dtype=torch.float64)
    z = encode_colors(rgb)
    assert_close(latents_to_rgb(z), rgb, atol=1e-12, rtol=0)
    matrix = torch.tensor(LATENT_TO_RGB, dtype=torch.float64)
    unseen = torch.linalg.svd(matrix.T).Vh[3]  # the direction that the decoding does not see
    assert_close(unseen @ matrix, torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert abs(float(unseen @ z)) < 1e-12
