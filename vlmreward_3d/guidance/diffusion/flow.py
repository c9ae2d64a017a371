"""Conversions that make flow-matching models usable as denoisers."""

from __future__ import annotations

from torch import Tensor

__all__ = ["alpha_bar_of_flow", "noise_of_velocity", "scale_of_flow"]


def alpha_bar_of_flow(sigma: Tensor) -> Tensor:
    """The abar at which z_t is a multiple of the flow's z_sigma = (1 - sigma) z + sigma eps.

    Args:
        sigma: share of noise, in [0, 1]; any shape.
    """
    signal = (1 - sigma).square()
    return signal / (signal + sigma.square())


def scale_of_flow(sigma: Tensor) -> Tensor:
    """z_sigma / z_t: the norm of (1 - sigma, sigma)."""
    return ((1 - sigma).square() + sigma.square()).sqrt()


def noise_of_velocity(velocity: Tensor, at_sigma: Tensor, sigma: Tensor) -> Tensor:
    """The noise eps that a velocity v = eps - z means at z_sigma: z_sigma + (1 - sigma) v."""
    return at_sigma + (1 - sigma) * velocity
