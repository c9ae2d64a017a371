"""Loading of the guidances and models that a configuration names."""

from __future__ import annotations

from functools import singledispatch
from pathlib import Path
from typing import Any

import torch

from vlmreward import CompositeReward, YesNoReward
from vlmreward.models.devices import checked_device
from vlmreward.rewards import VLMReward
from vlmreward.rewards.reward3d import Reward3D
from vlmreward_3d.config import PRECISIONS, GuidanceConfig, Reward3DConfig, VLM3DConfig
from vlmreward_3d.guidance.base import Denoiser, Guidance
from vlmreward_3d.guidance.diffusion.mv_adapter import MVAdapter
from vlmreward_3d.guidance.diffusion.mvdream import MVDream
from vlmreward_3d.guidance.diffusion.parts import pipeline_class, unet_config
from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion
from vlmreward_3d.guidance.diffusion.stable_diffusion import StableDiffusion
from vlmreward_3d.guidance.diffusion.stable_diffusion_3 import StableDiffusion3
from vlmreward_3d.guidance.diffusion.stable_diffusion_xl import StableDiffusionXL
from vlmreward_3d.guidance.diffusion.unet_diffusion import UNetDiffusion
from vlmreward_3d.guidance.noise_selection import NoiseSelection
from vlmreward_3d.guidance.rendered_latents import require_latents
from vlmreward_3d.guidance.reward3d import Reward3DGuidance
from vlmreward_3d.guidance.sds import ScoreDistillation
from vlmreward_3d.guidance.vlm import Reward, VLMGuidance
from vlmreward_3d.guidance.weighting import WeightedGuidance

__all__ = ["build_guidances", "load_denoiser", "load_guidance", "load_guidances", "load_reward"]

_FILES = {".pt", ".pth", ".ckpt", ".safetensors"}
_PIPELINES = {
    "StableDiffusion3Pipeline": StableDiffusion3,
    "StableDiffusionXLPipeline": StableDiffusionXL,
}


def load_denoiser(
    source: str,
    *,
    device: torch.device | str = "cpu",
    precision: str | None = None,
    tokenizer: str | None = None,
    adapter: str | None = None,
) -> Denoiser:
    """Load the denoiser, the teacher of score distillation, by its name.

    Args:
        source: "builtin/blocks"; MVDream's single file (recognized by its suffix); or a folder or
            hub id of diffusers, whose pipeline or parts determine the model: Stable Diffusion 3 or
            XL; a UNet with cameras and a VAE is MVDream, with cameras alone a `PixelDiffusion`,
            without cameras Stable Diffusion.
        device: device of the denoiser.
        precision: "float32"; "autocast": weights in float32, matrix products and convolutions in
            float16 (bfloat16 on a CPU), as MVDream's own code computes; "bfloat16" or "float16":
            weights too, in half the memory. Default: "autocast" on a GPU, "float32" elsewhere. A
            `PixelDiffusion` supports "float32" alone.
        tokenizer: tokenizer for MVDream's single file, which has none; see
            `MVDream.from_checkpoint`.
        adapter: file of MV-Adapter, beside Stable Diffusion 2.1 or XL; see
            `MVAdapter.from_pretrained`. None for the denoiser alone.

    Raises:
        OSError: the denoiser cannot be found or loaded.
        TypeError: the name is not a text.
        KeyError, ValueError: the source is of another kind, or there is no such device.
    """
    if not isinstance(source, str):
        raise TypeError(
            f"source is a {type(source).__name__}; expected the name of a denoiser: a text"
        )
    device = checked_device(device) or torch.device("cpu")
    dtype, autocast = _dtypes(precision, device)
    model: UNetDiffusion | StableDiffusion3
    if Path(source).suffix in _FILES:
        options: dict[str, Any] = {"tokenizer": tokenizer} if tokenizer else {}
        model = MVDream.from_checkpoint(source, dtype=dtype, **options)
    elif source.startswith("builtin/") or _has_cameras_alone(source):
        if precision not in (None, "float32"):
            raise ValueError(
                f"received precision={precision!r} for {source!r}, a denoiser of pixels; expected "
                "'float32': leave it out"
            )
        _refuse_adapter(adapter, source)
        return PixelDiffusion.from_pretrained(source).to(device)
    else:
        kind: Any = _PIPELINES.get(pipeline_class(source) or "")
        if kind is None:
            kind = MVDream if _takes_cameras(source) else StableDiffusion
        model = kind.from_pretrained(source, dtype=dtype)
    if isinstance(model, (StableDiffusion, StableDiffusionXL)) and adapter is not None:
        model.attach(MVAdapter.from_pretrained(adapter, model.unet))
    else:
        _refuse_adapter(adapter, source)
    model.autocast = autocast
    return model.to(device)


def _refuse_adapter(adapter: str | None, source: str) -> None:
    if adapter is not None:
        raise ValueError(
            f"received adapter={adapter!r} for {source!r}; expected Stable Diffusion 2.1 or XL in "
            "diffusers' layout: name one as the denoiser, or leave the adapter out"
        )


def _dtypes(precision: str | None, device: torch.device) -> tuple[torch.dtype, torch.dtype | None]:
    """The dtype of the weights, and that of autocast, if any."""
    if precision is None:
        precision = "autocast" if device.type == "cuda" else "float32"
    if precision not in PRECISIONS:
        raise ValueError(
            f"received precision={precision!r}; expected one of {', '.join(PRECISIONS)}; pass one "
            "of them, or None"
        )
    if precision == "autocast":
        return torch.float32, torch.get_autocast_dtype(device.type)
    return getattr(torch, precision), None


