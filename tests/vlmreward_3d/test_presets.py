"""The blocks preset fits the models it is for."""

import pytest
import torch
from diffusers import DDPMScheduler
from stub_models import RandomDenoiser, between, build_vlm3d, redness, tiny
from torch.testing import assert_close

from vlmreward_3d.blocks.training import train_denoiser
from vlmreward_3d.blocks.world import dataset
from vlmreward_3d.cameras import sample_groups
from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion
from vlmreward_3d.guidance.sds import ScoreDistillation
from vlmreward_3d.presets import blocks
from vlmreward_3d.schedule import Schedule


def test_cameras_are_those_of_the_training_data():
    camera = blocks("a red cube").camera
    assert camera.fov_deg == dataset.FOV_DEG
    assert camera.elevation_deg == dataset.ELEVATION_DEG
    assert camera.object_radius == dataset.CAMERA_SCALE
    assert camera.views_per_group == dataset.RING
    assert camera.resolution == Schedule.constant(dataset.VIEW_SIZE)


@pytest.mark.parametrize("background", ["color", "gray", "white"])
def test_backgrounds_are_one_per_group(background):
    model = build_vlm3d(
        tiny(camera__n_groups=3, camera__background=background), RandomDenoiser(), redness
    )
    groups = model._background(3).view(3, 4, 3)
    assert_close(groups, groups[:, :1].expand(3, 4, 3))
    colors = groups[:, 0]
    assert (colors == 1).all() == (background == "white")
    assert (colors.std(dim=1) < 1e-6).all() == (background != "color")
    if background != "white":
        assert len(colors.unique(dim=0)) == 3
    assert colors.min() >= (0.0 if background == "color" else 0.1)


@pytest.fixture(scope="module")
def denoiser() -> PixelDiffusion:
    """The built-in denoiser's own architecture, untrained."""
    model = train_denoiser.build(0)
    assert isinstance(model.scheduler, DDPMScheduler)
    return model.requires_grad_(False).eval()


def test_the_denoiser_teaches_through_its_downsampling(denoiser):
    camera = blocks("a red cube").camera
    cameras = sample_groups(
        1,
        4,
        fov_deg=camera.fov_deg,
        elevation_deg=camera.elevation_deg,
        object_radius=camera.object_radius,
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
    config = blocks("a red cube", steps=2).replace({"camera.resolution": Schedule.constant(32)})
    model = build_vlm3d(config, denoiser, redness)
    report = model.step()
    assert report.metrics["sds/loss"] > 0
    assert report.metrics["vlm/grad_norm"] > 0
