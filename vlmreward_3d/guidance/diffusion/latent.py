"""Latent diffusion models of diffusers' parts as score-distillation teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from vlmreward_3d.guidance.diffusion.parameterization import check_prediction_type, to_epsilon
from vlmreward_3d.guidance.diffusion.parts import KINDS, check_fit, load_part, unet_config

__all__ = ["LatentDiffusion"]


class LatentDiffusion(nn.Module):
    """A UNet on the latents of a variational autoencoder, told what to make by a text encoder.

    The parts are frozen and in eval mode. UNet and autoencoder compute in their own precision, or
    under an autocast of their own, whatever autocast surrounds them; what comes in is converted,
    and what goes out is in the dtype of what came in.

    Args:
        unet: UNet that predicts noise or v.
        vae: Autoencoder between images in [-1, 1] and latents.
        text_encoder: Text encoder, CLIP-like.
        tokenizer: The text encoder's tokenizer; texts are padded to its ``model_max_length``.
        scheduler: Holder of the noise schedule and ``prediction_type``.

    Attributes:
        n_views: images that form one group; 1 here.
        alphas_cumprod: (T,) abar of each timestep.
        autocast: dtype of matrix products and convolutions in UNet and autoencoder, whose weights
            are in another; None computes in that of the weights.
        resolution: side of the latents.
        image_resolution: side of the images that have latents of that side.
    """

    n_views = 1
    autocast: torch.dtype | None = None
    alphas_cumprod: Tensor

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: Any,
        scheduler: DDPMScheduler,
    ) -> None:
        super().__init__()
        check_prediction_type(scheduler)
        check_fit(unet, text_encoder, tokenizer, vae)
        self.unet, self.vae, self.text_encoder = unet, vae, text_encoder
        self.tokenizer, self.scheduler = tokenizer, scheduler
        self.resolution = int(unet.config.sample_size)
        self.image_resolution = self.resolution * 2 ** (len(vae.config.block_out_channels) - 1)
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.clone(), persistent=False)
        self.requires_grad_(False).eval()

    @property
    def _kind(self) -> str:
        return check_prediction_type(self.scheduler)

    @classmethod
    def _parts(cls, model: str | Path, dtype: torch.dtype, **options: Any) -> dict[str, Any]:
        """The parts of a diffusers folder or hub id."""
        unet_config(model)
        return {name: load_part(model, name, dtype=dtype, **options) for name in KINDS}

    @classmethod
    def from_pretrained(
        cls, model: str | Path, *, dtype: torch.dtype = torch.float32, **options: Any
    ) -> Any:
        """Load from a diffusers folder or hub id; only safetensors are read.

        Args:
            model: the folder or id.
            dtype: of the weights; half precision for a GPU.
            **options: of ``from_pretrained``, such as ``revision`` or ``local_files_only``.

        Raises:
            OSError: a part is missing, damaged or cannot be reached, or its weights are not those
                of its configuration.
            ValueError: parts of classes that are not supported or do not fit each other, or the
                model predicts neither noise nor v.
        """
        return cls(**cls._parts(model, dtype, **options))

    def save_pretrained(self, path: str | Path) -> None:
        """Write the parts as a diffusers folder."""
        for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
            getattr(self, name).save_pretrained(Path(path) / name)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embeddings of n texts: (n, L, D)."""
        tokens = self.tokenizer(
            texts,
            padding="max_length",
            max_length=self.text_encoder.config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoder(tokens["input_ids"].to(self.unet.device)).last_hidden_state

    def to_latents(self, images: Tensor) -> Tensor:
        """Images to the space in which noise is added.

        Args:
            images: (N, 3, H, W) in [0, 1], resized to ``image_resolution`` bilinearly, antialiased
                where they shrink, and encoded: the mean of the posterior times the scaling factor.
                Or (N, C, H, W) with the latents' number of channels, if those are rendered
                directly: resized to ``resolution`` and passed on.

        Returns:
            (N, C, r, r) in the dtype of ``images``, differentiable.
        """
        with torch.autocast(images.device.type, enabled=False):
            if images.shape[1] == self.vae.config.latent_channels:
                return self._resized(images, self.resolution)
            scaled = self._resized(images, self.image_resolution) * 2 - 1
            with self._computing(images.device):
                mean = self.vae.encode(scaled.to(self.vae.dtype)).latent_dist.mode()
            latents = mean.to(images.dtype) * self.vae.config.scaling_factor
        if latents.requires_grad and torch.float16 in (self.autocast, self.vae.dtype):
            _keep_gradient_in_range(latents, scaled)
        return latents

    @torch.no_grad()
    def to_images(self, latents: Tensor) -> Tensor:
        """Latents (N, C, r, r) decoded to images (N, 3, 8 r, 8 r) in [0, 1], clamped."""
        with self._computing(latents.device):
            scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
            images = self.vae.decode(scaled).sample
        return (images.to(latents.dtype).clamp(-1, 1) + 1) / 2

    def _computing(self, device: torch.device) -> torch.autocast:
        """The autocast under which UNet and autoencoder work, if any."""
        return torch.autocast(device.type, self.autocast, enabled=self.autocast is not None)

    @staticmethod
    def _resized(images: Tensor, side: int) -> Tensor:
        if images.shape[-2:] == (side, side):
            return images
        return F.interpolate(images, (side, side), mode="bilinear", antialias=True)

    def predict_noise(self, noisy: Tensor, t: Tensor, text: Tensor, cameras: Tensor) -> Tensor:
        """Noise in ``noisy``.

        Args:
            noisy: (N, C, r, r) latents, whole groups of ``n_views``.
            t: (N,) integer timesteps.
            text: (N, L, D) from ``encode_text``.
            cameras: (N, 16) camera conditions.

        Returns:
            The noise, in the shape and dtype of ``noisy``. Differentiable.
        """
        with self._computing(noisy.device):
            dtype = self.unet.dtype
            output = self.unet(
                noisy.to(dtype),
                t,
                encoder_hidden_states=text.to(dtype),
                **self._camera(cameras.to(dtype)),
            ).sample.to(noisy.dtype)
        return to_epsilon(output, noisy, self.alphas_cumprod[t], self._kind)

    def _camera(self, cameras: Tensor) -> dict[str, Tensor]:
        """Arguments of the UNet for the cameras: none."""
        return {}


def _keep_gradient_in_range(outputs: Tensor, inputs: Tensor) -> None:
    """Let gradients pass between two tensors with a largest entry near 1, and undo it behind.

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
