"""The blocks preset fits the models it is for."""

import dataclasses

import pytest
import torch
from diffusers import DDPMScheduler
from stub_models import RandomDenoiser, between, build_vlm3d, redness, tiny
from torch.testing import assert_close

from vlmreward_3d.blocks.training import train_denoiser
from vlmreward_3d.blocks.world import dataset
from vlmreward_3d.cameras import sample_rings
from vlmreward_3d.guidance.diffusion.pixel_space import PixelMultiView
from vlmreward_3d.guidance.sds import ScoreDistillation
from vlmreward_3d.presets import blocks


def test_cameras_are_those_of_the_training_data():
    config = blocks("a red cube")
    assert config.fov_deg == dataset.FOV_DEG
    assert config.elevation_deg == dataset.ELEVATION_DEG
    assert config.scale == dataset.CAMERA_SCALE
    assert config.views_per_ring == dataset.RING
    assert config.resolution == dataset.VIEW_SIZE


@pytest.mark.parametrize("background", ["color", "gray", "white"])
def test_backgrounds_are_one_per_ring(background):
    model = build_vlm3d(tiny(rings=3, background=background), RandomDenoiser(), redness)
    rings = model._background(3).view(3, 4, 3)
    assert_close(rings, rings[:, :1].expand(3, 4, 3))
    colors = rings[:, 0]
    assert (colors == 1).all() == (background == "white")
    assert (colors.std(dim=1) < 1e-6).all() == (background != "color")
    if background != "white":
        assert len(colors.unique(dim=0)) == 3
    assert colors.min() >= (0.0 if background == "color" else 0.1)


@pytest.fixture(scope="module")
def denoiser() -> PixelMultiView:
    """The built-in denoiser's own architecture, untrained."""
    model = train_denoiser.build(0)
    assert isinstance(model.scheduler, DDPMScheduler)
    return model.requires_grad_(False).eval()


def test_the_denoiser_teaches_through_its_downsampling(denoiser):
    config = blocks("a red cube")
    cameras = sample_rings(
        1,
        4,
        fov_deg=config.fov_deg,
        elevation_deg=config.elevation_deg,
        scale=config.scale,
        generator=torch.Generator().manual_seed(0),
    )
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    one, other = (
        ScoreDistillation(
            denoiser, prompt, guidance_scale=5.0, guidance_rescale=0.5, **between(0.5, 0.6)
        )(images, cameras, 0.0, torch.Generator().manual_seed(2))
        for prompt in ("a red cube", "a blue sphere")
    )
    assert one.gradient.shape == images.shape
    assert one.gradient.isfinite().all()
    # one latent pixel is the mean of 2 x 2
    assert_close(one.gradient[..., ::2, ::2], one.gradient[..., 1::2, 1::2])
    assert not torch.equal(one.gradient, other.gradient)


def test_a_step_of_the_preset_runs_with_it(denoiser):
    config = dataclasses.replace(blocks("a red cube", steps=2), resolution=32)
    model = build_vlm3d(config, denoiser, redness)
    report = model.step()
    assert report.metrics["sds/loss"] > 0
    assert report.metrics["vlm/grad_norm"] > 0
