"""Stable Diffusion and MVDream as teachers: conversion, latents, texts, gradients."""

import ldm_reference as ldm
import pytest
import torch
from safetensors.torch import save_file
from stub_models import between
from tiny_latent_models import SMALL, build, checkpoint, randomized, stable, tokenizer
from torch.testing import assert_close

from vlmreward_3d.cameras import orbit, sample_groups
from vlmreward_3d.guidance import loading as load
from vlmreward_3d.guidance.diffusion.ldm_conversion import (
    convert_mvdream_unet,
    convert_open_clip_text,
    convert_vae,
)
from vlmreward_3d.guidance.diffusion.mvdream import MVDream
from vlmreward_3d.guidance.diffusion.stable_diffusion import StableDiffusion
from vlmreward_3d.guidance.sds import ScoreDistillation
from vlmreward_3d.guidance.view_prompts import VIEWS, view_index, view_prompts


@pytest.fixture(scope="module", params=[SMALL, {**SMALL, "mult": (1, 2), "blocks": 2}])
def unet(request):
    return randomized(ldm.MVDreamUNet(**request.param))


@pytest.fixture(scope="module")
def vae():
    return randomized(ldm.Autoencoder((32, 32, 64, 64), blocks=1), 1)


@pytest.fixture(scope="module")
def text():
    words = len(tokenizer())
    return randomized(ldm.OpenClipText(words, 24, layers=3, heads=3, length=12), 2)


def unet_inputs(seed=3, groups=2):
    g = torch.Generator().manual_seed(seed)
    n = 4 * groups
    return (
        torch.randn(n, 4, 8, 8, generator=g),
        torch.randint(0, 1000, (groups,), generator=g).repeat_interleave(4),
        torch.randn(n, 12, 24, generator=g),
        torch.randn(n, 16, generator=g),
    )


def test_converted_unet_equals_the_reference(unet):
    from vlmreward_3d.guidance.diffusion.multiview_attention import merge_views

    converted = merge_views(convert_mvdream_unet(unet.state_dict(), head_channels=16), 4)
    noisy, t, context, camera = unet_inputs()
    expected = unet(noisy, t, context, camera)
    found = converted(noisy, t, encoder_hidden_states=context, class_labels=camera).sample
    assert expected.std() > 0.1
    assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_views_of_a_group_see_each_other_and_no_others(unet):
    noisy, t, context, camera = unet_inputs()
    changed = noisy.clone()
    changed[0] += 1
    difference = (unet(changed, t, context, camera) - unet(noisy, t, context, camera)).abs()
    assert (difference.amax((1, 2, 3))[:4] > 1e-4).all()
    assert difference[4:].max() == 0


def test_the_published_size_converts_key_by_key():
    with torch.device("meta"):
        full = ldm.MVDreamUNet()
    state = full.state_dict()
    assert len(state) == 690
    assert sum(value.numel() for value in state.values()) == 867_572_164
    converted = convert_mvdream_unet(state)
    assert len(converted.state_dict()) == 690
    assert sum(p.numel() for p in converted.parameters()) == 867_572_164
    assert converted.config.block_out_channels == (320, 640, 1280, 1280)
    assert converted.config.attention_head_dim == (5, 10, 20, 20)
    assert converted.config.cross_attention_dim == 1024


def test_keys_that_are_missing_or_too_many_are_refused(unet):
    state = dict(unet.state_dict())
    with pytest.raises(KeyError, match="the UNet"):
        convert_mvdream_unet({**state, "input_blocks.1.0.other.weight": torch.zeros(1)})
    del state["out.2.bias"]
    with pytest.raises(KeyError, match="UNet"):
        convert_mvdream_unet(state)
    without = {k: v for k, v in unet.state_dict().items() if "camera" not in k}
    with pytest.raises(KeyError, match=r"'camera_embed\.0\.weight' is missing"):
        convert_mvdream_unet(without)


