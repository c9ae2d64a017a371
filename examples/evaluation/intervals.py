"""95 % intervals of what is measured for several prompts and seeds."""

from __future__ import annotations

import math

import numpy as np

_Z = 1.96


def wilson(share: float, n: int) -> tuple[float, float]:
    """Interval of a share among n (Wilson, 1927); not empty where all or none are right."""
    z = _Z
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, center - half), min(1.0, center + half)


def bootstrap(values: np.ndarray, seed: int = 0, draws: int = 10_000) -> tuple[float, float]:
    """Interval of the mean of (prompts, seeds) values, over prompts."""
    chosen = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(values.mean(1)[chosen].mean(1), [2.5, 97.5])
    return float(low), float(high)


def interval(values: np.ndarray, *, share: bool = False) -> tuple[float, float]:
    """Interval of the mean of (prompts, seeds) values.

    A share has Wilson's interval for as many draws as there are prompts, as if the seeds of a
    prompt always agreed; everything else has the bootstrap's.
    """
    return wilson(float(values.mean()), len(values)) if share else bootstrap(values)


def formatted(values: np.ndarray, shape: str, *, share: bool = False) -> str:
    """Mean and interval, such as "75% [50%, 90%]"; "–" without values.

    Prompts with a missing value (NaN) are left out.
    """
    values = values[~np.isnan(values).any(1)]
    if not len(values):
        return "–"
    low, high = interval(values, share=share)
    return f"{values.mean():{shape}} [{low:{shape}}, {high:{shape}}]"
