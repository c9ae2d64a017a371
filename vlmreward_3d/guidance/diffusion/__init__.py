"""Diffusion models that act as score-distillation teachers."""

from vlmreward.models.loading import quiet

with quiet():  # here, before any other module: what diffusers imports complains
    from diffusers import UNet2DConditionModel as _  # noqa: F401
