"""Latents of Stable Diffusion as colors, and colors as latents, without an autoencoder.

A latent of the autoencoder of Stable Diffusion stands for 8 x 8 pixels, and their mean color is
nearly a linear function of it. The matrix is that of keturn (forum of Hugging Face, "Decoding
latents to RGB without upscaling", 2022), found from outputs of Stable Diffusion 1.4, whose
autoencoder 1.5 has too; Latent-NeRF (Metzer et al., 2023) begins its refinement with it. For other
autoencoders it is only an approximation. Latents are in the denoiser's scale, multiplied by the
autoencoder's scaling factor.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "LATENT_CHANNELS",
    "LATENT_TO_RGB",
    "decode_latents",
    "encode_colors",
    "latent_matrix",
    "latents_to_rgb",
]

LATENT_TO_RGB = (
    (0.298, 0.207, 0.208),
    (0.187, 0.286, 0.173),
    (-0.158, 0.189, 0.264),
    (-0.184, -0.271, -0.473),
)
"""Rows for the four channels of a latent, columns for red, green and blue in [-1, 1]."""
LATENT_CHANNELS = len(LATENT_TO_RGB)
"""Number of channels of a latent, 4."""


def latent_matrix(like: Tensor) -> Tensor:
    """`LATENT_TO_RGB` (4, 3) in the dtype and on the device of `like`."""
    return torch.tensor(LATENT_TO_RGB, dtype=like.dtype, device=like.device)


def latents_to_rgb(latents: Tensor, matrix: Tensor | None = None) -> Tensor:
    """Colors of latents, channels last: (latents @ matrix + 1) / 2.

    The map is affine, so that it can be applied before or after the compositing of samples along
    rays and the interpolation of grids.

    Args:
        latents: (..., 4), of any size.
        matrix: (4, 3); None for `LATENT_TO_RGB`.

    Returns:
        (..., 3), mostly but not always in [0, 1]: nothing is clamped. Differentiable to latents and
        matrix.
    """
    return (latents @ (latent_matrix(latents) if matrix is None else matrix) + 1) / 2


def decode_latents(latents: Tensor) -> Tensor:
    """Images (N, 3, H, W) of latents (N, 4, H, W), pixel by pixel; see `latents_to_rgb`."""
    return latents_to_rgb(latents.movedim(1, -1)).movedim(-1, 1)


def encode_colors(rgb: Tensor) -> Tensor:
    """The smallest latents that `latents_to_rgb` turns into given colors.

    Many latents of four channels decode to the same color; the result has the least norm of them.
    It serves as the latent of a plain background of that color.

    Args:
        rgb: (..., 3) in [0, 1].

    Returns:
        (..., 4), differentiable.
    """
    return (2 * rgb - 1) @ torch.linalg.pinv(latent_matrix(rgb))
