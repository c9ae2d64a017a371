"""Conversion of BLIP's encoders from the layout of their authors to that of transformers.

The sizes are read off the tensors, so that shrunk copies convert as the full model does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

__all__ = ["convert_text_encoder", "convert_vision_encoder", "load_strictly"]

State = Mapping[str, Tensor]
Model = TypeVar("Model", bound=nn.Module)

_VISION = (
    (r"cls_token", r"embeddings.class_embedding"),
    (r"pos_embed", r"embeddings.position_embedding"),
    (r"patch_embed\.proj\.", r"embeddings.patch_embedding."),
    (r"blocks\.(\d+)\.norm(\d)\.", r"encoder.layers.\1.layer_norm\2."),
    (r"blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
    (r"norm\.", r"post_layernorm."),
)
"""Prefixes of the authors' tensor names, and their counterparts in transformers."""


def convert_vision_encoder(state: State, *, head_channels: int = 64) -> BlipVisionModel:
    """The vision transformer.

    Args:
        state: Names such as "blocks.0.attn.qkv.weight".
        head_channels: Channels of an attention head, which the tensors do not tell.

    Raises:
        KeyError, ValueError: Tensors are missing, unknown or of another shape.
    """
    width, patch = state["cls_token"].shape[-1], state["patch_embed.proj.weight"].shape[-1]
    config = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=len(state["blocks.0.mlp.fc1.weight"]),
        num_hidden_layers=_count("blocks.", state),
        num_attention_heads=width // head_channels,
        image_size=patch * math.isqrt(state["pos_embed"].shape[1] - 1),
        patch_size=patch,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
    )
    with torch.device("meta"):
        model = BlipVisionModel(config)
    return load_strictly(
        model, {_renamed(name): value for name, value in state.items()}, "vision encoder"
    )


def convert_text_encoder(state: State, *, head_channels: int = 64) -> BlipTextModel:
    """The text encoder with cross-attention to the image, from tensors with transformers' names.

    Args:
        state: Names such as "encoder.layer.0.crossattention.self.query.weight".
        head_channels: Channels of an attention head.

    Raises:
        KeyError, ValueError: Tensors are missing, unknown or of another shape.
    """
    vocabulary, width = state["embeddings.word_embeddings.weight"].shape
    length = len(state["embeddings.position_embeddings.weight"])
    config = BlipTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        encoder_hidden_size=state["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=len(state["encoder.layer.0.intermediate.dense.weight"]),
        num_hidden_layers=_count("encoder.layer.", state),
        num_attention_heads=width // head_channels,
        max_position_embeddings=length,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        is_decoder=True,  # it has cross-attention
        use_cache=False,
    )
    with torch.device("meta"):
        model = BlipTextModel(config, add_pooling_layer=False)
    # not a weight: the authors keep it among the tensors, and transformers does not
    model.embeddings.position_ids = torch.arange(length)[None]
    own = {name: value for name, value in state.items() if name != "embeddings.position_ids"}
    return load_strictly(model, own, "text encoder")


def load_strictly(model: Model, state: State, kind: str) -> Model:
    """Load a state dict into the model and return it; the names must match exactly.

    Raises:
        ValueError: Tensors are missing, unknown or of another shape.
    """
    try:
        model.load_state_dict(dict(state), strict=True, assign=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise ValueError(f"its {kind} does not fit: {lines[0].rstrip('.')}") from error
    return model


def _renamed(name: str) -> str:
    for pattern, replacement in _VISION:
        if re.match(pattern, name):
            return re.sub(f"^{pattern}", replacement, name)
    return name


def _count(before: str, state: State) -> int:
    return len({k[len(before) :].split(".")[0] for k in state if k.startswith(before)})
