"""UNets in diffusers' layout and MV-Adapter beside them, written down again from their tensors.

Functions of state dicts, in the dtype of the tensors: nothing of diffusers' code is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]


def under(prefix: str, state: State) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def count(prefix: str, state: State) -> int:
    """The number of parts whose names are a prefix and an index."""
    found = {k.removeprefix(prefix).split(".")[0] for k in state if k.startswith(prefix)}
    return len(found)


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def conv(x: Tensor, state: State, name: str, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)


def group_norm(x: Tensor, state: State, name: str, eps: float = 1e-5) -> Tensor:
    return F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], eps)


def sinusoids(values: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding, in float32 for any dtype of the weights, as in Stable Diffusion."""
    steps = torch.arange(dim // 2, dtype=torch.float32)
    angles = values[:, None].float() * torch.exp(-math.log(10000) * steps / (dim // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def perceptron(x: Tensor, state: State, name: str) -> Tensor:
    return linear(F.silu(linear(x, state, f"{name}.linear_1")), state, f"{name}.linear_2")


def residual_block(x: Tensor, emb: Tensor, state: State) -> Tensor:
    h = conv(F.silu(group_norm(x, state, "norm1")), state, "conv1")
    h = h + linear(F.silu(emb), state, "time_emb_proj")[:, :, None, None]
    h = conv(F.silu(group_norm(h, state, "norm2")), state, "conv2")
    return h + (conv(x, state, "conv_shortcut") if "conv_shortcut.weight" in state else x)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of (..., length, channels); the caller splits the heads."""
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v


def attention(x: Tensor, context: Tensor, state: State, heads: int) -> Tensor:
    q, k, v = (
        linear(y, state, name).unflatten(-1, (heads, -1)).transpose(1, 2)
        for y, name in ((x, "to_q"), (context, "to_k"), (context, "to_v"))
    )
    return linear(softmax_attention(q, k, v).transpose(1, 2).flatten(2), state, "to_out.0")


def row_attention(x: Tensor, state: State, heads: int, views: int) -> Tensor:
    """A loop over groups, rows and heads."""
    side = math.isqrt(x.shape[1])
    q, k, v = (
        linear(x, state, f"to_{name}_mv").view(-1, views, side, side, heads, x.shape[-1] // heads)
        for name in "qkv"
    )
    seen = torch.zeros_like(q)
    for group in range(len(q)):
        for row in range(side):
            for head in range(heads):
                mine = [part[group, :, row, :, head] for part in (q, k, v)]
                keys, values = (part.reshape(views * side, -1) for part in mine[1:])
                for view in range(views):
                    found = softmax_attention(mine[0][view], keys, values)
                    seen[group, view, row, :, head] = found
    return linear(seen.reshape(x.shape), state, "to_out_mv.0")


def transformer(
    x: Tensor, context: Tensor, state: State, adapter: State, heads: int, views: int
) -> Tensor:
    n, channels, height, width = x.shape
    h = group_norm(x, state, "norm", 1e-6).flatten(2).transpose(1, 2)
    matrices = {
        k: v.flatten(1) if k.startswith("proj_") and v.ndim == 4 else v for k, v in state.items()
    }
    h = linear(h, matrices, "proj_in")
    for index in range(count("transformer_blocks.", state)):
        own, beside = (
            under(f"transformer_blocks.{index}.", tensors) for tensors in (state, adapter)
        )

        def normal(y: Tensor, i: int, own: State = own) -> Tensor:
            weight, bias = own[f"norm{i}.weight"], own[f"norm{i}.bias"]
            return F.layer_norm(y, (channels,), weight, bias)

        y = normal(h, 1)
        added = attention(y, y, under("attn1.", own), heads)
        if beside:
            added = added + row_attention(y, under("attn1.processor.", beside), heads, views)
        h = h + added
        h = h + attention(normal(h, 2), context, under("attn2.", own), heads)
        value, gate = linear(normal(h, 3), own, "ff.net.0.proj").chunk(2, dim=-1)
        h = h + linear(value * F.gelu(gate), own, "ff.net.2")
    h = linear(h, matrices, "proj_out")
    return x + h.transpose(1, 2).reshape(n, channels, height, width)


def camera_features(condition: Tensor, state: State, factor: int, down: set[int]) -> list[Tensor]:
    """MV-Adapter's encoder of conditions (N, 6, H, W); `down` are the blocks that halve first."""
    x = conv(F.pixel_unshuffle(condition, factor), state, "adapter.conv_in")
    found = []
    for index in range(count("adapter.body.", state)):
        block = under(f"adapter.body.{index}.", state)
        if index in down:
            x = F.avg_pool2d(x, 2)
        if "in_conv.weight" in block:
            x = conv(x, block, "in_conv")
        for i in range(count("resnets.", block)):
            h = F.relu(conv(x, block, f"resnets.{i}.block1"))
            x = x + conv(h, block, f"resnets.{i}.block2")
        found.append(x)
    return found


def unet(
    noisy: Tensor,
    t: Tensor,
    context: Tensor,
    state: State,
    *,
    heads: tuple[int, ...],
    adapter: State | None = None,
    features: list[Tensor] = (),
    views: int = 1,
    pooled: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """A UNet of Stable Diffusion, with the features of an adapter on the way down.

    Args:
        noisy: (N, C, h, w).
        t: (N,).
        context: (N, L, D).
        state: Tensors of diffusers' UNet2DConditionModel.
        heads: Attention heads of each level.
        adapter: Tensors of MV-Adapter.
        features: Results of `camera_features`, one a level; one more is added behind the middle.
        views: Views in a group.
        pooled: (N, D) pooled text, of Stable Diffusion XL.
        sizes: (N, 6) sizes that it is told, of Stable Diffusion XL.
    """
    adapter, features = adapter or {}, list(features)
    levels = count("down_blocks.", state)
    emb = sinusoids(t, state["conv_in.weight"].shape[0]).to(noisy)
    emb = perceptron(emb, state, "time_embedding")
    if pooled is not None:
        wide = state["add_embedding.linear_1.weight"].shape[1] - pooled.shape[1]
        told = sinusoids(sizes.flatten(), wide // 6).to(noisy).view(len(noisy), -1)
        emb = emb + perceptron(torch.cat([pooled, told], dim=-1), state, "add_embedding")

    def part(block: str, x: Tensor, index: int, level: int) -> Tensor:
        """A residual block, and the transformer behind it, if there is one."""
        own = under(f"{block}.", state)
        x = residual_block(x, emb, under(f"resnets.{index}.", own))
        inner = under(f"attentions.{index}.", own)
        if not inner:
            return x
        beside = under(f"{block}.attentions.{index}.", adapter)
        return transformer(x, context, inner, beside, heads[level], views)

    x = conv(noisy, state, "conv_in")
    skips = [x]
    for level in range(levels):
        block = f"down_blocks.{level}"
        own = under(f"{block}.", state)
        attends, blocks = any("attentions" in k for k in own), count("resnets.", own)
        for index in range(blocks):
            x = part(block, x, index, level)
            if attends and features and index == blocks - 1:
                x = x + features.pop(0)
            skips.append(x)
        if "downsamplers.0.conv.weight" in own:
            x = conv(x, own, "downsamplers.0.conv", stride=2)
            skips.append(x)
        if not attends and features:  # of what the next level begins with, and of its skip
            x = x + features.pop(0)
            skips[-1] = x
    x = residual_block(x, emb, under("mid_block.resnets.0.", state))
    x = transformer(
        x,
        context,
        under("mid_block.attentions.0.", state),
        under("mid_block.attentions.0.", adapter),
        heads[-1],
        views,
    )
    x = residual_block(x, emb, under("mid_block.resnets.1.", state))
    if features:
        x = x + features.pop(0)
    for level in range(levels):
        block = f"up_blocks.{level}"
        own = under(f"{block}.", state)
        for index in range(count("resnets.", own)):
            x = part(block, torch.cat([x, skips.pop()], dim=1), index, levels - 1 - level)
        if "upsamplers.0.conv.weight" in own:
            x = conv(F.interpolate(x, scale_factor=2.0), own, "upsamplers.0.conv")
    return conv(F.silu(group_norm(x, state, "conv_norm_out")), state, "conv_out")
