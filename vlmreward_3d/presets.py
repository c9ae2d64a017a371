"""Ready-made configurations."""

from __future__ import annotations

import dataclasses
from typing import Any

from vlmreward.rewards.questions import NAMED_QUESTIONS
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.schedule import Schedule

__all__ = ["blocks", "dreamfusion", "mvdream", "paper", "release", "with_gaussians"]

MVDREAM = "sd-v2.1-base-4view.pt"
"""MVDream's checkpoint, by the name under which its authors publish it."""
QWEN = "Qwen/Qwen2.5-VL-7B-Instruct"
VLMS = {
    "qwen2.5-vl": QWEN,
    "qwen3-vl": "Qwen/Qwen3-VL-8B-Instruct",
    "paligemma": "google/paligemma2-3b-mix-448",
    "idefics": "HuggingFaceM4/idefics-9b-instruct",
    "idefics2": "HuggingFaceM4/idefics2-8b",
    "smolvlm": "HuggingFaceTB/SmolVLM-Instruct",
}
"""Checkpoints on the hub, by their families' short names."""
STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
NEGATIVE = "blurry, low quality, distorted, cropped, dull colours"


def blocks(prompt: str, *, steps: int = 300, seed: int = 0, with_vlm: bool = True) -> VLM3DConfig:
    """The built-in models on a laptop CPU.

    As in the paper: Algorithm 1, the selected prompt, lambda from 300 to 1 over the first two
    thirds and then 1 (10,000 of 15,000 steps there), noise annealed as in the authors' release.

    Different from the paper, because the models are small and work in pixels: 4 views of 64 px,
    hundreds of steps, cameras and gray backgrounds as the denoiser was trained on, albedo without
    shading, a dense field that begins with ten times the density of the presets at scale, for crisp
    surfaces after few steps, and a limit to the reward (`vlm_limit`): the paper's 300 weighs
    against sums over 4 x 32 x 32 latents of Stable Diffusion, and here would leave nothing of the
    text's other teacher; lambda times the reward's gradient stays within the score-distillation
    gradient's norm at the pixels. Against the haze that a denoiser on gray backgrounds leaves,
    opacities are pushed to be few, and each to be whole.

    Args:
        prompt: What to make.
        steps: Length of the run.
        seed: Of everything random.
        with_vlm: False for score distillation alone.
    """
    return VLM3DConfig(
        prompt=prompt,
        seed=seed,
        steps=steps,
        denoiser="builtin/blocks",
        vlm="builtin/blocks" if with_vlm else None,
        vlm_prompt="paper/selected",
        fov_deg=(30.0, 45.0),
        elevation_deg=(5.0, 40.0),
        scale=(0.8, 1.0),
        background="gray",
        field_resolutions=(6, 12, 24, 48),
        hash_levels=4,
        hash_resolution=(8, 64),
        hash_size=2**14,
        blob_density=10.0,
        blob_radius=0.5,
        density_scale=10.0,
        samples_per_ray=32,
        learning_rate=Schedule(((0.0, 0.05), (0.7, 0.05), (1.0, 0.01))),
        guidance_scale=4.0,
        guidance_rescale=0.5,
        t_min=Schedule.ramp(0.98, 0.02, until=0.4),
        t_max=Schedule.ramp(0.98, 0.5, until=0.4),
        vlm_weight=Schedule.ramp(300.0, 1.0, until=2 / 3),
        vlm_limit=1.0,
        orientation_weight=Schedule.ramp(0.5, 5.0, until=0.5),
        sparsity_weight=Schedule.ramp(0.0, 200.0, until=0.5),
        entropy_weight=Schedule.ramp(0.0, 60.0),
    )


def with_gaussians(config: VLM3DConfig) -> VLM3DConfig:
    """A configuration with Gaussian splats as its field, and without what they cannot do.

    That is shading, the orientation and total-variation losses, and rendering in chunks of rays.

    Args:
        config: Any.
    """
    off = Schedule.constant(0)
    return dataclasses.replace(
        config,
        field="splats",
        shading=None,
        rays_per_chunk=None,
        orientation_weight=off,
        variation_weight=off,
    )


