"""Stable Diffusion 3 as a score-distillation teacher of single views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import StableDiffusion3Pipeline
from torch import Tensor, nn

from vlmreward_3d.guidance.diffusion.flow import (
    alpha_bar_of_flow,
    noise_of_velocity,
    scale_of_flow,
)
from vlmreward_3d.guidance.diffusion.latent_space import LatentSpace
from vlmreward_3d.guidance.diffusion.parts import load_pipeline
from vlmreward_3d.guidance.score_distillation import per_image

__all__ = ["StableDiffusion3"]


class StableDiffusion3(LatentSpace):
    """Stable Diffusion 3 or 3.5: a transformer that predicts the velocity of a flow.

    It is a noise-predicting `Denoiser` like all others, at the abar of each sigma of its scheduler
    (`alpha_bar_of_flow`), so that every distillation rule can use it; "rfds" is the rule that was
    made for flows. The parts are frozen and in eval mode. Views are denoised one by one, and the
    cameras are ignored.

    Args:
        pipeline: Pipeline of diffusers with the parts. The third text encoder, a T5, may be
            missing, as in diffusers: its embeddings are then zeros.

    Attributes:
        sigmas: (T,) share of noise at each timestep, ascending.
    """

    sigmas: Tensor

    def __init__(self, pipeline: StableDiffusion3Pipeline) -> None:
        config = pipeline.transformer.config
        channels = pipeline.vae.config.latent_channels
        if (config.in_channels, config.out_channels) != (channels, channels):
            raise ValueError(
                f"the transformer takes {config.in_channels} channels and gives "
                f"{config.out_channels}; expected {channels} and {channels}, those of the "
                "autoencoder: name a model that is made for text alone"
            )
        super().__init__(pipeline.vae, int(config.sample_size))
        self.transformer = pipeline.transformer
        encoders = (pipeline.text_encoder, pipeline.text_encoder_2, pipeline.text_encoder_3)
        self.text_encoders = nn.ModuleList(part for part in encoders if part is not None)
        self.pipeline = pipeline  # shares its modules with the above
        sigmas = pipeline.scheduler.sigmas
        sigmas = sigmas[sigmas > 0].flip(0).float()
        self.register_buffer("sigmas", sigmas, persistent=False)
        self.register_buffer("alphas_cumprod", alpha_bar_of_flow(sigmas), persistent=False)
        self.requires_grad_(False).eval()

    @classmethod
    def from_pretrained(
        cls, model: str | Path, *, dtype: torch.dtype = torch.float32, **options: Any
    ) -> StableDiffusion3:
        """Load from a diffusers folder or hub id; only safetensors are read.

        Args:
            model: The folder or id, such as "stabilityai/stable-diffusion-3.5-medium".
            dtype: Dtype of the weights; half precision for a GPU.
            **options: Further options of ``from_pretrained``, such as ``revision`` or
                ``text_encoder_3=None`` (with ``tokenizer_3=None``), which saves 9 GB.

        Raises:
            OSError: A part is missing, damaged or cannot be reached.
            ValueError: The parts do not fit each other.
        """
        pipeline = load_pipeline(
            StableDiffusion3Pipeline, model, "Stable Diffusion 3", torch_dtype=dtype, **options
        )
        return cls(pipeline)

    def save_pretrained(self, path: str | Path) -> None:
        """Write the parts as a diffusers folder."""
        self.pipeline.save_pretrained(path)

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> Tensor:
        """Embeddings (n, L + 1, D) of n texts: L rows for the tokens, then the pooled embedding.

        The pooled embedding, which is shorter than D, is followed by zeros.
        """
        embedded, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=list(texts), prompt_2=None, prompt_3=None, do_classifier_free_guidance=False
        )
        row = F.pad(pooled, (0, embedded.shape[-1] - pooled.shape[-1]))
        return torch.cat([embedded, row[:, None]], dim=1)

    def predict_noise(self, noisy: Tensor, t: Tensor, text: Tensor, cameras: Tensor) -> Tensor:
        """Noise in ``noisy``.

        Args:
            noisy: (N, C, r, r) latents z_t.
            t: (N,) integer timesteps, indices of `sigmas`.
            text: (N, L + 1, D) from `encode_text`.
            cameras: (N, 16) camera conditions, which are ignored.

        Returns:
            The noise, in the shape and dtype of ``noisy``. Differentiable.
        """
        sigma = self.sigmas[t]
        scale = per_image(scale_of_flow(sigma), noisy)
        at_sigma = noisy * scale
        dtype = self.transformer.dtype
        width = self.transformer.config.pooled_projection_dim
        with self._computing(noisy.device):
            velocity = self.transformer(
                hidden_states=at_sigma.to(dtype),
                timestep=sigma * self.pipeline.scheduler.config.num_train_timesteps,
                encoder_hidden_states=text[:, :-1].to(dtype),
                pooled_projections=text[:, -1, :width].to(dtype),
            ).sample.to(noisy.dtype)
        return noise_of_velocity(velocity, at_sigma, per_image(sigma, noisy))
