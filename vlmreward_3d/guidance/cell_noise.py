"""Normal noise that is fixed to cells of space, and its sum over the cells that a pixel sees.

The noise of a cell is a function of its coordinates and of a seed, so that nothing is stored and
every cell of an unbounded grid has one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["hashed_bits", "noise_of_cells", "noise_of_pixels", "owners"]

_STEP = -0x61C8864680B583EB
_FACTORS = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
"""Constants of SplitMix64 (Steele et al., 2014) as signed numbers of 64 bits."""
_MANTISSA = 53
"""Bits of a float64."""


def hashed_bits(state: Tensor) -> Tensor:
    """The output of SplitMix64 after states, both int64 of one shape; products wrap around."""
    bits = state + _STEP
    bits = (bits ^ _shifted(bits, 30)) * _FACTORS[0]
    bits = (bits ^ _shifted(bits, 27)) * _FACTORS[1]
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, count: int) -> Tensor:
    """Bits moved to the right, with zeros from the left, where int64 has copies of its sign."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def noise_of_cells(cells: Tensor, seed: int, channels: int) -> Tensor:
    """Independent normal numbers of cells, the same wherever and whenever they are asked for.

    Two hashes of the seed, the coordinates and the channel become uniform numbers of 53 bits, and
    those a normal number (Box and Muller, 1958).

    Args:
        cells: (U, 3) int64 coordinates.
        seed: Seed in [0, 2^63).
        channels: Number C of numbers of each cell.

    Returns:
        (U, C) float64 on the device of the cells.
    """
    key = hashed_bits(torch.full_like(cells[:, 0], seed))
    for coordinate in cells.unbind(-1):
        key = hashed_bits(key ^ coordinate)
    turn = torch.arange(2 * channels, device=cells.device) * _STEP
    uniform = _shifted(hashed_bits(key[:, None] + turn), 64 - _MANTISSA).double() * 2.0**-_MANTISSA
    radius, angle = uniform.unflatten(1, (channels, 2)).unbind(-1)
    return (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * math.pi * angle)


def owners(cells: Tensor, pixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The cells that a picture sees, each with the one pixel that sees most of it.

    Args:
        cells: (M, 3) int64 coordinates of the cells that M rays meet.
        pixels: (M,) the rays' pixels, in [0, count).
        count: Number of pixels.

    Returns:
        (U, 3) different cells, and (U,) the pixel of each; of equal ones the first.
    """
    distinct, number = torch.unique(cells, dim=0, return_inverse=True)
    pairs, votes = torch.unique(number * count + pixels, return_counts=True)
    cell = pairs // count
    order = votes.argsort(descending=True, stable=True)
    order = order[cell[order].argsort(stable=True)]  # by cells, those with most votes first
    first = torch.searchsorted(cell, torch.arange(len(distinct), device=cell.device))
    return distinct, pairs[order[first]] % count


def noise_of_pixels(
    cells: Tensor, pixels: Tensor, count: int, *, seed: int, channels: int
) -> tuple[Tensor, Tensor]:
    """Sums of the noise of the n cells that each pixel owns, divided by the root of n.

    A cell has one owner, so that the pixels of a picture are independent and standard normal,
    whatever is seen.

    Args:
        cells: (M, 3) int64 coordinates of the cells that M rays meet.
        pixels: (M,) the rays' pixels, in [0, count).
        count: Number of pixels.
        seed: Seed of the cells' noise.
        channels: Number C of channels.

    Returns:
        Noise (count, C) in float64, 0 where a pixel owns no cell, and the numbers (count,) of
        cells.
    """
    distinct, owner = owners(cells, pixels, count)
    # in float64, where the order in which a GPU adds does not reach the digits of float32
    sums = torch.zeros(count, channels, dtype=torch.float64, device=cells.device)
    sums.index_add_(0, owner, noise_of_cells(distinct, seed, channels))
    size = torch.bincount(owner, minlength=count)
    return sums / size.clamp_min(1).sqrt()[:, None], size
