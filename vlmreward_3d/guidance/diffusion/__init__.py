"""Denoisers for score distillation."""

from vlmreward_3d.guidance.diffusion.latent import LatentDiffusion
from vlmreward_3d.guidance.diffusion.mvdream import MVDream
from vlmreward_3d.guidance.diffusion.pixel_space import PixelMultiView
from vlmreward_3d.guidance.diffusion.stable_diffusion import StableDiffusion

__all__ = [
    "LatentDiffusion",
    "MVDream",
    "PixelMultiView",
    "StableDiffusion",
]
