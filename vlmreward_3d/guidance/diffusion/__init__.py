"""Denoisers for score distillation."""

from vlmreward.models.quiet_loading import quiet

with quiet():  # here, before any other module: what diffusers imports complains
    from diffusers import UNet2DConditionModel as _  # noqa: F401

# isort: split

from vlmreward_3d.guidance.diffusion.latent import LatentDiffusion
from vlmreward_3d.guidance.diffusion.mv_adapter import MVAdapter
from vlmreward_3d.guidance.diffusion.mvdream import MVDream
from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion
from vlmreward_3d.guidance.diffusion.stable_diffusion import StableDiffusion
from vlmreward_3d.guidance.diffusion.stable_diffusion_3 import StableDiffusion3
from vlmreward_3d.guidance.diffusion.stable_diffusion_xl import StableDiffusionXL

__all__ = [
    "LatentDiffusion",
    "MVAdapter",
    "MVDream",
    "PixelDiffusion",
    "StableDiffusion",
    "StableDiffusion3",
    "StableDiffusionXL",
]
