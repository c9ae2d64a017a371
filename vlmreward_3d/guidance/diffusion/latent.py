"""Latent diffusion models of diffusers' parts as score-distillation teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from vlmreward_3d.guidance.diffusion.parameterization import check_prediction_type
from vlmreward_3d.guidance.diffusion.parts import KINDS, check_fit, load_part, unet_config
from vlmreward_3d.guidance.diffusion.unet_diffusion import UNetDiffusion

__all__ = ["LatentDiffusion"]


class LatentDiffusion(UNetDiffusion):
    """A UNet on the latents of a variational autoencoder, conditioned by one text encoder.

    The parts are frozen and in eval mode.

    Args:
        unet: UNet that predicts noise or v.
        vae: Autoencoder between images in [-1, 1] and latents.
        text_encoder: Text encoder, CLIP-like.
        tokenizer: The text encoder's tokenizer; texts are padded to its ``model_max_length``.
        scheduler: Holder of the noise schedule and ``prediction_type``.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: Any,
        scheduler: DDPMScheduler,
    ) -> None:
        check_prediction_type(scheduler)
        check_fit(unet, text_encoder, tokenizer, vae)
        super().__init__(unet, vae, scheduler)
        self.text_encoder, self.tokenizer = text_encoder, tokenizer
        self.requires_grad_(False).eval()

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
            dtype: dtype of the weights; half precision is meant for a GPU.
            **options: further options of ``from_pretrained`` of the parts, such as ``revision`` or
                ``local_files_only``.

        Raises:
            OSError: a part is missing, damaged or cannot be reached, or its weights are not those
                of its configuration.
            ValueError: the parts are of unsupported classes or do not fit each other, or the model
                predicts neither noise nor v.
        """
        return cls(**cls._parts(model, dtype, **options))

    def save_pretrained(self, path: str | Path) -> None:
        """Write the parts as a diffusers folder, without an adapter."""
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

    def _text(self, text: Tensor) -> dict[str, Any]:
        return {"encoder_hidden_states": text}