def _at_scale(prompt: str, **settings: Any) -> VLM3DConfig:
    """What the presets at paper scale share: MVDream's cameras, and our field in place of a NeRF.

    A density and colour pyramid of up to 128 nodes a side stands where the papers have a hash grid
    with a small network, with the blob of Magic3D and of threestudio's configurations, at their
    density; occupancy-aware samples, and deferred back-propagation in chunks of rays.
    """
    shared: dict[str, Any] = {
        "prompt": prompt,
        "vlm_prompt": "paper/selected",
        "vlm_resolution": 256,
        "fov_deg": (15.0, 60.0),
        "elevation_deg": (0.0, 30.0),
        "elevations": "mvdream",
        "scale": (0.8, 1.0),
        "background": "color",
        "field_resolutions": (8, 16, 32, 64, 128),
        "hash_resolution": (16, 4096),
        "blob_density": 10.0,
        "blob_radius": 0.5,
        "density_scale": 1.0,
        "occupancy_resolution": 64,
        "samples_per_ray": 96,
        "rays_per_chunk": 16384,
        "learning_rate": Schedule.constant(1e-2),
        "guidance_scale": 50.0,
        "guidance_rescale": 0.0,
        "t_min": Schedule.constant(0.02),
        "t_max": Schedule.constant(0.98),
        "shared_timestep": True,
        "vlm_weight": Schedule.constant(0.0),
    }
    return VLM3DConfig(**{**shared, **settings})


def paper(
    prompt: str,
    *,
    steps: int = 15_000,
    seed: int = 0,
    with_vlm: bool = True,
    denoiser: str = MVDREAM,
    vlm: str = QWEN,
    hard: bool = False,
) -> VLM3DConfig:
    """VLM3D as its text says (Sec. 5.1 and Appendix A).

    Eight views in two rings at every step, lambda from 300 to 1 over the first two thirds and then
    1, SDS with a guidance of 50 and t ~ U(0, T), orientation loss from 10 to 1000 over the first
    third, no other regulariser. Where the text is silent: 64 px, from a third on 256 px, MVDream's
    cameras, coloured backgrounds, albedo without shading, and a learning rate that fits our field.

    Args:
        prompt: What to make.
        steps: Length of the run; every schedule is relative to it.
        seed: Of everything random.
        with_vlm: False for score distillation alone.
        denoiser: MVDream's file or folder.
        vlm: The reward's model.
        hard: Begin with lambda 800, for long prompts, many objects and rare words.
    """
    return _at_scale(
        prompt,
        steps=steps,
        seed=seed,
        denoiser=denoiser,
        vlm=vlm if with_vlm else None,
        rings=2,
        resolution_later=((1 / 3, 256),),
        distillation="sds",
        t_min=Schedule.constant(0.0),
        t_max=Schedule.constant(1.0),
        vlm_weight=Schedule.ramp(800.0 if hard else 300.0, 1.0, until=2 / 3),
        orientation_weight=Schedule.ramp(10.0, 1000.0, until=1 / 3),
    )


