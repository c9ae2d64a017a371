"""Sampling of pictures from a pixel-space denoiser, optionally guided by a reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor

from vlmreward.utils.arguments import number
from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion
from vlmreward_3d.guidance.score_distillation import (
    classifier_free_guidance,
    predicted_original,
    rescale_guidance,
)

__all__ = ["RewardStep", "sample"]


class RewardStep:
    """A step up the gradient of a reward from predicted originals (Bansal et al., 2023).

    The predicted original is a clean picture even where the sample is still noise, so that a
    reward for clean pictures can evaluate it.

    Args:
        reward: Function reward(images (G, V, 3, S, S) in [0, 1], prompt=list of G texts) -> (G,).
        prompts: Text prompts of the G groups of views.
        length: Length of the step in each group: the norm of the change of all its pixels, which
            are in [-1, 1].
        resolution: Height and width S to which pictures are resized for the reward.

    Raises:
        TypeError, ValueError: The length is not a positive number.
    """

    def __init__(
        self,
        reward: Callable[..., Tensor],
        prompts: Sequence[str],
        *,
        length: float,
        resolution: int = 64,
    ) -> None:
        number("length", length, above=0)
        self.reward = reward
        self.prompts = list(prompts)
        self.length = length
        self.resolution = resolution

    @torch.enable_grad()
    def __call__(self, originals: Tensor) -> Tensor:
        """The originals (G * V, 3, r, r) in [-1, 1] after the step, within [-1, 1]."""
        originals = originals.detach().requires_grad_()
        size = (self.resolution, self.resolution)
        images = F.interpolate((originals + 1) / 2, size, mode="bilinear").clamp(0, 1)
        groups = images.unflatten(0, (len(self.prompts), -1))
        (gradient,) = torch.autograd.grad(self.reward(groups, prompt=self.prompts).sum(), originals)
        flat = gradient.reshape(len(self.prompts), -1)
        flat = flat / flat.norm(dim=1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
        return (originals.detach() + self.length * flat.view_as(originals)).clamp(-1, 1)


@torch.no_grad()
def sample(
    model: PixelDiffusion,
    texts: Sequence[str],
    cameras: Tensor,
    *,
    guidance_scale: float,
    steps: int = 20,
    seed: int = 0,
    change: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Groups of views in [0, 1] by ancestral sampling (DDIM with eta = 1) under guidance.

    Args:
        model: The denoiser.
        texts: G prompts.
        cameras: (N, 16) conditions, N / G of them for each prompt.
        guidance_scale: Scale of classifier-free guidance, rescaled by a half (Lin et al., 2024):
            without that, colors run out of range and noise is left.
        steps: Number of steps.
        seed: Seed of the noise.
        change: Change of the predicted originals (N, 3, r, r) in [-1, 1] in each step, such as a
            `RewardStep`.

    Returns:
        (N, 3, r, r), r the denoiser's resolution.
    """
    generator = torch.Generator().manual_seed(seed)
    n, side = len(cameras), model.resolution
    x = torch.randn(n, 3, side, side, generator=generator)
    both = model.encode_text([*texts, *[""] * len(texts)]).repeat_interleave(n // len(texts), 0)
    scheduler = DDIMScheduler.from_config(
        model.scheduler.config, timestep_spacing="trailing", prediction_type="sample"
    )
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps.tolist():
        eps = model.predict_noise(
            x.repeat(2, 1, 1, 1), torch.full((2 * n,), t), both, cameras.repeat(2, 1)
        )
        conditional, unconditional = eps.chunk(2)
        guided = classifier_free_guidance(unconditional, conditional, guidance_scale)
        alpha_bar = model.alphas_cumprod[t]
        original = rescale_guidance(
            predicted_original(x, guided, alpha_bar),
            predicted_original(x, conditional, alpha_bar),
            factor=0.5,
            group_size=model.n_views,
        ).clamp(-1, 1)
        if change is not None:
            original = change(original)
        x = scheduler.step(original, t, x, eta=1.0, generator=generator).prev_sample
    return (x.clamp(-1, 1) + 1) / 2
