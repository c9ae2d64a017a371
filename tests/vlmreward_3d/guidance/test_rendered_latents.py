"""Rendered latents: score distillation takes them as they are, others see them decoded."""

import pytest
import torch
from stub_models import AttentiveDenoiser, between, build_vlm3d, redness, tiny
from tiny_latent_models import stable
from torch.testing import assert_close

from vlmreward_3d.cameras import orbit
from vlmreward_3d.config import LatentRenderingConfig, WeightingConfig
from vlmreward_3d.guidance.image_reward import ImageRewardGuidance
from vlmreward_3d.guidance.loading import build_guidances, load_denoiser
from vlmreward_3d.guidance.rendered_latents import evaluate, require_latents
from vlmreward_3d.guidance.sds import ScoreDistillation
from vlmreward_3d.guidance.vlm import VLMGuidance
from vlmreward_3d.guidance.weighting import GuidanceSum, WeightedGuidance
from vlmreward_3d.rendering.latents import decode_latents
from vlmreward_3d.vlm3d import VLM3D


@pytest.fixture(scope="module")
def denoiser():
    return stable().double()


def views(scale=1.0, count=3):
    generator = torch.Generator().manual_seed(4)
    cameras = orbit(torch.tensor([0.0, 90.0, 180.0])[:count], 10.0, 2.0, 40.0)
    latents = torch.randn(count, 4, 8, 8, generator=generator, dtype=torch.float64)
    return cameras.to(torch.float64), scale * latents


@pytest.mark.parametrize("rule", ["sjc", "sds"])
def test_the_gradient_at_latents_is_the_rule_s_by_a_second_route(rule, denoiser):
    """sjc by the formulas of its source, with the perturbed z + sigma eps and the denoiser's D."""
    cameras, z = views()
    scale, generator = 100.0, torch.Generator().manual_seed(5)
    teacher = ScoreDistillation(
        denoiser,
        "a cat",
        negative_prompt="fog",
        rule=rule,
        guidance_scale=scale,
        **between(0.1, 0.9),
    )
    output = teacher(z, cameras, 0.0, generator)
    again = torch.Generator().manual_seed(5)
    t = (1000 * (0.1 + (0.9 - 0.1) * torch.rand(3, generator=again))).long()
    noise = torch.randn(z.shape, generator=again).double()
    abar = denoiser.scheduler.alphas_cumprod.double()[t][:, None, None, None]
    sigma = (1 / abar - 1).sqrt()
    perturbed = z + sigma * noise
    seen = perturbed / (1 + sigma**2).sqrt()
    without, told = (
        denoiser.unet(
            seen, t, encoder_hidden_states=denoiser.encode_text([prompt]).expand(3, -1, -1)
        ).sample
        for prompt in ("fog", "a cat")
    )
    original = perturbed - sigma * (without + scale * (told - without))
    expected = -(original - z) / sigma / 3
    if rule == "sds":
        expected = (1 - abar) * expected
    assert expected.abs().max() > 0.1
    assert_close(output.gradient, expected, rtol=1e-9, atol=1e-10)


def test_latents_are_not_encoded(denoiser, monkeypatch):
    def encode(images):
        raise AssertionError("the autoencoder was asked")

    monkeypatch.setattr(denoiser.vae, "encode", encode)
    cameras, z = views()
    teacher = ScoreDistillation(denoiser, "a cat", guidance_scale=7.5, **between(0.3, 0.9))
    teacher(z, cameras, 0.0, torch.Generator().manual_seed(5))
    with pytest.raises(AssertionError, match="was asked"):
        teacher(decode_latents(z), cameras, 0.0, torch.Generator().manual_seed(5))


def test_a_reward_s_gradient_is_carried_back_through_the_decoding():
    cameras, z = views(0.3)  # whose colors are all within [0, 1]
    output = evaluate(VLMGuidance(redness, "a red cube"), z, cameras, 0.0, torch.Generator())
    leaf = z.clone().requires_grad_()
    value = redness(decode_latents(leaf)[None], "a red cube").mean()
    (expected,) = torch.autograd.grad(-value, leaf)
    assert 0 < decode_latents(z).min() < decode_latents(z).max() < 1
    assert_close(output.value, value.detach())
    assert_close(output.gradient, expected)
    assert output.gradient.is_contiguous()


