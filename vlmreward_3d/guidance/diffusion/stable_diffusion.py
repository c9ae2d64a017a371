"""Stable Diffusion as a score-distillation teacher of single views."""

from __future__ import annotations

from vlmreward_3d.guidance.diffusion.latent import LatentDiffusion

__all__ = ["StableDiffusion"]


class StableDiffusion(LatentDiffusion):
    """Stable Diffusion 1.x or 2.x, of noise or v (DreamFusion's teacher, in its open form).

    Views are denoised one by one and the cameras are not looked at: what a view shows is said by
    the text, see ``vlmreward_3d.guidance.view_prompts``.

    Example:
        ``StableDiffusion.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5")``.
    """
