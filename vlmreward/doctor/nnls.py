"""A non-negative linear fit, for forecasts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import torch

__all__ = ["fitted"]


def fitted(
    features: Sequence[Sequence[float]], values: Sequence[float]
) -> tuple[Callable[[Sequence[float]], float], float]:
    """``value = c0 + c1 f1 + c2 f2 + ...`` with no coefficient below 0, in relative least squares.

    A cost never falls as the work grows, which a plain fit to noisy times may claim.

    Args:
        features: features of each of the N measurements.
        values: N, above 0.

    Returns:
        The fit as a function of features, and its largest relative deviation at the measurements.
    """
    x = torch.tensor([[1.0, *map(float, f)] for f in features], dtype=torch.float64)
    y = torch.tensor(list(values), dtype=torch.float64).clamp_min(1e-12)
    unit = x.abs().amax(0).clamp_min(1e-12)
    a = x / unit / y[:, None]
    best = torch.zeros(x.shape[1], dtype=torch.float64)
    least = float("inf")
    # the non-negative optimum is the plain one of some subset of the few columns
    for count in range(1, x.shape[1] + 1):
        for columns in map(list, combinations(range(x.shape[1]), count)):
            found = torch.linalg.lstsq(a[:, columns], torch.ones_like(y), driver="gelsd").solution
            missing = float((a[:, columns] @ found - 1).square().sum())
            if (found >= 0).all() and missing < least - 1e-12:
                least = missing
                best = torch.zeros_like(best)
                best[columns] = found / unit[columns]

    def value(at: Sequence[float]) -> float:
        return float(best @ torch.tensor([1.0, *map(float, at)], dtype=torch.float64))

    off = max(abs(value(f) / float(v) - 1) for f, v in zip(features, y))
    return value, off