def release(
    prompt: str,
    *,
    steps: int = 20_000,
    seed: int = 0,
    with_vlm: bool = True,
    denoiser: str = MVDREAM,
    vlm: str = QWEN,
) -> VLM3DConfig:
    """VLM3D as its authors' configuration says, which differs from the text.

    Eight views for a quarter of the steps and then four, 64 px and then 256, the reconstruction
    loss with a rescale of 0.5, noise annealed over 8,000 of 20,000 steps, lambda from 300 to 1
    over half of the run and no reward after that, shading from a quarter on, a negative prompt,
    weight decay, and the line ends of their question; the VLM's pixels are not clamped after its
    processor's resize.
    docs/presets.md lists what differs.

    Args:
        prompt: What to make.
        steps: See `paper`; likewise all others.
        seed: See there.
        with_vlm: See there.
        denoiser: See there.
        vlm: See there.
    """
    return _at_scale(
        prompt,
        negative_prompt=NEGATIVE,
        steps=steps,
        seed=seed,
        denoiser=denoiser,
        vlm=vlm if with_vlm else None,
        vlm_prompt=NAMED_QUESTIONS["paper/selected"].replace("\n", " \n"),
        vlm_pixels="float",
        rings=2,
        rings_later=((0.25, 1),),
        resolution_later=((0.25, 256),),
        shading=(0.25, 0.375, 0.375),
        shading_from=0.25,
        weight_decay=0.01,
        distillation="x0",
        guidance_rescale=0.5,
        t_min=Schedule.ramp(0.98, 0.02, until=0.4),
        t_max=Schedule.ramp(0.98, 0.5, until=0.4),
        vlm_weight=Schedule.ramp(300.0, 1.0, until=0.5),
        vlm_until=0.5,
        orientation_weight=Schedule.ramp(10.0, 1000.0, until=0.25),
    )


def mvdream(
    prompt: str,
    *,
    steps: int = 10_000,
    seed: int = 0,
    with_vlm: bool = False,
    denoiser: str = MVDREAM,
    vlm: str = QWEN,
) -> VLM3DConfig:
    """MVDream (Shi et al., 2023) without a reward, as its authors' configuration says.

    Eight views of 64 px for half of the steps and then four of 256 px with shading, the
    reconstruction loss with a rescale of 0.5, noise annealed over 80 % of the run.

    Args:
        prompt: What to make.
        steps: See `paper`; likewise all others.
        seed: See there.
        with_vlm: Add the reward at lambda 1.
        denoiser: See there.
        vlm: See there.
    """
    return _at_scale(
        prompt,
        negative_prompt=NEGATIVE,
        steps=steps,
        seed=seed,
        denoiser=denoiser,
        vlm=vlm if with_vlm else None,
        rings=2,
        rings_later=((0.5, 1),),
        resolution_later=((0.5, 256),),
        shading=(0.25, 0.375, 0.375),
        shading_from=0.5,
        weight_decay=0.01,
        distillation="x0",
        guidance_rescale=0.5,
        t_min=Schedule.ramp(0.98, 0.02, until=0.8),
        t_max=Schedule.ramp(0.98, 0.5, until=0.8),
        vlm_weight=Schedule.constant(1.0),
        orientation_weight=Schedule.ramp(10.0, 1000.0, until=0.5),
    )


def dreamfusion(
    prompt: str,
    *,
    steps: int = 10_000,
    seed: int = 0,
    with_vlm: bool = False,
    denoiser: str = STABLE_DIFFUSION,
    vlm: str = QWEN,
) -> VLM3DConfig:
    """DreamFusion (Poole et al., 2022) with Stable Diffusion, as threestudio's configuration says.

    SDS with a guidance of 100, t ~ U(0.02, 0.98), one view a step, its side said in the prompt,
    64 px throughout, shading from a fifth of the run on, orientation loss from 10 to 1000 over the
    first half and sparsity loss 1. docs/presets.md lists what differs from it and from the paper.

    Args:
        prompt: What to make.
        steps: See `paper`; likewise all others.
        seed: See there.
        with_vlm: Add the reward at lambda 1.
        denoiser: A folder or hub id of Stable Diffusion.
        vlm: See there.
    """
    return _at_scale(
        prompt,
        steps=steps,
        seed=seed,
        denoiser=denoiser,
        view_prompts=True,
        vlm=vlm if with_vlm else None,
        views_per_ring=1,
        fov_deg=(40.0, 70.0),
        elevation_deg=(-10.0, 45.0),
        elevations="threestudio",
        shading=(0.25, 0.375, 0.375),
        shading_from=0.2001,
        distillation="sds",
        guidance_scale=100.0,
        vlm_weight=Schedule.constant(1.0),
        orientation_weight=Schedule.ramp(10.0, 1000.0, until=0.5),
        sparsity_weight=Schedule.constant(1.0),
    )
