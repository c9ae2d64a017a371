"""From the features of a field at a point to what is rendered there: RGB, or latents."""

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
"""What is rendered at points, (P, 3) or (P, 4), from their features (P, F)."""


class ColorHead(nn.Module, ABC):
    """Colors from features.

    Attributes:
        channels: Features at each point.
    """

    channels: int

    @abstractmethod
    def colors(self, *, rgb: bool = False) -> Colors:
        """The function from features to what is rendered now.

        Args:
            rgb: True for RGB in any case, for pictures and meshes.
        """

    @abstractmethod
    def background(self, rgb: Tensor) -> Tensor:
        """Colors (N, 3) in [0, 1] as what is rendered now, (N, 3) or (N, 4)."""

    @abstractmethod
    def end_step(self, progress: float) -> str | None:
        """Change what is rendered, if it is time to.

        Args:
            progress: Share of the run that is done with this step, in (0, 1].

        Returns:
            The change in words; None if there is none.
        """


class RGBHead(ColorHead):
    """Sigmoids of three features."""

    channels = 3

    def colors(self, *, rgb: bool = False) -> Colors:
        """The sigmoid."""
        return torch.sigmoid

    def background(self, rgb: Tensor) -> Tensor:
        """The same colors."""
        return rgb

    def end_step(self, progress: float) -> str | None:
        """Nothing."""
        return None


class LatentHead(ColorHead):
    """Four features that are latents, and later, if so configured, RGB that is decoded from them.

    As in the code of Latent-NeRF, the decoding is not clamped at points.

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
        """Begin with RGB, at the progress of the configuration."""
        if self.refine_at is None or bool(self.refines) or progress < self.refine_at:
            return None
        self.refines.fill_(1)
        return "RGB is rendered from here on, decoded from the latents; the optimizer begins anew"

    def _decode(self, features: Tensor) -> Tensor:
        return latents_to_rgb(features, self.decoder)


def _unchanged(features: Tensor) -> Tensor:
    return features


def build_color_head(config: LatentRenderingConfig | None) -> ColorHead:
    """The head of a configuration; that of RGB for None."""
    return RGBHead() if config is None else LatentHead(config)
