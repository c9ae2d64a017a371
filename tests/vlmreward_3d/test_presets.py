"""The blocks preset, and others with the built-in models, fit the models they are for."""

import dataclasses

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
from vlmreward_3d.presets import PRESETS, blocks, with_builtin_models
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


SERVED = {
    "paper": "builtin/blocks",
    "release": "builtin/blocks",
    "mvdream": "builtin/blocks",
    "dreamdpo": "builtin/blocks",
    "rewardsds": "builtin/blocks",
    "dreamfusion": "builtin/single-view",
    "prolificdreamer": "builtin/single-view",
    "dreamgaussian": "builtin/single-view",
}
"""Presets whose method the built-in models can serve, and the denoiser of each."""


@pytest.mark.parametrize(("name", "model"), SERVED.items())
def test_a_presets_method_keeps_its_rule_and_gets_the_scale_of_blocks(name, model):
    own = PRESETS[name]("a red cube", vlm="some")
    kind = next(iter(PRESETS[name].fields))
    reference = blocks("a red cube", field=kind)
    small = with_builtin_models(PRESETS[name])("a red cube", vlm="builtin/blocks")
    assert small.score_distillation == dataclasses.replace(
        own.score_distillation,
        denoiser=model,
        guidance_scale=4.0,
        negative_prompt="",
        view_prompts=False,
    )
    assert (small.vlm.question, small.vlm.objective) == (own.vlm.question, own.vlm.objective)
    assert small.vlm.weighting == dataclasses.replace(own.vlm.weighting, max_grad_ratio=1.0)
    assert (small.camera, small.optimizer, small.regularizers, small.steps) == (
        reference.camera,
        reference.optimizer,
        reference.regularizers,
        reference.steps,
    )
    if name == "dreamgaussian":
        assert small.field.densification == own.field.densification is not None
        assert small.field == dataclasses.replace(
            reference.field, densification=own.field.densification
        )
    else:
        assert small.field == reference.field
    uses = with_builtin_models(PRESETS[name])("a red cube").vlm is not None
    assert uses == PRESETS[name].uses_vlm


def test_blocks_has_the_builtin_models_already():
    assert with_builtin_models(blocks) is blocks


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("mvadapter", "an adapter of Stable Diffusion"),
        ("dreamreward", "the weights of a learnt reward"),
        ("sjc", "latents"),
        ("latent_nerf", "latents"),
    ],
)
def test_what_no_builtin_model_has_is_said(name, needs):
    with pytest.raises(ValueError, match=f"received a preset that needs {needs}"):
        with_builtin_models(PRESETS[name])


def test_every_preset_is_served_or_refused():
    refused = {"mvadapter", "dreamreward", "sjc", "latent_nerf"}
    assert PRESETS.keys() == {"blocks", *SERVED, *refused}
