"""Perp-Neg (Armandpour et al., 2023): negative prompts of the sides that a view does not show."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.guidance.view_prompts import VIEWS, view_index

__all__ = ["NEGATIVES", "mixture_of_sides", "perpendicular", "unlike_other_sides"]

NEGATIVES = 2
"""Number of negative prompts of each view."""

_FRONT, _SIDE, _BACK, _OVERHEAD = map(VIEWS.index, ("front", "side", "back", "overhead"))
_FADING, _SIDE_FROM_BACK, _FRONT_FROM_BACK = (4.0, -2.426), (1.0, -0.606), (1.0, 0.967)
"""A and C of the weight A exp(-r / 2) + C, as in threestudio."""


def perpendicular(x: Tensor, y: Tensor) -> Tensor:
    """The component of x that is orthogonal to y, image by image, (N, C, H, W)."""
    flat_x, flat_y = x.flatten(1), y.flatten(1)
    share = (flat_x * flat_y).sum(1) / flat_y.square().sum(1).clamp_min(1e-6)
    return x - share.view(-1, 1, 1, 1) * y


def unlike_other_sides(
    conditional: Tensor, unconditional: Tensor, negatives: Tensor, weights: Tensor
) -> Tensor:
    """eps_c (N, C, H, W), moved along the negatives' components perpendicular to its own direction.

    eps_c + sum_i w_i perp(eps_i - eps_u, eps_c - eps_u); classifier-free guidance of it with the
    scale s is eps_u + s (delta + sum_i w_i perp(delta_i, delta)) of the paper.

    Args:
        conditional: (N, C, H, W) noise predicted for the prompt.
        unconditional: (N, C, H, W) noise predicted for the negative prompt.
        negatives: (`NEGATIVES`, N, C, H, W) noise predicted for the negative sides.
        weights: (N, `NEGATIVES`) their weights, 0 or less.
    """
    delta = conditional - unconditional
    moved = conditional
    for noise, weight in zip(negatives, weights.to(conditional).T):
        moved = moved + weight.view(-1, 1, 1, 1) * perpendicular(noise - unconditional, delta)
    return moved


def mixture_of_sides(cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """Mixing weights of the side prompts of each of N views, and its negative sides with weights.

    From azimuth 0 to 90 degrees the prompt changes from the front to the side, from 90 to 180 from
    the side to the back; above 60 degrees of elevation it is the prompt of the view from above,
    without negatives.

    Returns:
        Shares (N, 4) of the sides of `VIEWS`, which sum to 1; indices (N, 2) of the negative
        sides; their weights (N, 2), 0 or less.
    """
    azimuth = cameras.angles()[:, 0].abs()
    overhead = view_index(cameras) == _OVERHEAD
    shares = azimuth.new_zeros(len(azimuth), len(VIEWS))
    fronts = azimuth < 90
    r = torch.where(fronts, 1 - azimuth / 90, 2 - azimuth / 90)
    shares[:, _FRONT] = torch.where(fronts, r, 0)
    shares[:, _SIDE] = torch.where(fronts, 1 - r, r)
    shares[:, _BACK] = torch.where(fronts, 0, 1 - r)
    shares[overhead] = 0
    shares[overhead, _OVERHEAD] = 1
    first = torch.where(fronts, _FRONT, _SIDE)
    second = torch.where(fronts, _SIDE, _FRONT)
    weights = torch.stack(
        [
            torch.where(fronts, _fading(_FADING, r), _fading(_SIDE_FROM_BACK, r)),
            torch.where(fronts, _fading(_FADING, 1 - r), _fading(_FRONT_FROM_BACK, r)),
        ],
        dim=1,
    )
    weights[overhead] = 0
    return shares, torch.stack([first, second], dim=1), weights


def _fading(parameters: tuple[float, float], r: Tensor) -> Tensor:
    a, c = parameters
    return -(a * torch.exp(-r / 2) + c)
