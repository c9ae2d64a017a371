"""Stable Diffusion XL as a score-distillation teacher of single views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from torch import Tensor, nn

from vlmreward_3d.guidance.diffusion.parts import load_pipeline
from vlmreward_3d.guidance.diffusion.unet_diffusion import UNetDiffusion

__all__ = ["StableDiffusionXL"]


class StableDiffusionXL(UNetDiffusion):
    """Stable Diffusion XL (Podell et al., 2023), which predicts noise or v.

    The UNet is conditioned by two text encoders and by a picture size of ``image_resolution``
    without a crop. The autoencoder would overflow in float16 and always computes in float32. The
    parts are frozen and in eval mode.

    Args:
        pipeline: Pipeline of diffusers with the parts.
    """

    def __init__(self, pipeline: StableDiffusionXLPipeline) -> None:
        _check_fit(pipeline)
        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        super().__init__(pipeline.unet, pipeline.vae, scheduler)
        self.text_encoders = nn.ModuleList([pipeline.text_encoder, pipeline.text_encoder_2])
        self.pipeline = pipeline  # shares its modules with the above
        self.requires_grad_(False).eval()

    @classmethod
    def from_pretrained(
        cls, model: str | Path, *, dtype: torch.dtype = torch.float32, **options: Any
    ) -> StableDiffusionXL:
        """Load from a diffusers folder or hub id; only safetensors are read.

        Args:
            model: The folder or id, such as "stabilityai/stable-diffusion-xl-base-1.0".
            dtype: Dtype of the weights, other than the autoencoder's.
            **options: Further options of ``from_pretrained``, such as ``revision``.

        Raises:
            OSError: A part is missing, damaged or cannot be reached.
            ValueError: Parts that do not fit each other.
        """
        dtypes = {"default": dtype, "vae": torch.float32}
        return cls(
            load_pipeline(
                StableDiffusionXLPipeline,
                model,
                "Stable Diffusion XL",
                torch_dtype=dtypes,
                **options,
            )
        )

    def save_pretrained(self, path: str | Path) -> None:
        """Write the parts as a diffusers folder, without an adapter."""
        self.pipeline.save_pretrained(path)

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> Tensor:
        """Embeddings (n, L + 1, D) of n texts: L rows for the tokens, then the pooled embedding.

        The pooled embedding, which is shorter than D, is followed by zeros. All of "" is zero, if
        the pipeline says so (``force_zeros_for_empty_prompt``).
        """
        embedded, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=list(texts), device=self.unet.device, do_classifier_free_guidance=False
        )
        row = F.pad(pooled, (0, embedded.shape[-1] - pooled.shape[-1]))
        said = torch.cat([embedded, row[:, None]], dim=1)
        if self.pipeline.config.force_zeros_for_empty_prompt:
            said[[i for i, text in enumerate(texts) if not text]] = 0
        return said

    def _text(self, text: Tensor) -> dict[str, Any]:
        side = self.image_resolution
        sizes = text.new_tensor([side, side, 0, 0, side, side]).expand(len(text), -1)
        width = self.pipeline.text_encoder_2.config.projection_dim
        return {
            "encoder_hidden_states": text[:, :-1],
            "added_cond_kwargs": {"text_embeds": text[:, -1, :width], "time_ids": sizes},
        }

    def _coding(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, enabled=False)


def _check_fit(pipeline: StableDiffusionXLPipeline) -> None:
    """Refuse parts of different models, and UNets that take more than noise."""
    config, channels = pipeline.unet.config, pipeline.vae.config.latent_channels
    encoders = (pipeline.text_encoder, pipeline.text_encoder_2)
    if None in encoders:
        raise ValueError(
            "there is one text encoder; expected both, as of the base model of Stable Diffusion "
            "XL: name that, not its refiner"
        )
    width = sum(encoder.config.hidden_size for encoder in encoders)
    pooled = encoders[1].config.projection_dim
    added = pooled + 6 * (config.addition_time_embed_dim or 0)
    for name, received, expected in (
        ("channels of its input", config.in_channels, channels),
        ("channels of its output", config.out_channels, channels),
        ("width of texts", config.cross_attention_dim, width),
        ("width of what is added", config.projection_class_embeddings_input_dim, added),
    ):
        if received != expected:
            raise ValueError(
                f"the UNet of Stable Diffusion XL has {received} as {name}; expected {expected}, "
                "by autoencoder and text encoders: do not mix parts of different models"
            )
