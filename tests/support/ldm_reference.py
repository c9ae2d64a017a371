"""The networks of the original latent-diffusion code base, written down again from its layout.

Attribute names give the keys of its state dicts. MVDream's UNet is Stable Diffusion 2's with a
camera embedding that is added to that of the time, and with self-attention over all views.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    half = dim // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ResBlock(nn.Module):
    def __init__(self, into: int, out: int, time: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, into), nn.SiLU(), nn.Conv2d(into, out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, out), nn.SiLU(), nn.Dropout(0), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Conv2d(into, out, 1) if into != out else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Attention(nn.Module):
    def __init__(self, dim: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context, dim, bias=False)
        self.to_v = nn.Linear(context, dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(0))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for y in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.to_out((weights @ v).transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 8 * dim)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(dim), nn.Dropout(0), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Block(nn.Module):
    def __init__(self, dim: int, context: int, heads: int, views: int) -> None:
        super().__init__()
        self.views = views
        self.attn1 = Attention(dim, dim, heads)
        self.ff = FeedForward(dim)
        self.attn2 = Attention(dim, context, heads)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        n, length, _ = x.shape
        merged = x.reshape(n // self.views, self.views * length, -1)
        h = self.norm1(merged)
        x = (self.attn1(h, h) + merged).reshape(n, length, -1)
        x = self.attn2(self.norm2(x), context) + x
        return self.ff(self.norm3(x)) + x


class SpatialTransformer(nn.Module):
    def __init__(self, dim: int, context: int, heads: int, views: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, dim, eps=1e-6)
        self.proj_in = nn.Linear(dim, dim)
        self.transformer_blocks = nn.ModuleList([Block(dim, context, heads, views)])
        self.proj_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        h = self.proj_out(self.transformer_blocks[0](h, context))
        return x + h.transpose(1, 2).unflatten(2, x.shape[2:])


class Downsample(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(dim, dim, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def run(layers: nn.Sequential, x: Tensor, emb: Tensor, context: Tensor) -> Tensor:
    for layer in layers:
        if isinstance(layer, ResBlock):
            x = layer(x, emb)
        elif isinstance(layer, SpatialTransformer):
            x = layer(x, context)
        else:
            x = layer(x)
    return x


class MVDreamUNet(nn.Module):
    """Sizes default to the published model."""

    def __init__(
        self,
        channels: int = 320,
        mult: tuple[int, ...] = (1, 2, 4, 4),
        blocks: int = 2,
        context: int = 1024,
        head_channels: int = 64,
        views: int = 4,
    ) -> None:
        super().__init__()
        self.channels = channels
        time = 4 * channels
        self.time_embed, self.camera_embed = (
            nn.Sequential(nn.Linear(n, time), nn.SiLU(), nn.Linear(time, time))
            for n in (channels, 16)
        )

        def attention(dim: int) -> SpatialTransformer:
            return SpatialTransformer(dim, context, dim // head_channels, views)

        dim, kept = channels, [channels]
        inputs = [nn.Sequential(nn.Conv2d(4, channels, 3, padding=1))]
        for level, factor in enumerate(mult):
            attends = level + 1 < len(mult)  # not at the lowest resolution
            for _ in range(blocks):
                layers: list[nn.Module] = [ResBlock(dim, factor * channels, time)]
                dim = factor * channels
                layers += [attention(dim)] if attends else []
                inputs.append(nn.Sequential(*layers))
                kept.append(dim)
            if attends:
                inputs.append(nn.Sequential(Downsample(dim)))
                kept.append(dim)
        self.input_blocks = nn.ModuleList(inputs)
        self.middle_block = nn.Sequential(
            ResBlock(dim, dim, time), attention(dim), ResBlock(dim, dim, time)
        )
        outputs = []
        for level, factor in reversed(list(enumerate(mult))):
            for i in range(blocks + 1):
                layers = [ResBlock(dim + kept.pop(), factor * channels, time)]
                dim = factor * channels
                layers += [attention(dim)] if level + 1 < len(mult) else []
                layers += [Upsample(dim)] if level and i == blocks else []
                outputs.append(nn.Sequential(*layers))
        self.output_blocks = nn.ModuleList(outputs)
        self.out = nn.Sequential(nn.GroupNorm(32, dim), nn.SiLU(), nn.Conv2d(dim, 4, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, context: Tensor, camera: Tensor) -> Tensor:
        emb = self.time_embed(timestep_embedding(t, self.channels).to(x)) + self.camera_embed(
            camera
        )
        kept = []
        for layers in self.input_blocks:
            x = run(layers, x, emb, context)
            kept.append(x)
        x = run(self.middle_block, x, emb, context)
        for layers in self.output_blocks:
            x = run(layers, torch.cat([x, kept.pop()], dim=1), emb, context)
        return self.out(x)


class TextBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(dim, 4 * dim), "c_proj": nn.Linear(4 * dim, dim)}
        )

    def forward(self, x: Tensor) -> Tensor:
        h, n = self.ln_1(x), x.shape[1]
        causal = torch.full((n, n), -torch.inf, dtype=x.dtype).triu(1)
        x = x + self.attn(h, h, h, attn_mask=causal, need_weights=False)[0]
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class OpenClipText(nn.Module):
    """OpenCLIP's text tower; the output is that of the last layer but one, normalized."""

    def __init__(
        self, vocabulary: int, dim: int, layers: int, heads: int, length: int = 77
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, dim)
        self.positional_embedding = nn.Parameter(0.1 * torch.randn(length, dim))
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList([TextBlock(dim, heads) for _ in range(layers)])
        self.ln_final = nn.LayerNorm(dim)
        self.text_projection = nn.Parameter(torch.randn(dim, dim))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token_embedding(tokens) + self.positional_embedding
        for block in self.transformer.resblocks[:-1]:
            x = block(x)
        return self.ln_final(x)


