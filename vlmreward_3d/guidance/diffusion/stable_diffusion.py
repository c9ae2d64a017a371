"""Stable Diffusion as a score-distillation teacher of single views."""

from __future__ import annotations

from vlmreward_3d.guidance.diffusion.latent import LatentDiffusion

__all__ = ["StableDiffusion"]


class StableDiffusion(LatentDiffusion):
    """Stable Diffusion 1.x or 2.x, which predicts noise or v; an open substitute of DreamFusion's.

    Views are denoised one by one, and the cameras are ignored: the text names the side that a view
    shows; see ``vlmreward_3d.guidance.view_prompts``.

    Example:
        ``StableDiffusion.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5")``.
    """
