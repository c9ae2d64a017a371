"""A judge of the built-in world's pictures that no example optimizes."""

from __future__ import annotations

from collections.abc import Sequence

import common
import torch
from torch import Tensor, nn

from vlmreward_3d.blocks.world.scenes import COLORS, SHAPES
from vlmreward_3d.cameras import Cameras
from vlmreward_3d.guidance.diffusion.multiview_attention import merge_views
from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion


class DenoiserJudge(nn.Module):
    """The built-in denoiser as a classifier of single pictures (Li et al., 2023).

    It was trained to make pictures and never to answer questions; with the built-in VLM it shares
    the world. The more a prompt helps it to tell noise from picture, the better the prompt fits.

    Args:
        draws: noises a picture, at timesteps spread over a fifth to three fifths of the schedule;
            the same in every call.
        device: device of the denoiser.
    """

    def __init__(self, draws: int = 4, device: str = "cpu") -> None:
        super().__init__()
        self.denoiser = PixelDiffusion.from_pretrained(common.BUILTIN).to(device)
        merge_views(self.denoiser.unet, 1)  # a picture has one view
        self.cameras = Cameras.turntable(draws, elevation=20.0).condition().to(device)
        last = len(self.denoiser.alphas_cumprod)
        self.times = (last * torch.linspace(0.2, 0.6, draws, device=device)).long()
        side = self.denoiser.resolution
        noise = torch.randn(draws, 3, side, side, generator=torch.Generator().manual_seed(0))
        self.noise = noise.to(device)

    @torch.no_grad()
    def errors(self, image: Tensor, prompts: Sequence[str]) -> Tensor:
        """Mean squared error of the noise in a picture (3, H, W), given each of n prompts: (n,)."""
        draws, n = len(self.times), len(prompts)
        alpha = self.denoiser.alphas_cumprod[self.times][:, None, None, None]
        clean = self.denoiser.to_latents(image[None])
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * self.noise
        embedding = self.denoiser.encode_text(list(prompts))
        found = self.denoiser.predict_noise(
            noisy.repeat(n, 1, 1, 1),
            self.times.repeat(n),
            embedding.repeat_interleave(draws, dim=0),
            self.cameras.repeat(n, 1),
        )
        return (found.unflatten(0, (n, draws)) - self.noise).square().mean((1, 2, 3, 4))

    def forward(self, images: Tensor, prompt: str | Sequence[str]) -> Tensor:
        """Fit of the prompt relative to prompts with another color or another shape.

        Args:
            images: (B, 3, H, W) in [0, 1].
            prompt: one, or B, such as "a red cube".

        Returns:
            (B,): standard scores among the errors of the other prompts; positive if it fits better
            than they do on average. Not differentiable.

        Raises:
            ValueError: a prompt of another form.
        """
        prompts = [prompt] * len(images) if isinstance(prompt, str) else prompt
        return torch.stack([self._score(image, prompt) for image, prompt in zip(images, prompts)])

    def _score(self, image: Tensor, prompt: str) -> Tensor:
        color, shape = common.color_and_shape(prompt)
        others = [(c, shape) for c in COLORS if c != color]
        others += [(color, s) for s in SHAPES if s != shape]
        own, *rest = self.errors(image, [prompt, *(f"a {c} {s}" for c, s in others)])
        return (torch.stack(rest).mean() - own) / torch.stack(rest).std()
