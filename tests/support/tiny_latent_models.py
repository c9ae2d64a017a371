"""Tiny latent diffusion models and checkpoints in their original layout."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel

import vlmreward_3d
from vlmreward_3d.guidance.diffusion.mvdream import MVDream
from vlmreward_3d.guidance.diffusion.stable_diffusion import StableDiffusion

__all__ = [
    "SMALL",
    "TOKENIZER",
    "autoencoder",
    "build",
    "checkpoint",
    "clip_config",
    "randomised",
    "stable",
    "tokenizer",
]

TOKENIZER = Path(vlmreward_3d.__file__).parent / "blocks" / "weights" / "denoiser" / "tokenizer"


SMALL = {"channels": 32, "mult": (1, 2, 2), "blocks": 1, "context": 24, "head_channels": 16}


def tokenizer():
    return AutoTokenizer.from_pretrained(TOKENIZER, model_max_length=12)


def randomised(module, seed=0):
    """Every tensor random, biases and normalisations too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:
                parameter.add_(0.1 * noise)
    return module.eval().requires_grad_(False)


def checkpoint(unet, vae, text):
    parts = {
        "model.diffusion_model": unet,
        "first_stage_model": vae,
        "cond_stage_model.model": text,
    }
    return {
        f"{prefix}.{key}": value.clone()
        for prefix, module in parts.items()
        for key, value in module.state_dict().items()
    }


def build(path):
    return MVDream.from_checkpoint(path, tokenizer=tokenizer(), head_channels=8, sample_size=8)


def autoencoder(**settings):
    return AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        **settings,
    )


def clip_config(width, **settings):
    return CLIPTextConfig(
        vocab_size=len(tokenizer()),
        hidden_size=width,
        intermediate_size=2 * width,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=0,
        eos_token_id=1,
        **settings,
    )


def stable(prediction_type="epsilon"):
    torch.manual_seed(0)
    words = tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=8,
    )
    vae = autoencoder(scaling_factor=0.3)
    text = CLIPTextModel(clip_config(16, num_hidden_layers=1))
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", prediction_type=prediction_type)
    return StableDiffusion(unet, vae, text, words, scheduler)
