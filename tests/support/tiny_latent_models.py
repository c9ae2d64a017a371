"""Tiny latent diffusion models and checkpoints in their original layout."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
)

import vlmreward_3d
from vlmreward_3d.guidance.diffusion.mvdream import MVDream
from vlmreward_3d.guidance.diffusion.stable_diffusion import StableDiffusion
from vlmreward_3d.guidance.diffusion.stable_diffusion_xl import StableDiffusionXL

__all__ = [
    "SMALL",
    "TOKENIZER",
    "adapter_state",
    "autoencoder",
    "build",
    "checkpoint",
    "clip_config",
    "randomized",
    "stable",
    "stable_xl",
    "tokenizer",
]

TOKENIZER = Path(vlmreward_3d.__file__).parent / "blocks" / "weights" / "denoiser" / "tokenizer"


SMALL = {"channels": 32, "mult": (1, 2, 2), "blocks": 1, "context": 24, "head_channels": 16}


def tokenizer():
    return AutoTokenizer.from_pretrained(TOKENIZER, model_max_length=12)


def randomized(module, seed=0):
    """Every tensor random, biases and normalizations too."""
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


def stable_xl(**settings):
    """Stable Diffusion XL with three levels, the second and third of which attend."""
    torch.manual_seed(0)
    options = {
        "sample_size": 8,
        "block_out_channels": (32, 32, 64),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (1, 2, 4),
        "cross_attention_dim": 16,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 8 + 6 * 4,
    }
    pipeline = StableDiffusionXLPipeline(
        vae=randomized(autoencoder(scaling_factor=0.3), 1),
        text_encoder=randomized(CLIPTextModel(clip_config(8, num_hidden_layers=2)), 2),
        text_encoder_2=randomized(
            CLIPTextModelWithProjection(clip_config(8, num_hidden_layers=2, projection_dim=8)), 3
        ),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=randomized(UNet2DConditionModel(**{**options, **settings})),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear"),
        add_watermarker=False,
    )
    return StableDiffusionXL(pipeline)


def adapter_state(unet, seed=5):
    """Random tensors of an MV-Adapter, by the names and shapes of its files."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {}
    for place in unet.attn_processors:
        if ".attn1." in place:
            width = unet.get_submodule(place.removesuffix(".processor")).to_q.in_features
            for name in ("to_q_mv", "to_k_mv", "to_v_mv", "to_out_mv.0"):
                shapes[f"{place}.{name}.weight"] = (width, width)
            shapes[f"{place}.to_out_mv.0.bias"] = (width,)
    channels = list(unet.config.block_out_channels)
    large = unet.config.addition_embed_type is not None
    shapes["adapter.conv_in.weight"] = (channels[0], 6 * (16 if large else 8) ** 2, 3, 3)
    shapes["adapter.conv_in.bias"] = (channels[0],)
    if large:
        channels.append(channels[-1])
    for level, width in enumerate(channels):
        before = channels[max(level - 1, 0)]
        convolutions = {"in_conv": (width, before, 1, 1)} if width != before else {}
        for i in range(unet.config.layers_per_block):
            convolutions[f"resnets.{i}.block1"] = (width, width, 3, 3)
            convolutions[f"resnets.{i}.block2"] = (width, width, 1, 1)
        for name, shape in convolutions.items():
            shapes[f"adapter.body.{level}.{name}.weight"] = shape
            shapes[f"adapter.body.{level}.{name}.bias"] = (width,)
    state = {}
    for name, shape in shapes.items():
        scale = 0.1 if len(shape) == 1 else 1.5 * torch.Size(shape[1:]).numel() ** -0.5
        state[name] = scale * torch.randn(shape, generator=generator)
    return state