def test_converted_autoencoder_equals_the_reference(vae):
    converted = convert_vae(vae.state_dict())
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert_close(
        converted.encode(images).latent_dist.mode(), vae.encode(images), atol=1e-5, rtol=1e-5
    )
    z = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(1))
    expected = vae.decoder(vae.post_quant_conv(z))
    assert_close(converted.decode(z).sample, expected, atol=1e-5, rtol=1e-5)
    with torch.device("meta"):
        full = ldm.Autoencoder()
    assert sum(p.numel() for p in convert_vae(full.state_dict()).parameters()) == 83_653_863


def test_converted_text_encoder_is_the_last_layer_but_one(text):
    converted = convert_open_clip_text(text.state_dict(), head_channels=8)
    tokens = torch.randint(1, 50, (3, 12), generator=torch.Generator().manual_seed(0))
    assert_close(converted(tokens).last_hidden_state, text(tokens), atol=1e-5, rtol=1e-5)


@pytest.fixture(params=["pt", "safetensors"])
def file(request, vae, text, tmp_path):
    whole = checkpoint(randomized(ldm.MVDreamUNet(**{**SMALL, "head_channels": 8})), vae, text)
    path = tmp_path / f"small.{request.param}"
    if request.param == "pt":
        torch.save({"state_dict": whole}, path)
    else:
        save_file(whole, path)
    return path


def test_a_single_file_becomes_a_teacher_and_a_folder(file, tmp_path):
    model = build(file)
    assert (model.n_views, model.resolution, model.image_resolution) == (4, 8, 64)
    cameras = sample_groups(
        2,
        4,
        fov_deg=(30, 40),
        elevation_deg=(0, 30),
        object_radius=(1, 1),
        generator=torch.Generator().manual_seed(0),
    )
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    teacher = ScoreDistillation(
        model, "a red cube", guidance_scale=50.0, guidance_rescale=0.5, **between(0.02, 0.98)
    )
    verdict = teacher(images, cameras, 0.0, torch.Generator().manual_seed(2))
    assert verdict.gradient.isfinite().all()
    assert (verdict.gradient.abs().amax((1, 2, 3)) > 0).all()
    model.save_pretrained(tmp_path / "folder")
    again = ScoreDistillation(
        MVDream.from_pretrained(tmp_path / "folder"),
        "a red cube",
        guidance_scale=50.0,
        guidance_rescale=0.5,
        **between(0.02, 0.98),
    )(images, cameras, 0.0, torch.Generator().manual_seed(2))
    assert_close(again.gradient, verdict.gradient)


def test_a_tokenizer_that_is_not_there(file, tmp_path):
    with pytest.raises(OSError, match=r"cannot load the tokenizer .*pass tokenizer="):
        MVDream.from_checkpoint(file, tokenizer=tmp_path / "none")


def test_padding_is_id_0(file):
    model = build(file)
    short = model.tokenizer("a", padding="max_length", max_length=12)["input_ids"]
    assert short[-1] == 0


def test_bad_files(tmp_path, vae, text):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        MVDream.from_checkpoint(tmp_path / "none.pt")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"not MVDream's \(nothing under .*, but a\); expected"):
        MVDream.from_checkpoint(tmp_path / "other.safetensors", tokenizer=tokenizer())
    with pytest.raises(ValueError, match="not MVDream's"):  # before the tokenizer is asked for
        MVDream.from_checkpoint(tmp_path / "other.safetensors", tokenizer=tmp_path / "none")