def test_guidances_of_images_see_pixels_in_range_and_their_gradient_is_not_cut_off():
    def brightness(images):
        seen.append((images.shape, float(images.detach().min()), float(images.detach().max())))
        return images.mean(dim=(1, 2, 3))

    seen = []
    cameras, z = views(20.0)
    output = evaluate(ImageRewardGuidance(brightness), z, cameras, 0.0, torch.Generator())
    assert seen == [((3, 3, 8, 8), 0.0, 1.0)]
    at_images = torch.full((3, 3, 8, 8), 1 / (3 * 3 * 8 * 8), dtype=torch.float64)
    leaf = z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(decode_latents(leaf), leaf, -at_images)
    assert_close(output.gradient, expected)


def test_images_pass_as_they_are():
    cameras, _ = views()
    images = torch.rand(3, 3, 8, 8)
    guidance = ImageRewardGuidance(lambda x: x.square().sum(dim=(1, 2, 3)))
    expected = guidance(images, cameras, 0.0, torch.Generator())
    found = evaluate(guidance, images, cameras, 0.0, torch.Generator())
    assert torch.equal(found.gradient, expected.gradient)


def test_a_sum_of_guidances_has_its_gradient_at_the_latents(denoiser):
    cameras, z = views(0.3)
    distillation = ScoreDistillation(denoiser, "a cat", guidance_scale=7.5, **between(0.3, 0.9))
    vlm = VLMGuidance(redness, "a red cube")
    chosen = WeightedGuidance(vlm, WeightingConfig(n_views=1))
    total = GuidanceSum([distillation, chosen])(
        z, cameras, step=0, progress=0.0, generator=torch.Generator().manual_seed(1)
    )
    sds, reward = total.outputs
    assert sds.gradient.shape == reward.gradient.shape == z.shape
    (shown,) = reward.gradient.abs().amax((1, 2, 3)).nonzero()[:, 0].tolist()
    alone = evaluate(vlm, z[[shown]], cameras[[shown]], 0.0, torch.Generator())
    assert_close(reward.gradient[[shown]], alone.gradient)


LATENTS = {
    "field.latents": LatentRenderingConfig(refine_at=0.5),
    "camera.views_per_group": 1,
    "camera.resolution": 8,
    "score_distillation.guidance_rescale": 0.0,
}


def test_the_reward_s_gradient_at_the_field_is_the_same_in_both_stages():
    """The VLM alone teaches: what it sees, and where it leads, do not change at the refinement."""
    config = tiny(**LATENTS).replace({"field.rays.samples_per_ray": 4})
    found = []
    for refined in (False, True):
        model = VLM3D(config, [VLMGuidance(redness, config.prompt)])
        if refined:
            model.field.end_step(
                5, progress=0.5, optimizer=model.optimizer, generator=model.generator
            )
        views = model._render(model._sample_cameras(0.0), 0.0)
        assert views.rgb.shape[1] == (3 if refined else 4)
        cameras = orbit(torch.zeros(1), 0.0, 2.0, 40.0)
        outputs = model.guidances(
            views.images, cameras, step=0, progress=0.0, generator=model.generator
        )
        outputs.backward(views, model.field.parameters(), model._regularizers(0.0))
        found.append([level.grad for level in model.field.representation.levels])
    for latent, rgb in zip(*found):
        assert latent.abs().max() > 0
        assert_close(latent, rgb, rtol=1e-4, atol=1e-7)


def test_a_denoiser_of_pixels_is_refused():
    message = (
        r"rendered latents for a PixelDiffusion, which works in pixels; expected a denoiser of"
    )
    pixels = load_denoiser("builtin/blocks")
    with pytest.raises(ValueError, match=message):
        build_guidances(tiny(**LATENTS), pixels, redness)
    teacher = ScoreDistillation(pixels, "a red cube", guidance_scale=4.0)
    cameras = orbit(torch.arange(4) * 90.0, 10.0, 2.0, 40.0)
    with pytest.raises(ValueError, match=message):
        teacher(torch.zeros(4, 4, 8, 8), cameras, 0.0, torch.Generator())
    with pytest.raises(ValueError, match="AttentiveDenoiser, which works in pixels"):
        build_vlm3d(tiny(**LATENTS), AttentiveDenoiser(), redness)


def test_latents_with_other_channels_are_refused(denoiser, monkeypatch):
    require_latents(denoiser)
    monkeypatch.setattr(denoiser, "latent_channels", 16)
    with pytest.raises(
        ValueError, match=r"has latents of 16 channels; expected .* with 4 channels"
    ):
        require_latents(denoiser)
