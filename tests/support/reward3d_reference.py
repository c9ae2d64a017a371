"""Reward3D from the tensors of its authors' files, written down again, and tiny random ones."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN, DEVIATIONS = 0.16717362830052426, {"scorer": 1.0333394966054072, "fusion": 5.0}
HEAD_CHANNELS = 4


def random_state(kind: str, *, words: int, seed: int = 0) -> dict[str, Tensor]:
    """Tensors of the names of "Reward3D_Scorer.pt" or "Reward3D_CrossViewFusion.pt", all small.

    Images of 8 pixels in patches of 4, width 8, texts of width 12, two layers of each.
    """
    vision, text, wide = 8, 12, 16
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, into: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into), (out,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    eye = "blip.visual_encoder"
    shapes[f"{eye}.cls_token"], shapes[f"{eye}.pos_embed"] = (1, 1, vision), (1, 5, vision)
    shapes[f"{eye}.patch_embed.proj.weight"] = (vision, 3, 4, 4)
    shapes[f"{eye}.patch_embed.proj.bias"] = (vision,)
    for i in range(2):
        block = f"{eye}.blocks.{i}"
        norm(f"{block}.norm1", vision)
        norm(f"{block}.norm2", vision)
        linear(f"{block}.attn.qkv", 3 * vision, vision)
        linear(f"{block}.attn.proj", vision, vision)
        linear(f"{block}.mlp.fc1", wide, vision)
        linear(f"{block}.mlp.fc2", vision, wide)
    norm(f"{eye}.norm", vision)

    reader = "blip.text_encoder"
    shapes[f"{reader}.embeddings.word_embeddings.weight"] = (words, text)
    shapes[f"{reader}.embeddings.position_embeddings.weight"] = (16, text)
    norm(f"{reader}.embeddings.LayerNorm", text)
    for i in range(2):
        layer = f"{reader}.encoder.layer.{i}"
        for name, width in (("attention", text), ("crossattention", vision)):
            linear(f"{layer}.{name}.self.query", text, text)
            linear(f"{layer}.{name}.self.key", text, width)
            linear(f"{layer}.{name}.self.value", text, width)
            linear(f"{layer}.{name}.output.dense", text, text)
            norm(f"{layer}.{name}.output.LayerNorm", text)
        linear(f"{layer}.intermediate.dense", wide, text)
        linear(f"{layer}.output.dense", text, wide)
        norm(f"{layer}.output.LayerNorm", text)

    for index, into, out in ((0, text, 20), (2, 20, 6), (4, 6, 5), (6, 5, 3), (7, 3, 1)):
        linear(f"mlp.layers.{index}", out, into)
    if kind == "scorer":
        linear("Scorer.fc1", 10, 24)
        linear("Scorer.fc2", 7, 10)
        linear("Scorer.fc3", 1, 7)
    else:
        attention = "cross_view_adapter.self_attn"
        shapes[f"{attention}.in_proj_weight"] = (3 * text, text)
        shapes[f"{attention}.in_proj_bias"] = (3 * text,)
        linear(f"{attention}.out_proj", text, text)
        linear("cross_view_adapter.fusion_gate.0", text, 2 * text)
    linear("blip.vision_proj", 3, vision)
    linear("blip.text_proj", 3, text)

    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        scale = 0.3 if len(shape) == 1 else 1.5 * torch.Size(shape[1:]).numel() ** -0.5
        state[name] = scale * torch.randn(shape, generator=generator)
        if "orm" in name and name.endswith("weight"):
            state[name] += 1
    state[f"{reader}.embeddings.position_ids"] = torch.arange(16)[None]
    return state


def reward(
    state: dict[str, Tensor], kind: str, pixels: Tensor, tokens: Tensor, mask: Tensor
) -> Tensor:
    """Rewards (B,) of normalized pixels (B * 4, 3, S, S) and texts (B * 4, L)."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, x: Tensor, eps: float) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def attend(q: Tensor, k: Tensor, v: Tensor, shown: Tensor | None = None) -> Tensor:
        q, k, v = (x.unflatten(-1, (-1, HEAD_CHANNELS)).transpose(1, 2) for x in (q, k, v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(HEAD_CHANNELS)
        if shown is not None:
            scores = scores.masked_fill(~shown[:, None, None, :].bool(), -math.inf)
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    eye = "blip.visual_encoder"
    x = F.conv2d(
        pixels,
        state[f"{eye}.patch_embed.proj.weight"],
        state[f"{eye}.patch_embed.proj.bias"],
        stride=4,
    )
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state[f"{eye}.cls_token"].expand(len(x), -1, -1), x], dim=1)
    x = x + state[f"{eye}.pos_embed"]
    for i in range(2):
        block = f"{eye}.blocks.{i}"
        q, k, v = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x, 1e-6)).chunk(3, dim=-1)
        x = x + linear(f"{block}.attn.proj", attend(q, k, v))
        h = linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x, 1e-6))
        x = x + linear(f"{block}.mlp.fc2", F.gelu(h))
    image = norm(f"{eye}.norm", x, 1e-6)

    reader = "blip.text_encoder"
    x = state[f"{reader}.embeddings.word_embeddings.weight"][tokens]
    x = x + state[f"{reader}.embeddings.position_embeddings.weight"][: tokens.shape[1]]
    x = norm(f"{reader}.embeddings.LayerNorm", x, 1e-12)
    for i in range(2):
        layer = f"{reader}.encoder.layer.{i}"
        for name in ("attention", "crossattention"):
            part, context = f"{layer}.{name}", x if name == "attention" else image
            seen = attend(
                linear(f"{part}.self.query", x),
                linear(f"{part}.self.key", context),
                linear(f"{part}.self.value", context),
                mask if name == "attention" else None,
            )
            seen = linear(f"{part}.output.dense", seen)
            x = norm(f"{part}.output.LayerNorm", seen + x, 1e-12)
        h = F.gelu(linear(f"{layer}.intermediate.dense", x))
        x = norm(f"{layer}.output.LayerNorm", linear(f"{layer}.output.dense", h) + x, 1e-12)
    views = x[:, 0].view(-1, 4, x.shape[-1])

    if kind == "scorer":
        y = linear("mlp.layers.2", linear("mlp.layers.0", views)).flatten(1)
        for name in ("fc1", "fc2", "fc3"):
            y = linear(f"Scorer.{name}", y)
    else:
        part = "cross_view_adapter.self_attn"
        q, k, v = F.linear(
            views, state[f"{part}.in_proj_weight"], state[f"{part}.in_proj_bias"]
        ).chunk(3, dim=-1)
        seen = linear(f"{part}.out_proj", attend(q, k, v))
        gate = linear("cross_view_adapter.fusion_gate.0", torch.cat([views, seen], -1)).sigmoid()
        y = (gate * seen + (1 - gate) * views).mean(dim=1)
        for index in (0, 2, 4, 6, 7):
            y = linear(f"mlp.layers.{index}", y)
    return (y[:, 0] - MEAN) / DEVIATIONS[kind]