def _has_cameras_alone(source: str) -> bool:
    folder = Path(source)
    return (folder / "unet").is_dir() and not (folder / "vae").is_dir()


def _takes_cameras(source: str) -> bool:
    return unet_config(source).get("class_embed_type") == "projection"


def load_reward(config: VLM3DConfig, *, device: torch.device | str = "cpu") -> Reward | None:
    """Load the VLM's reward of a configuration; None if it has no VLM.

    Several questions become one `CompositeReward`, which encodes the views once.

    Raises:
        OSError, TypeError, ValueError: as of `YesNoReward`.
    """
    if config.vlm is None:
        return None
    vlm = config.vlm
    questions = vlm.question if isinstance(vlm.question, tuple) else (vlm.question,)
    reward = YesNoReward(vlm.model, question=questions[0], pixel_mode=vlm.pixel_mode, device=device)
    if isinstance(vlm.question, tuple):
        return CompositeReward(reward, list(questions))
    return reward


def build_guidances(
    config: VLM3DConfig,
    denoiser: Denoiser,
    reward: Reward | None = None,
    *,
    concurrent: bool = False,
) -> list[WeightedGuidance]:
    """Build score distillation and, with a reward, the VLM's guidance from a configuration.

    Args:
        config: The run's settings.
        denoiser: The model that score distillation asks.
        reward: The VLM's reward; None for score distillation alone.
        concurrent: Evaluate the reward while the denoiser works, for a VLM that has a device to
            itself. The results are the same.

    Raises:
        TypeError, ValueError: A model or setting is of another kind, or the field renders latents
            and the denoiser has none like them.
    """
    if config.field.renders_latents:
        require_latents(denoiser)
    sds = config.score_distillation
    distillation = ScoreDistillation(
        denoiser,
        config.prompt,
        negative_prompt=sds.negative_prompt,
        rule=sds.rule,
        guidance_scale=sds.guidance_scale,
        guidance_rescale=sds.guidance_rescale,
        t_min=sds.t_min,
        t_max=sds.t_max,
        view_prompts=sds.view_prompts,
        perp_neg=sds.perp_neg,
        shared_timestep=sds.shared_timestep,
        selection=_selection(config, reward),
        student=sds.student,
        regions=sds.regions,
        seed=config.seed,
    )
    guidances = [WeightedGuidance(distillation, sds.weighting)]
    if reward is not None:
        if config.vlm is None:
            raise ValueError(
                "received a reward for a configuration whose vlm is None; expected a VLMConfig, "
                "which says how the reward weighs; pass a preset's vlm="
            )
        vlm = VLMGuidance(
            reward,
            config.prompt,
            resolution=config.vlm.resolution,
            n_transformations=config.vlm.n_transformations,
            views_per_question=config.vlm.views_per_question,
            objective=config.vlm.objective,
        )
        guidances.append(WeightedGuidance(vlm, config.vlm.weighting, concurrent=concurrent))
    return guidances


def _selection(config: VLM3DConfig, reward: Reward | None) -> NoiseSelection | None:
    """The choice among noises by the reward's VLM, with its own question."""
    selection = config.score_distillation.selection
    if selection is None or reward is None:
        return None
    members = reward.members.values() if isinstance(reward, CompositeReward) else [reward]
    asked = next((member for member in members if isinstance(member, VLMReward)), None)
    return NoiseSelection(
        reward if asked is None else YesNoReward(asked, question=selection.question),
        config.prompt,
        n_candidates=selection.n_candidates,
        stop_at=selection.stop_at,
        ranking=selection.ranking,
        margin=selection.margin,
    )


@singledispatch
def load_guidance(
    config: GuidanceConfig, prompt: str, *, device: torch.device | str = "cpu"
) -> Guidance:
    """Load one of a configuration's `further_guidances`.

    A kind of guidance registers its loader with `load_guidance.register`.

    Args:
        config: The record of the guidance.
        prompt: Text prompt that the images are to match.
        device: Device of the guidance.

    Raises:
        TypeError: There is no loader for this kind of record.
    """
    raise TypeError(
        f"received a {type(config).__name__} among the further guidances; expected a record with a "
        "loader; register one with load_guidance.register"
    )


@load_guidance.register
def _load_reward3d(
    config: Reward3DConfig, prompt: str, *, device: torch.device | str = "cpu"
) -> Reward3DGuidance:
    reward = Reward3D.from_checkpoint(config.checkpoint, tokenizer=config.tokenizer, device=device)
    return Reward3DGuidance(reward, prompt, target=config.target)


def load_guidances(
    config: VLM3DConfig,
    *,
    device: torch.device | str = "cpu",
    vlm_device: torch.device | str | None = None,
) -> list[WeightedGuidance]:
    """Load the guidances of a configuration: score distillation, the VLM and further ones.

    Args:
        config: The run's settings.
        device: Device of the denoiser.
        vlm_device: Separate device of the VLM, on which it runs concurrently with the denoiser;
            None for the denoiser's device.

    Raises:
        KeyError, OSError, TypeError, ValueError: as of `load_reward` and `load_denoiser`.
    """
    reward = load_reward(config, device=vlm_device or device)
    sds = config.score_distillation
    denoiser = load_denoiser(
        sds.denoiser, device=device, precision=sds.precision, adapter=sds.adapter
    )
    guidances = build_guidances(config, denoiser, reward, concurrent=vlm_device is not None)
    for further in config.further_guidances:
        guidance = load_guidance(further, config.prompt, device=device)
        guidances.append(WeightedGuidance(guidance, further.weighting))
    return guidances
