"""Color heads: from a field's features at a point to the rendered values, RGB or latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from vlmreward_3d.config import LatentRenderingConfig
from vlmreward_3d.rendering.latents import (
    LATENT_CHANNELS,
    encode_colors,
    latent_matrix,
    latents_to_rgb,
)

__all__ = ["ColorHead", "Colors", "LatentHead", "RGBHead", "build_color_head"]

Colors: TypeAlias = Callable[[Tensor], Tensor]
"""Function from features (P, F) of points to rendered values, RGB (P, 3) or latents (P, 4)."""


class ColorHead(nn.Module, ABC):
    """Base of the heads that compute colors from features.

    Attributes:
        channels: Number of features at each point.
    """

    channels: int

    @abstractmethod
    def colors(self, *, rgb: bool = False) -> Colors:
        """The function from features to the values that are rendered at present.

        Args:
            rgb: True for RGB in any case, for pictures and meshes.
        """

    @abstractmethod
    def background(self, rgb: Tensor) -> Tensor:
        """Background colors (N, 3) in [0, 1] as rendered values, RGB (N, 3) or latents (N, 4)."""

    @abstractmethod
    def end_step(self, progress: float) -> str | None:
        """Change the kind of rendered values, if it is due.

        Args:
            progress: Share of the run that is done with this step, in (0, 1].

        Returns:
            The change in words; None if there is none.
        """


class RGBHead(ColorHead):
    """Head of RGB: the sigmoid of three features."""

    channels = 3

    def colors(self, *, rgb: bool = False) -> Colors:
        """The sigmoid."""
        return torch.sigmoid

    def background(self, rgb: Tensor) -> Tensor:
        """The colors themselves."""
        return rgb

    def end_step(self, progress: float) -> str | None:
        """No change; None."""
        return None


class LatentHead(ColorHead):
    """Head of latents: four features, later optionally decoded to RGB by a linear map.

    The decoded colors are not clamped at points, as in the code of Latent-NeRF.

    Args:
        config: Its settings.

    Attributes:
        decoder: (4, 3) matrix of the linear decoding, a parameter where it will be trained.
        refines: Scalar bool, True once RGB is rendered.
    """

    channels = LATENT_CHANNELS
    decoder: Tensor
    refines: Tensor

    def __init__(self, config: LatentRenderingConfig) -> None:
        super().__init__()
        self.refine_at = config.refine_at
        matrix = latent_matrix(torch.zeros(()))
        if self.refine_at is None:
            self.register_buffer("decoder", matrix)
        else:
            self.decoder = nn.Parameter(matrix)
        self.register_buffer("refines", torch.zeros((), dtype=torch.bool))

    def colors(self, *, rgb: bool = False) -> Colors:
        """The features as they are, or decoded."""
        return self._decode if rgb or bool(self.refines) else _unchanged

    def background(self, rgb: Tensor) -> Tensor:
        """The smallest latents of the colors, or the colors themselves."""
        return rgb if bool(self.refines) else encode_colors(rgb)

    def end_step(self, progress: float) -> str | None:
        """Switch to RGB at the progress that the configuration sets."""
        if self.refine_at is None or bool(self.refines) or progress < self.refine_at:
            return None
        self.refines.fill_(1)
        return "RGB is rendered from here on, decoded from the latents; the optimizer begins anew"

    def _decode(self, features: Tensor) -> Tensor:
        return latents_to_rgb(features, self.decoder)


def _unchanged(features: Tensor) -> Tensor:
    return features


def build_color_head(config: LatentRenderingConfig | None) -> ColorHead:
    """The color head for a configuration of latents; the head of RGB for None."""
    return RGBHead() if config is None else LatentHead(config)
