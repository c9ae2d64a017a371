"""Random image transformations, built from kornia's, for expectations over them."""

from __future__ import annotations

import kornia.augmentation as K
from torch import nn

from vlmreward.utils.arguments import number

__all__ = ["standard_augmentation"]


def standard_augmentation(strength: float = 1.0) -> nn.Sequential:
    """Small random changes of a picture that preserve its content.

    Rotation by up to 10 degrees, shift by 5 %, zoom by 15 % (out of the picture its border is
    repeated, as black corners would be a change that is seen), brightness, contrast and saturation
    by 10 %, and, each half of the time, a blur of up to 1.5 pixels and noise of 0.02. Not among
    them, because questions are asked about it: mirroring, and hue.

    Args:
        strength: factor on all of that; above 0.

    Returns:
        A module ``(N, 3, H, W) -> (N, 3, H, W)``, differentiable, every image with a
        transformation of its own.

    Raises:
        ValueError: ``strength`` is not above 0, or so large that a picture would vanish.
    """
    number("strength", strength, above=0, most=5)
    zoom, light = 0.15 * strength, 0.1 * strength
    return nn.Sequential(
        K.RandomAffine(
            10.0 * strength,
            translate=(0.05 * strength, 0.05 * strength),
            scale=(1 - zoom, 1 + zoom),
            padding_mode="border",
            p=1.0,
        ),
        K.ColorJiggle(light, light, light, 0.0, p=1.0),
        K.RandomGaussianBlur((5, 5), (0.1, max(0.2, 1.5 * strength)), p=0.5),
        K.RandomGaussianNoise(std=0.02 * strength, p=0.5),
    )