def views(n=3):
    g = torch.Generator().manual_seed(4)
    cameras = orbit(torch.tensor([0.0, 90.0, 180.0])[:n], 10.0, 2.0, 40.0)
    return cameras, torch.rand(n, 3, 16, 16, generator=g)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_sds_of_stable_diffusion_in_closed_form(kind):
    """w(t) (eps_hat - eps) / 3 of 3 views, taken to the pixels by the encoder's Jacobian."""
    model = stable(kind).double()
    cameras, images = views()
    images = images.double()
    scale, generator = 7.5, torch.Generator().manual_seed(5)
    teacher = ScoreDistillation(
        model, "a cat", negative_prompt="fog", rule="sds", guidance_scale=scale, **between(0.3, 0.9)
    )
    verdict = teacher(images, cameras.to(torch.float64), 0.0, generator)

    again = torch.Generator().manual_seed(5)
    t = (1000 * (0.3 + (0.9 - 0.3) * torch.rand(3, generator=again))).long()
    pixels = images.clone().requires_grad_()
    z = model.vae.encode(2 * pixels - 1).latent_dist.mean * 0.3
    eps = torch.randn(z.shape, generator=again).double()
    abar = model.scheduler.alphas_cumprod.double()[t][:, None, None, None]
    noisy = abar.sqrt() * z.detach() + (1 - abar).sqrt() * eps
    said = []
    for prompt in ("fog", "a cat"):
        out = model.unet(
            noisy, t, encoder_hidden_states=model.encode_text([prompt]).expand(3, -1, -1)
        ).sample
        said.append(out if kind == "epsilon" else abar.sqrt() * out + (1 - abar).sqrt() * noisy)
    guided = said[0] + scale * (said[1] - said[0])
    (expected,) = torch.autograd.grad(z, pixels, (1 - abar) * (guided - eps) / 3)
    assert expected.abs().max() > 1e-4
    assert_close(verdict.gradient, expected, rtol=1e-6, atol=1e-10)


def test_rendered_latents_are_not_encoded():
    model = stable()
    latents = torch.randn(2, 4, 8, 8)
    assert torch.equal(model.to_latents(latents), latents)
    assert model.to_latents(torch.randn(2, 4, 16, 16)).shape == (2, 4, 8, 8)


def test_half_precision_inside_and_float_outside():
    model = stable().bfloat16()
    model.alphas_cumprod = model.scheduler.alphas_cumprod
    cameras, images = views()
    teacher = ScoreDistillation(model, "a cat", guidance_scale=7.5, **between(0.3, 0.9))
    with torch.autocast("cpu", torch.float16):
        verdict = teacher(images, cameras, 0.0, torch.Generator().manual_seed(5))
    assert verdict.gradient.dtype == torch.float32
    assert verdict.gradient.isfinite().all()


def guided(model, dtype=torch.float32, scale=50.0):
    """The guided noise in latents, and the noises it is made of, in float64."""
    noise, t = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(3)), [100, 400, 700]
    t = torch.tensor([*t, 950]).repeat(2)
    text = model.encode_text(["", "a cat"]).to(dtype).repeat_interleave(4, dim=0)
    with torch.no_grad():
        said = model.predict_noise(noise.repeat(2, 1, 1, 1).to(dtype), t, text, torch.zeros(8, 16))
    without, conditional = said.double().chunk(2)
    return without + scale * (conditional - without), said.double()


def rms(x):
    return x.square().mean().sqrt().item()


def test_the_precision_of_a_gpu_is_nearer_to_the_truth_than_bfloat16():
    """Eight times in the noise and in what guidance of 50 makes of it, as measured: three bits."""
    exact, noises = guided(stable().double(), torch.float64)
    weights, autocast = load._dtypes(None, torch.device("cuda"))
    assert (weights, autocast) == (torch.float32, torch.float16)
    default, half = stable().to(weights), stable().bfloat16()
    default.autocast = autocast
    (ours, ours_noises), (rough, rough_noises) = guided(default), guided(half)
    assert default.unet.dtype == torch.float32
    assert 1e-4 * rms(noises) < rms(ours_noises - noises) < rms(rough_noises - noises) / 5
    assert rms(ours - exact) < rms(rough - exact) / 5
    assert rms(ours - exact) < 0.05 * rms(exact)
    full, _ = guided(stable())
    assert rms(full - exact) < 1e-4 * rms(exact)


