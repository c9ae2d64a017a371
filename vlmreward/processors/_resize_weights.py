"""Weights of PIL's antialiased resize of one axis."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["FILTERS", "dense", "filter_weights", "weight_matrix"]


def _triangle(x: torch.Tensor) -> torch.Tensor:
    return (1.0 - x.abs()).clamp(min=0.0)


def _cubic(x: torch.Tensor, a: float = -0.5) -> torch.Tensor:
    x = x.abs()
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, 0.0))


def _lanczos(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.abs() < 3.0, torch.sinc(x) * torch.sinc(x / 3.0), 0.0)


FILTERS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float]] = {
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}
"""Filter kernel and its half width at scale 1, by name."""


def filter_weights(n_in: int, n_out: int, filter: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights ``(n_out, K)`` and the inputs that they belong to; 0 where there are fewer than K."""
    if filter not in FILTERS:
        raise ValueError(f"filter is {filter!r}; expected one of {sorted(FILTERS)}")
    if n_in < 1 or n_out < 1:
        raise ValueError(f"cannot resize {n_in} to {n_out} pixels; expected at least 1 of each")
    kernel, half_width = FILTERS[filter]
    scale = n_in / n_out
    stretch = max(scale, 1.0)  # when reducing, the filter widens: this is the antialiasing
    support = half_width * stretch
    center = (torch.arange(n_out, dtype=torch.float64)[:, None] + 0.5) * scale
    first = (center - support + 0.5).to(torch.int64).clamp(min=0)
    last = (center + support + 0.5).to(torch.int64).clamp(max=n_in)
    inputs = first + torch.arange(int((last - first).max()))
    weights = kernel((inputs - center + 0.5) * (1.0 / stretch))
    weights = torch.where(inputs < last, weights, 0.0)
    return weights / weights.sum(dim=1, keepdim=True), inputs.clamp(max=n_in - 1)


def dense(weights: torch.Tensor, inputs: torch.Tensor, n_in: int) -> torch.Tensor:
    return weights.new_zeros(len(weights), n_in).scatter_add_(1, inputs, weights)


def weight_matrix(n_in: int, n_out: int, filter: str = "bicubic") -> torch.Tensor:
    """Weights of PIL's antialiased resize of one axis (``precompute_coeffs`` in PIL's Resample.c).

    Args:
        n_in: length of the axis before resizing.
        n_out: length after resizing.
        filter: one of ``FILTERS``.

    Returns:
        float64 ``(n_out, n_in)`` on the CPU; every row sums to 1.

    Examples:
        >>> weight_matrix(4, 2, "bilinear")
        tensor([[0.4286, 0.4286, 0.1429, 0.0000],
                [0.0000, 0.1429, 0.4286, 0.4286]], dtype=torch.float64)
    """
    return dense(*filter_weights(n_in, n_out, filter), n_in)
