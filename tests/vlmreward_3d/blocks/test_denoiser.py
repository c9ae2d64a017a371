import pytest
import torch

from vlmreward_3d.blocks.training.train_denoiser import build
from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion


@pytest.fixture(scope="module")
def model():
    return build(seed=1).eval().requires_grad_(False)


def noise(model, noisy, text):
    t = torch.full((len(noisy),), 500)
    cameras = torch.randn(len(noisy), 16, generator=torch.Generator().manual_seed(4))
    return model.predict_noise(noisy, t, text, cameras)


def test_views_of_a_group_see_each_other_and_no_other_group(model):
    g = torch.Generator().manual_seed(0)
    noisy = torch.randn(8, 3, 32, 32, generator=g)
    text = model.encode_text(["a red cube", "a blue sphere"]).repeat_interleave(4, 0)
    before = noise(model, noisy, text)
    changed = noisy.clone()
    changed[1] += 1
    difference = (noise(model, changed, text) - before).abs().amax((1, 2, 3))
    assert (difference[[0, 2, 3]] > 1e-6).all()
    assert difference[4:].max() < 1e-6


def test_refuses_part_of_a_group(model):
    with pytest.raises(ValueError, match="multiple of 4"):
        noise(model, torch.zeros(3, 3, 32, 32), model.encode_text(["a"]).expand(3, -1, -1))


def test_folder_round_trip(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = PixelDiffusion.from_pretrained(tmp_path)
    noisy = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    ours = noise(model, noisy, model.encode_text(["a pink mug"]).repeat_interleave(4, 0))
    theirs = noise(loaded, noisy, loaded.encode_text(["a pink mug"]).repeat_interleave(4, 0))
    torch.testing.assert_close(ours, theirs)
    assert not any(p.requires_grad for p in loaded.parameters())


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"unet, scheduler.*missing"):
        PixelDiffusion.from_pretrained(tmp_path)


@pytest.mark.parametrize("size", [32, 64, 48])
def test_latents_keep_the_mean_and_pass_gradients(model, size):
    images = torch.rand(2, 3, size, size, dtype=torch.float64, requires_grad=True)
    latents = model.to_latents(images)
    assert latents.shape == (2, 3, 32, 32)
    torch.testing.assert_close(latents.mean(), images.mean() * 2 - 1, atol=5e-3, rtol=0)
    (gradient,) = torch.autograd.grad(latents.sum(), images)
    assert (gradient > 0).all()


def test_a_fifth_of_the_timesteps_hides_even_the_largest_patterns(model):
    """A half of all pixels brighter by 0.5 stays below the noise of its mean over 4 x 3 x 32^2."""
    strength = 0.25 * (4 * 3 * 32**2) ** 0.5
    signal = model.alphas_cumprod.sqrt() * strength
    assert (signal[800:] / (1 - model.alphas_cumprod[800:]).sqrt() < 1.3).all()
    assert signal[-1] < 0.3


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noise_follows_from_either_prediction(model, kind):
    model.scheduler.register_to_config(prediction_type=kind)
    g = torch.Generator().manual_seed(5)
    noisy, cameras = torch.randn(4, 3, 32, 32, generator=g), torch.randn(4, 16, generator=g)
    t = torch.full((4,), 400)
    text = model.encode_text(["a red cube"]).repeat_interleave(4, 0)
    said, eps = model(noisy, t, text, cameras), model.predict_noise(noisy, t, text, cameras)
    alpha = model.alphas_cumprod[400]
    if kind == "epsilon":
        expected = said
    else:
        # diffusers' own account: x0 = a x - s v, and noise = (x - a x0) / s
        original = alpha.sqrt() * noisy - (1 - alpha).sqrt() * said
        expected = (noisy - alpha.sqrt() * original) / (1 - alpha).sqrt()
    torch.testing.assert_close(eps, expected, atol=1e-5, rtol=1e-4)
    model.scheduler.register_to_config(prediction_type="v_prediction")
