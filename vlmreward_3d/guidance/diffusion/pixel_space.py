"""A small multi-view denoiser in pixel space, in the format of a diffusers folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from vlmreward.models.vocabulary import warn_of_unknown_words
from vlmreward.utils.built_in import DENOISERS, built_in_folder
from vlmreward_3d.guidance.diffusion.multiview_attention import merge_views
from vlmreward_3d.guidance.diffusion.parameterization import check_prediction_type, to_epsilon
from vlmreward_3d.guidance.diffusion.parts import check_fit, load_part, unet_config

__all__ = ["PixelDiffusion"]

GROUP = 4
"""Number of views in a group."""
_PARTS = ("unet", "scheduler", "text_encoder", "tokenizer")


class PixelDiffusion(nn.Module):
    """Text- and camera-conditioned denoiser of groups of views in pixels.

    Args:
        unet: UNet of pixels. With the 16-number camera as ``class_labels`` it is a model of groups
            of four views, whose self-attention is changed in place to merge the views; otherwise
            it is a model of single views.
        scheduler: holder of the noise schedule and of ``prediction_type``: epsilon or v_prediction.
        text_encoder: CLIP-like text model.
        tokenizer: the text encoder's tokenizer.
    """

    alphas_cumprod: Tensor

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scheduler: DDPMScheduler,
        text_encoder: CLIPTextModel,
        tokenizer: Any,
    ) -> None:
        super().__init__()
        self.n_views = GROUP if unet.config.class_embed_type else 1
        check_prediction_type(scheduler)
        check_fit(unet, text_encoder, tokenizer)
        self.unet = merge_views(unet, self.n_views) if self.n_views > 1 else unet
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.scheduler = scheduler
        self._unknown: set[str] = set()
        self.resolution = int(unet.config.sample_size)
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.clone(), persistent=False)

    @property
    def _kind(self) -> str:
        return check_prediction_type(self.scheduler)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> PixelDiffusion:
        """Load, frozen and in float32, from a folder saved by ``save_pretrained``.

        Args:
            path: the folder, or ``"builtin/blocks"`` for the model that comes with the package.

        Raises:
            FileNotFoundError: a part of the model is not there.
            OSError: a part is damaged, or its weights are not those of its configuration.
            ValueError: parts of classes that are not supported, or that do not fit each other.
        """
        folder = built_in_folder(str(path), DENOISERS) or Path(path)
        missing = [part for part in _PARTS if not (folder / part).is_dir()]
        if missing:
            raise FileNotFoundError(
                f"no multi-view denoiser in {folder}: {', '.join(missing)} missing; expected a "
                "folder saved by PixelDiffusion.save_pretrained, or 'builtin/blocks'"
            )
        unet_config(folder)
        model = cls(**{part: load_part(folder, part, dtype=torch.float32) for part in _PARTS})
        return model.requires_grad_(False).eval()

    def save_pretrained(self, path: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the parts as a diffusers folder, the weights in ``dtype``."""
        folder = Path(path)
        keep = next(self.parameters()).dtype
        self.to(dtype)
        self.unet.save_pretrained(folder / "unet")
        self.text_encoder.save_pretrained(folder / "text_encoder")
        self.to(keep)
        self.scheduler.save_pretrained(folder / "scheduler")
        self.tokenizer.save_pretrained(folder / "tokenizer")

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embeddings of n texts: (n, L, D). Differentiable to the text encoder's weights.

        Words that the model was not trained on, if its tokenizer tells, are warned of once.
        """
        warn_of_unknown_words(self.tokenizer, texts, self._unknown)
        length = self.text_encoder.config.max_position_embeddings
        tokens = self.tokenizer(
            texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return self.text_encoder(tokens["input_ids"].to(self.unet.device)).last_hidden_state

    def to_latents(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] to (N, 3, r, r) in [-1, 1], antialiased; differentiable."""
        if images.shape[-2:] != (self.resolution, self.resolution):
            if images.shape[-2] % self.resolution or images.shape[-1] % self.resolution:
                size = (self.resolution, self.resolution)
                images = F.interpolate(images, size, mode="bilinear", antialias=True)
            else:
                images = F.adaptive_avg_pool2d(images, self.resolution)
        return images * 2 - 1

    def to_images(self, latents: Tensor) -> Tensor:
        """Latents (N, 3, r, r) in [-1, 1] to images in [0, 1], clamped."""
        return (latents.detach().clamp(-1, 1) + 1) / 2

    def predict_noise(self, noisy: Tensor, t: Tensor, text: Tensor, cameras: Tensor) -> Tensor:
        """Noise in ``noisy``.

        Args:
            noisy: (G * n_views, 3, r, r), whole groups of views.
            t: (G * n_views,) integer timesteps.
            text: (G * n_views, L, D) from ``encode_text``.
            cameras: (G * n_views, 16) camera conditions.

        Returns:
            The noise, in the shape of ``noisy``. Differentiable.
        """
        output = self(noisy, t, text, cameras)
        return to_epsilon(output, noisy, self.alphas_cumprod[t], self._kind)

    def forward(self, noisy: Tensor, t: Tensor, text: Tensor, cameras: Tensor) -> Tensor:
        """The output that the network was trained on: noise, or v (Salimans and Ho, 2022)."""
        labels = cameras if self.n_views > 1 else None
        return self.unet(noisy, t, encoder_hidden_states=text, class_labels=labels).sample