@pytest.mark.parametrize("magnitude", [1.0, 1e-5, 1e-9])
@pytest.mark.parametrize("weights", [torch.float32, torch.float16])
def test_small_gradients_survive_float16(weights, magnitude):
    """Latents that are nearly right have small gradients; float16 has nothing below 6e-8."""
    _, images = views()
    direction = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(3))

    def at_pixels(model, dtype):
        model.autocast = torch.float16 if dtype == torch.float32 == weights else None
        pixels = images.to(dtype).requires_grad_()
        latents = model.to_latents(pixels)
        return torch.autograd.grad(latents, pixels, magnitude * direction.to(dtype))[0].double()

    expected = at_pixels(stable().double(), torch.float64)
    found = at_pixels(stable().to(weights), torch.float32)
    assert (found - expected).norm() < 0.02 * expected.norm()
    zero = torch.zeros_like(direction)
    pixels = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(stable().half().to_latents(pixels), pixels, zero)
    assert not gradient.any()


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        (None, "cpu", (torch.float32, None)),
        ("float32", "cuda", (torch.float32, None)),
        ("autocast", "cpu", (torch.float32, torch.bfloat16)),
        ("bfloat16", "cuda", (torch.bfloat16, None)),
        ("float16", "cuda", (torch.float16, None)),
    ],
)
def test_a_precision_is_one_of_the_weights_and_one_of_the_products(precision, device, expected):
    assert load._dtypes(precision, torch.device(device)) == expected


def test_a_teacher_is_loaded_in_its_precision(tmp_path):
    stable().save_pretrained(tmp_path / "sd")
    source = str(tmp_path / "sd")
    model = load.load_denoiser(source, precision="autocast")
    assert (model.unet.dtype, model.vae.dtype) == (torch.float32, torch.float32)
    assert model.autocast == torch.bfloat16
    latents = model.to_latents(views()[1])
    assert latents.dtype == torch.float32
    plain = load.load_denoiser(source)
    assert plain.autocast is None
    assert 1e-4 < (latents - plain.to_latents(views()[1])).abs().max() < 0.1
    half = load.load_denoiser(source, precision="float16")
    assert {p.dtype for p in half.parameters()} == {torch.float16}
    assert half.alphas_cumprod.dtype == plain.alphas_cumprod.dtype == torch.float32
    with pytest.raises(ValueError, match="received precision='half'; expected one of float32, "):
        load.load_denoiser(source, precision="half")
    with pytest.raises(ValueError, match="a denoiser of pixels; expected 'float32'"):
        load.load_denoiser("builtin/blocks", precision="autocast")


def test_a_saved_folder_and_a_missing_one(tmp_path):
    model = stable()
    model.save_pretrained(tmp_path / "sd")
    loaded = StableDiffusion.from_pretrained(tmp_path / "sd")
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 500])
    text, cameras = loaded.encode_text(["a", "b"]), torch.zeros(2, 16)
    assert_close(
        loaded.predict_noise(x, t, text, cameras), model.predict_noise(x, t, text, cameras)
    )
    with pytest.raises(OSError, match=r"cannot load the denoiser .*name a mirror"):
        StableDiffusion.from_pretrained(tmp_path / "none")
    with pytest.raises(ValueError, match="takes no cameras"):
        MVDream.from_pretrained(tmp_path / "sd")
    with pytest.raises(ValueError, match="predicts 'sample'; expected one of"):
        stable("sample")


def test_views_are_named_by_where_the_camera_is():
    azimuth = torch.tensor([0.0, 44.0, 46.0, 134.0, 136.0, 180.0, -90.0, -170.0, 0.0])
    elevation = torch.tensor([0.0, 10.0, 0.0, 59.0, 0.0, 30.0, -10.0, 0.0, 61.0])
    found = [VIEWS[i] for i in view_index(orbit(azimuth, elevation, 2.0, 40.0)).tolist()]
    assert found == ["front", "front", "side", "side", "back", "back", "side", "back", "overhead"]


def test_every_view_is_told_its_side():
    model = stable()
    cameras, images = views()
    asked = {}
    predict = model.predict_noise

    def recorded(noisy, t, text, cameras):
        asked["text"] = text
        return predict(noisy, t, text, cameras)

    model.predict_noise = recorded
    teacher = ScoreDistillation(
        model, "a cat", guidance_scale=7.5, view_prompts=True, **between(0.3, 0.9)
    )
    teacher(images, cameras, 0.0, torch.Generator().manual_seed(5))
    expected = model.encode_text(["", "", "", *view_prompts("a cat")[:3]])
    assert_close(asked["text"], expected)
    assert view_prompts("a cat")[0] == "a cat, front view"
