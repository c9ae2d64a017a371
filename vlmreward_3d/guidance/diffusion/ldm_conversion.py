"""Conversion of state dicts from the layout of the original latent-diffusion code to diffusers.

The sizes of a network are read from its tensors, so that small copies are converted like the full
model. diffusers' own converter renames the keys, and every key must have a counterpart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

__all__ = ["convert_mvdream_unet", "convert_open_clip_text", "convert_vae", "sub_state_dict"]

State = Mapping[str, Tensor]


def sub_state_dict(state: State, prefix: str) -> dict[str, Tensor]:
    """The entries whose keys have a prefix, with the prefix removed.

    Raises:
        KeyError: there are none.
    """
    found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if not found:
        raise KeyError(
            f"the state dict has nothing under {prefix!r}; expected the layout of the original "
            f"checkpoint, and received keys like {', '.join(list(state)[:3])}"
        )
    return found


def _indices(state: State, before: str) -> list[int]:
    """The numbers that follow a prefix, ascending."""
    return sorted({int(k[len(before) :].split(".")[0]) for k in state if k.startswith(before)})


def _filled(model: nn.Module, state: dict[str, Tensor], given: int, kind: str) -> Any:
    """The model filled with these tensors, all of which it must use."""
    if len(state) != given:
        raise KeyError(f"of the {given} keys of the {kind} {len(state)} have a place; expected all")
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise KeyError(f"the {kind} does not fit: {str(error).splitlines()[1].strip()}") from error
    return model.requires_grad_(False).eval()


def convert_mvdream_unet(
    state: State, *, head_channels: int = 64, sample_size: int = 32
) -> UNet2DConditionModel:
    """MVDream's UNet (Shi et al., 2023) as one of diffusers.

    The camera embedding becomes the class embedding: the 16-number camera is passed as
    ``class_labels``. Attention between views is not part of the weights; see ``merge_views``.

    Args:
        state: keys such as "input_blocks.0.0.weight", as in "sd-v2.1-base-4view.pt" behind
            "model.diffusion_model."; with or without that prefix. Of any sizes, on any device,
            "meta" too; tensors are shared, not copied.
        head_channels: channels of an attention head, which the weights do not tell.
        sample_size: side of the latents.

    Raises:
        KeyError: keys are missing, or have no place.
    """
    prefix = "model.diffusion_model."
    if any(key.startswith(prefix) for key in state):
        state = sub_state_dict(state, prefix)
    names = {
        f"camera_embed.{i}.{kind}": f"label_emb.0.{i}.{kind}"
        for i in (0, 2)
        for kind in ("weight", "bias")
    }
    missing = [k for k in ("input_blocks.0.0.weight", *names) if k not in state]
    if missing:
        raise KeyError(
            f"no MVDream UNet: {missing[0]!r} is missing from the state dict; expected the layout "
            "of sd-v2.1-base-4view.pt"
        )
    renamed = {names.get(key, key): value for key, value in state.items()}
    config = _unet_config(renamed, head_channels)
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=sample_size, **config)
    keyed = {f"model.diffusion_model.{k}": v for k, v in renamed.items()}
    converted = convert_ldm_unet_checkpoint(keyed, dict(unet.config))
    return _filled(unet, converted, len(renamed), "UNet")


def _unet_config(state: State, head_channels: int) -> dict[str, Any]:
    channels: list[int] = [0]
    blocks, attends = [0], [False]
    for i in _indices(state, "input_blocks.")[1:]:
        if f"input_blocks.{i}.0.op.weight" in state:  # the next level
            channels.append(0)
            blocks.append(0)
            attends.append(False)
            continue
        channels[-1] = len(state[f"input_blocks.{i}.0.out_layers.3.weight"])
        blocks[-1] += 1
        attends[-1] |= f"input_blocks.{i}.1.norm.weight" in state
    attention = next(k for k in state if k.endswith("attn2.to_k.weight"))
    projection = state[attention.split("transformer_blocks")[0] + "proj_in.weight"]
    return {
        "in_channels": state["input_blocks.0.0.weight"].shape[1],
        "out_channels": len(state["out.2.weight"]),
        "block_out_channels": tuple(channels),
        "layers_per_block": blocks[0],
        "down_block_types": tuple(
            "CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attends
        ),
        "up_block_types": tuple(
            "CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attends)
        ),
        "cross_attention_dim": state[attention].shape[1],
        "attention_head_dim": tuple(max(1, c // head_channels) for c in channels),
        "use_linear_projection": projection.ndim == 2,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": state["label_emb.0.0.weight"].shape[1],
    }


def convert_vae(state: State, *, scaling_factor: float = 0.18215) -> AutoencoderKL:
    """The autoencoder of Stable Diffusion 1 and 2, as one of diffusers.

    Args:
        state: keys such as "encoder.conv_in.weight"; tensors are shared, not copied.
        scaling_factor: factor of the latents.

    Raises:
        KeyError: keys are missing, or have no place.
    """
    state = {k: v for k, v in state.items() if not k.startswith("loss.")}  # of its training
    levels = _indices(state, "encoder.down.")
    if not levels:
        raise KeyError(
            "no autoencoder: 'encoder.down.0' is missing from the state dict; expected that of "
            "Stable Diffusion 1 or 2"
        )
    channels = [len(state[f"encoder.down.{i}.block.0.conv1.weight"]) for i in levels]
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=channels,
            layers_per_block=len(_indices(state, "encoder.down.0.block.")),
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            latent_channels=len(state["quant_conv.weight"]) // 2,
            scaling_factor=scaling_factor,
        )
    keyed = {f"first_stage_model.{k}": v for k, v in state.items()}
    converted = convert_ldm_vae_checkpoint(keyed, dict(vae.config))
    return _filled(vae, converted, len(state), "autoencoder")


_TEXT_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def convert_open_clip_text(state: State, *, head_channels: int = 64) -> CLIPTextModel:
    """OpenCLIP's text encoder without its last layer, as Stable Diffusion 2 uses it.

    The output is that of the last layer but one behind the final normalization.

    Args:
        state: keys such as "transformer.resblocks.0.ln_1.weight"; what belongs to the pooled
            embedding (text_projection, logit_scale, attn_mask) is left out.
        head_channels: channels of an attention head.

    Raises:
        KeyError: keys are missing.
    """
    layers = _indices(state, "transformer.resblocks.")
    if len(layers) < 2:
        raise KeyError(
            "no OpenCLIP text encoder: 'transformer.resblocks' has no two layers; expected that of "
            "Stable Diffusion 2"
        )
    vocabulary, width = state["token_embedding.weight"].shape
    out: dict[str, Tensor] = {
        "embeddings.token_embedding.weight": state["token_embedding.weight"],
        "embeddings.position_embedding.weight": state["positional_embedding"],
    }
    for kind in ("weight", "bias"):
        out[f"final_layer_norm.{kind}"] = state[f"ln_final.{kind}"]
        for i in layers[:-1]:
            ours, theirs = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
            for old, new in _TEXT_NAMES.items():
                out[f"{ours}.{new}.{kind}"] = state[f"{theirs}.{old}.{kind}"]
            joined = state[f"{theirs}.attn.in_proj_{kind}"].chunk(3)
            for name, value in zip("qkv", joined):
                out[f"{ours}.self_attn.{name}_proj.{kind}"] = value.contiguous()
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=len(state["transformer.resblocks.0.mlp.c_fc.bias"]),
        num_hidden_layers=len(layers) - 1,
        num_attention_heads=width // head_channels,
        max_position_embeddings=len(state["positional_embedding"]),
        hidden_act="gelu",
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=0,
    )
    with torch.device("meta"):
        text = CLIPTextModel(config)
    # not a weight, so that it is not among the tensors
    text.embeddings.position_ids = torch.arange(len(state["positional_embedding"]))[None]
    return _filled(text, out, len(out), "text encoder")
