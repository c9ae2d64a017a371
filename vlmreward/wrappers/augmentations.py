"""Random image transformations, built from kornia's, for expectations over them."""

from __future__ import annotations

import kornia.augmentation as K
from torch import nn

from vlmreward.utils.arguments import number

__all__ = ["standard_augmentation"]


def standard_augmentation(strength: float = 1.0) -> nn.Sequential:
    """Small random changes of a picture that preserve its content.

    They are rotation by up to 10 degrees, shift by 5 %, zoom by 15 % (outside the picture its
    border is repeated, because black corners would be visible), brightness, contrast and saturation
    by 10 %, and, each with probability 1/2, a blur of up to 1.5 pixels and noise of 0.02. Mirroring
    and changes of hue are left out, because questions may be about them.

    Args:
        strength: factor of all these changes, above 0.

    Returns:
        A differentiable module ``(N, 3, H, W) -> (N, 3, H, W)``, which draws a separate
        transformation for every image.

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
