"""Sizes of a model's parts, read from its modules, on the meta device too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from vlmreward.models._acceleration.gradient_checkpointing import layers_of

__all__ = ["Layer", "Tower", "towers"]

_VISION = re.compile(r"(^|\.)(visual|vision\w*)\.")
_CONNECTOR = re.compile(r"connector|perceiver|resampler|projector")


@dataclass(frozen=True)
class Layer:
    """Sizes of one transformer layer that determine its cost for one token.

    Attributes:
        weights: number of weights that every token is multiplied by, once.
        width: width of the hidden states between layers.
        attention: width of all attention heads together.
        window: number of tokens that attention reaches; 0 for all.
        saved: count of values that autograd saves for the backward pass in the model's dtype.
        saved_float32: count of values that autograd saves in float32, the inputs of norms.
    """

    weights: int
    width: int
    attention: int
    window: int
    saved: int
    saved_float32: int


@dataclass(frozen=True)
class Tower:
    """A stack of layers.

    Attributes:
        parameters: number of all parameters, of what precedes and follows the layers too.
        layers: the layers.
    """

    parameters: int
    layers: tuple[Layer, ...]


def towers(vlm: Any) -> tuple[Tower, Tower, int]:
    """The vision tower, the language model with its embeddings, and the rest.

    Args:
        vlm: a model of transformers.

    Returns:
        Vision tower, language model, and the number of parameters of neither, those of connectors.
        All parameters are counted once.
    """
    names = {id(module): name for name, module in vlm.named_modules()}
    vision: list[Layer] = []
    text: list[Layer] = []
    for layer in layers_of(vlm):
        name = f"{names[id(layer)]}."
        if _CONNECTOR.search(name):
            continue
        (vision if _VISION.search(name) else text).append(_layer(layer))
    counts = {"vision": 0, "connector": 0, "text": 0}
    for name, parameter in vlm.named_parameters():
        kind = "connector" if _CONNECTOR.search(name) else "text"
        counts["vision" if kind == "text" and _VISION.search(name) else kind] += parameter.numel()
    vision = _windowed(vision, vlm.config)
    return (
        Tower(counts["vision"], tuple(vision)),
        Tower(counts["text"], tuple(text)),
        counts["connector"],
    )


def _windowed(layers: list[Layer], config: Any) -> list[Layer]:
    """Layers with the reach of their attention, where a configuration has windows of pixels."""
    vision = getattr(config, "vision_config", config)
    side, full = getattr(vision, "window_size", 0), getattr(vision, "fullatt_block_indexes", None)
    if not side or full is None:
        return layers
    window = (side // vision.patch_size) ** 2
    return [layer if i in full else replace(layer, window=window) for i, layer in enumerate(layers)]


def _layer(layer: nn.Module) -> Layer:
    """One layer, by its parts: norms, attention, and what is behind it."""
    weights = sum(p.numel() for p in layer.parameters() if p.ndim > 1)
    attention = saved = float32 = 0
    width = 0
    for part, linears in _blocks(layer):
        inside = linears[-1].in_features
        width = linears[-1].out_features
        if "attention" in type(part).__name__.lower():
            attention = max(attention, inside)
            saved += 4 * inside  # queries, keys, values for each head, and the result
        else:
            gated = sum(linear.out_features for linear in linears[:-1]) >= 2 * inside
            saved += (3 if gated else 1) * inside
    for module in layer.modules():
        weight = getattr(module, "weight", None)
        if "norm" not in type(module).__name__.lower() or not isinstance(weight, Tensor):
            continue
        size = weight.numel()
        if width and size < width and attention % size == 0:  # of queries and keys, head by head
            size = attention
        if isinstance(module, nn.LayerNorm):
            saved += size
        else:
            float32 += size
    return Layer(weights, width, attention, 0, saved, float32)


def _blocks(layer: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Linear]]]:
    """Modules that hold several matrices directly, with these in order."""
    for module in layer.modules():
        linears = [child for child in module.children() if isinstance(child, nn.Linear)]
        if len(linears) > 1:
            yield module, linears
