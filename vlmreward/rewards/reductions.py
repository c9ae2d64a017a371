"""Reductions of the values of several rewards to one value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

__all__ = ["REDUCTIONS", "Reduction"]

Values = Sequence[torch.Tensor]
Reduction = Callable[[Values, Sequence[float], float], torch.Tensor]
"""Values, weights and a temperature -> one value. Numbers stay numbers: a tensor of weights would
have to be copied to a GPU at every call."""


def _sum(values: Values, weights: Sequence[float], temperature: float) -> torch.Tensor:
    return torch.stack([w * v for w, v in zip(weights, values)]).sum(dim=0)


def _mean(values: Values, weights: Sequence[float], temperature: float) -> torch.Tensor:
    return _sum(values, weights, temperature) / sum(weights)


def _min(values: Values, weights: Sequence[float], temperature: float) -> torch.Tensor:
    return torch.stack(list(values)).amin(dim=0)


def _softmin(values: Values, weights: Sequence[float], temperature: float) -> torch.Tensor:
    shares = [math.log(weight / sum(weights)) for weight in weights]
    terms = [share - value / temperature for share, value in zip(shares, values)]
    return -temperature * torch.stack(terms).logsumexp(dim=0)


def _and(values: Values, weights: Sequence[float], temperature: float) -> torch.Tensor:
    # The odds against a and b are (1 + o_a)(1 + o_b) - 1 = o_a + o_b + o_a o_b: as logarithms,
    # nothing is rounded away, however sure the model is
    against = -values[0]
    for value in values[1:]:
        against = torch.logaddexp(torch.logaddexp(against, -value), against - value)
    return -against


REDUCTIONS: dict[str, Reduction] = {
    "sum": _sum,
    "mean": _mean,
    "min": _min,
    "softmin": _softmin,
    "and": _and,
}
"""Reductions of the values m_k of K rewards, with weights w_k, to one value, by name.

- ``"sum"``: sum of w_k m_k; what ``a + 0.5 * b`` makes.
- ``"mean"``: the sum of w_k m_k over the sum of the weights.
- ``"min"``: the smallest value; only its reward has a gradient.
- ``"softmin"``: -T log of the weighted mean of exp(-m_k / T): "min" for T to 0, "mean" for T to
  infinity; every reward has a gradient, the smallest value the largest.
- ``"and"``: for log-odds: the log-odds that all answers are "Yes", if they are independent.
"""
