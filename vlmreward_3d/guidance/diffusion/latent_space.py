"""The latents of a variational autoencoder, in which latent diffusion models work."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

__all__ = ["LatentSpace"]


class LatentSpace(nn.Module):
    """Base of denoisers of single views on the latents of an autoencoder: encoding and decoding.

    Denoiser and autoencoder compute in their own precision, or under their own autocast,
    independent of any surrounding autocast. Inputs are converted, and outputs have the dtype of
    the inputs.

    Args:
        vae: Autoencoder between images in [-1, 1] and latents.
        resolution: Side of the latents that the denoiser works on.

    Attributes:
        n_views: Number of images in a group; 1 here.
        alphas_cumprod: (T,) abar of each timestep.
        autocast: Dtype of matrix products and convolutions in denoiser and autoencoder, if it
            differs from that of the weights; None computes in the dtype of the weights.
        resolution: Height and width of the latents.
        latent_channels: Number of channels of the latents.
        image_resolution: Height and width of images whose latents have `resolution`.
    """

    n_views = 1
    autocast: torch.dtype | None = None
    alphas_cumprod: Tensor

    def __init__(self, vae: AutoencoderKL, resolution: int) -> None:
        super().__init__()
        self.vae = vae
        self._set_resolution(resolution)

    def _set_resolution(self, resolution: int) -> None:
        self.resolution = resolution
        self.latent_channels = int(self.vae.config.latent_channels)
        self.image_resolution = resolution * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def _shift(self) -> float:
        return self.vae.config.shift_factor or 0.0

    def to_latents(self, images: Tensor) -> Tensor:
        """Images to the space in which noise is added.

        Args:
            images: (N, 3, H, W) in [0, 1], resized to ``image_resolution`` bilinearly, antialiased
                where they shrink, and encoded: the mean of the posterior, less the autoencoder's
                shift, times its scaling factor. Or (N, C, H, W) with the latents' number of
                channels, if those are rendered directly: resized to ``resolution`` and passed on.

        Returns:
            (N, C, r, r) in the dtype of ``images``, differentiable.
        """
        with torch.autocast(images.device.type, enabled=False):
            if images.shape[1] == self.latent_channels:
                return self._resized(images, self.resolution)
            scaled = self._resized(images, self.image_resolution) * 2 - 1
            with self._coding(images.device):
                mean = self.vae.encode(scaled.to(self.vae.dtype)).latent_dist.mode()
            latents = (mean.to(images.dtype) - self._shift) * self.vae.config.scaling_factor
        if latents.requires_grad and torch.float16 in (self.autocast, self.vae.dtype):
            _keep_gradient_in_range(latents, scaled)
        return latents

    @torch.no_grad()
    def to_images(self, latents: Tensor) -> Tensor:
        """Latents (N, C, r, r) decoded to images (N, 3, 8 r, 8 r) in [0, 1], clamped."""
        with self._coding(latents.device):
            scaled = (latents / self.vae.config.scaling_factor + self._shift).to(self.vae.dtype)
            images = self.vae.decode(scaled).sample
        return (images.to(latents.dtype).clamp(-1, 1) + 1) / 2

    def _computing(self, device: torch.device) -> torch.autocast:
        """The autocast under which the denoiser works, if any."""
        return torch.autocast(device.type, self.autocast, enabled=self.autocast is not None)

    def _coding(self, device: torch.device) -> torch.autocast:
        """The autocast under which the autoencoder works, if any."""
        return self._computing(device)

    @staticmethod
    def _resized(images: Tensor, side: int) -> Tensor:
        if images.shape[-2:] == (side, side):
            return images
        return F.interpolate(images, (side, side), mode="bilinear", antialias=True)


def _keep_gradient_in_range(outputs: Tensor, inputs: Tensor) -> None:
    """Scale the gradient between two tensors to a largest entry near 1, and undo it after them.

    In float16, entries below 6e-8 vanish and those below 6e-5 lose digits. The factor is a power of
    two, so that it rounds nothing.
    """
    factor = torch.ones(())

    def scale(gradient: Tensor) -> Tensor:
        nonlocal factor
        largest = gradient.abs().amax().clamp_min(2.0**-100)
        factor = torch.exp2(-largest.log2().floor())
        return gradient * factor

    outputs.register_hook(scale)
    inputs.register_hook(lambda gradient: gradient / factor)
