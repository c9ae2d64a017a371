"""A test for a monotone trend."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

__all__ = ["mann_kendall"]


def mann_kendall(values: Sequence[float]) -> float:
    """Standard score of a monotone trend (Mann, 1945; Kendall, 1975), with correction for ties.

    Args:
        values: in the order of time.

    Returns:
        About standard normal if the values come in any order alike; positive if they rise. 0 for
        fewer than two values, or equal ones.

    Examples:
        >>> round(mann_kendall([1, 2, 3, 4, 5, 6]), 3)
        2.63
    """
    n = len(values)
    rises = sum(
        (values[j] > values[i]) - (values[j] < values[i]) for j in range(n) for i in range(j)
    )
    variance = n * (n - 1) * (2 * n + 5) / 18
    variance -= sum(t * (t - 1) * (2 * t + 5) / 18 for t in Counter(values).values())
    if rises == 0 or variance <= 0:
        return 0.0
    return (rises - math.copysign(1, rises)) / math.sqrt(variance)
