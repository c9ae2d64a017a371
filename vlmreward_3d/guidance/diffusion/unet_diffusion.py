"""UNets on latents as score-distillation teachers, independent of the text encoder."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.guidance.diffusion.latent_space import LatentSpace
from vlmreward_3d.guidance.diffusion.mv_adapter import MVAdapter
from vlmreward_3d.guidance.diffusion.parameterization import check_prediction_type, to_epsilon

__all__ = ["UNetDiffusion"]


class UNetDiffusion(LatentSpace):
    """A UNet on the latents of a variational autoencoder.

    Args:
        unet: UNet that predicts noise or v.
        vae: Autoencoder between images in [-1, 1] and latents.
        scheduler: Holder of the noise schedule and ``prediction_type``.

    Attributes:
        adapter: Adapter that makes the UNet denoise several views at once; None without one.
    """

    adapter: MVAdapter | None

    def __init__(
        self, unet: UNet2DConditionModel, vae: AutoencoderKL, scheduler: DDPMScheduler
    ) -> None:
        check_prediction_type(scheduler)
        super().__init__(vae, int(unet.config.sample_size))
        self.unet, self.scheduler, self.adapter = unet, scheduler, None
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.clone(), persistent=False)

    @property
    def _kind(self) -> str:
        return check_prediction_type(self.scheduler)

    def attach(self, adapter: MVAdapter) -> Any:
        """Make the UNet denoise groups of views, in place.

        The adapter determines the number of views, the noise schedule and the largest side of the
        latents, as in its training.

        Returns:
            This denoiser.

        Raises:
            ValueError: The denoiser has an adapter already, or its UNet takes cameras.
        """
        if self.n_views != 1:
            raise ValueError(
                f"received an adapter of views for a denoiser of {self.n_views} views; expected "
                "one of single views, such as Stable Diffusion: name that"
            )
        adapter.install(self.unet)
        self.adapter = adapter.requires_grad_(False).eval()
        self.n_views = adapter.n_views
        self.alphas_cumprod = adapter.alphas_cumprod(self.alphas_cumprod)
        self._set_resolution(min(self.resolution, adapter.resolution))
        return self

    def check_cameras(self, cameras: Cameras) -> None:
        """Refuse cameras unlike those of the adapter's training, if there is an adapter.

        Raises:
            ValueError: The cameras differ from those of the training.
        """
        if self.adapter is not None:
            self.adapter.check_cameras(cameras)

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
                noisy.to(dtype), t, **self._text(text.to(dtype)), **self._camera(cameras.to(dtype))
            ).sample.to(noisy.dtype)
        return to_epsilon(output, noisy, self.alphas_cumprod[t], self._kind)

    @abstractmethod
    def encode_text(self, texts: list[str]) -> Tensor:
        """Embeddings (n, L, D) of n texts."""

    @abstractmethod
    def _text(self, text: Tensor) -> dict[str, Any]:
        """Arguments of the UNet for texts (N, L, D)."""

    def _camera(self, cameras: Tensor) -> dict[str, Any]:
        """Arguments of the UNet for the cameras (N, 16)."""
        if self.adapter is None:
            return {}
        residuals = self.adapter(cameras, self.resolution)
        return {"down_intrablock_additional_residuals": residuals}
