"""Models of flows: conversion to noise, Stable Diffusion 3, and the rule made for them."""

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from test_csd import prediction
from tiny_latent_models import autoencoder, clip_config, randomized, tokenizer
from torch.testing import assert_close
from transformers import (
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.guidance import loading
from vlmreward_3d.guidance.diffusion.flow import (
    alpha_bar_of_flow,
    noise_of_velocity,
    scale_of_flow,
)
from vlmreward_3d.guidance.diffusion.stable_diffusion_3 import StableDiffusion3
from vlmreward_3d.guidance.rules import RULES
from vlmreward_3d.guidance.score_distillation import add_noise, predicted_original
from vlmreward_3d.guidance.sds import ScoreDistillation

SIGMA = torch.tensor([0.1, 0.5, 0.93], dtype=torch.float64)


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def clip(width):
    config = clip_config(width, num_hidden_layers=2, projection_dim=width)
    return randomized(CLIPTextModelWithProjection(config))


def pipeline(with_t5=True, in_channels=4):
    torch.manual_seed(0)
    words = tokenizer()
    t5 = T5Config(vocab_size=len(words), d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    vae = autoencoder(
        scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False
    )
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=in_channels,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=16,
        out_channels=4,
        pos_embed_max_size=8,
    )
    return StableDiffusion3Pipeline(
        transformer=randomized(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=randomized(vae, 1),
        text_encoder=clip(8),
        tokenizer=words,
        text_encoder_2=clip(8),
        tokenizer_2=tokenizer(),
        text_encoder_3=randomized(T5EncoderModel(t5), 2) if with_t5 else None,
        tokenizer_3=tokenizer() if with_t5 else None,
    )


@pytest.fixture(scope="module")
def model():
    return StableDiffusion3(pipeline())


def test_a_flow_s_noisy_latents_are_a_multiple_of_ours():
    z, noise = random(3, 4, 5, 5), random(3, 4, 5, 5, seed=1)
    flow = torch.lerp(z, noise, SIGMA.view(3, 1, 1, 1))
    ours = add_noise(z, noise, alpha_bar_of_flow(SIGMA))
    assert_close(flow, ours * scale_of_flow(SIGMA).view(3, 1, 1, 1))


def test_a_velocity_means_a_noise_and_an_original():
    z, noise = random(3, 4, 5, 5), random(3, 4, 5, 5, seed=1)
    sigma = SIGMA.view(3, 1, 1, 1)
    at_sigma = torch.lerp(z, noise, sigma)
    velocity = random(3, 4, 5, 5, seed=2)
    found = noise_of_velocity(velocity, at_sigma, sigma)
    assert_close(noise_of_velocity(noise - z, at_sigma, sigma), noise)
    noisy = add_noise(z, noise, alpha_bar_of_flow(SIGMA))
    original = predicted_original(noisy, found, alpha_bar_of_flow(SIGMA))
    assert_close(original, at_sigma - sigma * velocity)  # where a straight path began


def test_the_rule_is_the_velocity_s_residual():
    """(v_hat - (eps - z)) / N, with v_hat guided, is what the source follows."""
    abar = alpha_bar_of_flow(SIGMA)
    given = prediction(alpha_bar=abar)
    sigma, scale = SIGMA.view(3, 1, 1, 1), scale_of_flow(SIGMA).view(3, 1, 1, 1)
    noisy = add_noise(given.latents, given.noise, abar) * scale

    def velocity(noise):
        return (noise - noisy) / (1 - sigma)

    guided = torch.lerp(
        velocity(given.unconditional), velocity(given.conditional), given.guidance_scale
    )
    assert_close(RULES["rfds"](given), (guided - (given.noise - given.latents)) / 3)


def test_the_reversed_noise_is_that_of_the_source():
    from evaluate_rules import Gaussians
    from test_perp_neg import KNOWN, at

    from vlmreward_3d.guidance.teacher import Prompts

    denoiser, z, t = Gaussians(KNOWN), random(1, 3, 4, 4), torch.tensor([600])
    teacher = Prompts(denoiser, "a cup", "bad", of_views=False).seen_from(at(0.0), z)
    noise, noisy = RULES["rfds-rev"].noising(teacher, z, t, torch.Generator().manual_seed(3))
    abar = denoiser.alphas_cumprod[t]
    assert_close(noisy, add_noise(z, noise, abar))
    fresh = torch.randn(z.shape, generator=torch.Generator().manual_seed(3)).to(z)
    a, s = abar.sqrt(), (1 - abar).sqrt()
    sigma = s / (a + s)
    at_sigma = torch.lerp(z, fresh, sigma.item())
    (predicted,) = teacher.predict(add_noise(z, fresh, abar), t, ("prompt",))
    velocity = (predicted - at_sigma) / (1 - sigma)
    assert_close(noise, fresh + (1 - sigma) * (velocity + z - fresh))


def test_schedule_and_noise_are_the_scheduler_s(model):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert len(model.alphas_cumprod) == 1000
    assert model.alphas_cumprod.diff().max() < 0
    t = torch.tensor([20, 400, 979])
    z, noise = random(3, 4, 8, 8, dtype=torch.float32), random(3, 4, 8, 8, dtype=torch.float32)
    steps = scheduler.timesteps.flip(0)[t]
    expected = scheduler.scale_noise(z, steps, noise)
    scale = scale_of_flow(model.sigmas[t]).view(3, 1, 1, 1)
    assert_close(add_noise(z, noise, model.alphas_cumprod[t]) * scale, expected)


@pytest.mark.parametrize("with_t5", [True, False])
def test_noise_is_what_diffusers_parts_predict(with_t5):
    parts = pipeline(with_t5)
    model = StableDiffusion3(parts)
    text = model.encode_text(["a red cube", ""])
    embedded, _, pooled, _ = parts.encode_prompt(
        ["a red cube", ""], None, None, do_classifier_free_guidance=False
    )
    assert text.shape == (2, embedded.shape[1] + 1, 32)
    noisy, t = random(2, 4, 8, 8, dtype=torch.float32), torch.tensor([300, 700])
    found = model.predict_noise(noisy, t, text, torch.zeros(2, 16))
    sigma = parts.scheduler.sigmas.flip(0)[t].view(2, 1, 1, 1)
    at_sigma = noisy * ((1 - sigma) ** 2 + sigma**2).sqrt()
    velocity = parts.transformer(at_sigma, embedded, pooled, timestep=sigma.flatten() * 1000).sample
    assert_close(found, at_sigma + (1 - sigma) * velocity, atol=1e-5, rtol=1e-5)
    assert found.std() > 0.1


def test_latents_are_shifted_and_scaled(model):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mean = model.vae.encode(images * 2 - 1).latent_dist.mode()
    latents = model.to_latents(images)
    assert_close(latents, (mean - 0.06) * 1.5)
    decoded = model.vae.decode(mean).sample.clamp(-1, 1)
    assert_close(model.to_images(latents), (decoded + 1) / 2)


@pytest.mark.parametrize("rule", ["rfds", "rfds-rev", "sds", "csd"])
def test_rules_distil_it_and_gradients_reach_pixels(model, rule):
    distillation = ScoreDistillation(model, "a red cube", rule=rule, guidance_scale=7.0)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    output = distillation(images, Cameras.turntable(2), 0.0, torch.Generator().manual_seed(0))
    assert output.gradient.shape == images.shape
    assert output.gradient.isfinite().all()
    assert output.gradient.abs().max() > 0


def test_a_folder_is_loaded_by_its_name(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = loading.load_denoiser(str(tmp_path))
    assert isinstance(loaded, StableDiffusion3)
    text = model.encode_text(["a red cube"])
    assert torch.equal(loaded.encode_text(["a red cube"]), text)
    arguments = (random(1, 4, 8, 8, dtype=torch.float32), torch.tensor([500]), text)
    cameras = torch.zeros(1, 16)
    expected = model.predict_noise(*arguments, cameras)
    assert_close(loaded.predict_noise(*arguments, cameras), expected, atol=1e-5, rtol=1e-5)
    half = loading.load_denoiser(str(tmp_path), precision="bfloat16")
    assert half.transformer.dtype == torch.bfloat16
    assert half.predict_noise(*arguments, cameras).dtype == torch.float32


def test_damaged_and_unfit_models_are_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(OSError, match=r"cannot load the denoiser .* expected a folder or hub id"):
        StableDiffusion3.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the transformer takes 5 channels and gives 4; expected"):
        StableDiffusion3(pipeline(in_channels=5))
    with pytest.raises(TypeError, match="without a unet"):
        ScoreDistillation(model, "a red cube", rule="vsd", guidance_scale=7.0)