def normalized(dim: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, dim, eps=1e-6)


class VAEBlock(nn.Module):
    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = normalized(into), nn.Conv2d(into, out, 3, padding=1)
        self.norm2, self.conv2 = normalized(out), nn.Conv2d(out, out, 3, padding=1)
        if into != out:
            self.nin_shortcut = nn.Conv2d(into, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class VAEAttention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = normalized(dim)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(dim, dim, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = (q @ k.transpose(1, 2) / math.sqrt(x.shape[1])).softmax(-1)
        return x + self.proj_out((weights @ v).transpose(1, 2).unflatten(2, x.shape[2:]))


class Shrink(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


def middle(dim: int) -> nn.Module:
    mid = nn.Module()
    mid.block_1, mid.attn_1, mid.block_2 = VAEBlock(dim, dim), VAEAttention(dim), VAEBlock(dim, dim)
    return mid


class Coder(nn.Module):
    """Encoder or decoder, which are built of the same levels."""

    def __init__(self, channels: tuple[int, ...], latent: int, blocks: int, decode: bool) -> None:
        super().__init__()
        widest = channels[-1]
        self.decode = decode
        levels: list[nn.Module] = []
        dim = widest if decode else channels[0]
        order = list(enumerate(channels))
        for i, width in order[::-1] if decode else order:
            level = nn.Module()
            count = blocks + decode
            level.block = nn.ModuleList(
                VAEBlock(dim if j == 0 else width, width) for j in range(count)
            )
            dim = width
            if decode and i > 0:
                level.upsample = Upsample(dim)
            if not decode and i + 1 < len(channels):
                level.downsample = Shrink(dim)
            levels.append(level)
        if decode:
            self.up = nn.ModuleList(levels[::-1])
        else:
            self.down = nn.ModuleList(levels)
        self.mid = middle(widest)
        self.conv_in = nn.Conv2d(
            latent if decode else 3, widest if decode else channels[0], 3, padding=1
        )
        self.norm_out = normalized(channels[0] if decode else widest)
        out = (channels[0], 3) if decode else (widest, 2 * latent)
        self.conv_out = nn.Conv2d(*out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        if self.decode:
            x = self._middle(x)
        for level in reversed(self.up) if self.decode else self.down:
            for block in level.block:
                x = block(x)
            for name in ("upsample", "downsample"):
                x = getattr(level, name)(x) if hasattr(level, name) else x
        if not self.decode:
            x = self._middle(x)
        return self.conv_out(F.silu(self.norm_out(x)))

    def _middle(self, x: Tensor) -> Tensor:
        return self.mid.block_2(self.mid.attn_1(self.mid.block_1(x)))


class Autoencoder(nn.Module):
    def __init__(
        self, channels: tuple[int, ...] = (128, 256, 512, 512), latent: int = 4, blocks: int = 2
    ) -> None:
        super().__init__()
        self.encoder = Coder(channels, latent, blocks, decode=False)
        self.decoder = Coder(channels, latent, blocks, decode=True)
        self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1)
        self.post_quant_conv = nn.Conv2d(latent, latent, 1)

    def encode(self, x: Tensor) -> Tensor:
        """The mean of the posterior."""
        return self.quant_conv(self.encoder(x)).chunk(2, dim=1)[0]
