"""Ratings of methods from the results of their comparisons: pure functions of float64 arrays.

The model is Bradley and Terry's (1952): method i wins against method j with the probability
``1 / (1 + 10^((R_j - R_i) / 400))``, in Elo's units. GPTEval3D minimizes the same objective.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Array = NDArray[np.float64]

ELO = 400 / math.log(10)
"""Elo points in a unit of log-odds."""
MEAN = 1000.0
"""Mean of the ratings, and the rating of an anchor."""
VIRTUAL_GAMES = 1.0
"""Games, half of them won, that each method plays against an average one where that is needed."""
_VIRTUAL_IN_RESAMPLES = 0.1
_LONGEST_STEP = 1.0
_MOST_STEPS = 500


@dataclass(frozen=True)
class Ratings:
    """Ratings of n methods, in Elo points.

    Attributes:
        elo: (n,).
        low: (n,) lower ends of the 95 % intervals.
        high: (n,) upper ends.
        regularized: True if methods played virtual games, because without them the best ratings
            would be infinite.
    """

    elo: Array
    low: Array
    high: Array
    regularized: bool


def win_matrices(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    result: NDArray[np.int64],
    prompt: NDArray[np.int64],
    *,
    methods: int,
    prompts: int,
    draw: float = 0.5,
) -> Array:
    """Wins of each method against each other one, prompt by prompt.

    Args:
        first: (k,) number of the first method of each comparison, in [0, methods).
        second: (k,) number of the second method of each comparison, in [0, methods).
        result: (k,) -1 if the first won, 1 if the second did, 0 for a draw.
        prompt: (k,) number of the prompt, in [0, prompts).
        methods: number of methods.
        prompts: number of prompts.
        draw: wins that each side gets for a draw; 1 in GPTEval3D.

    Returns:
        (prompts, methods, methods): row wins against column.
    """
    wins = np.zeros((prompts, methods, methods))
    np.add.at(wins, (prompt, first, second), np.where(result < 0, 1.0, draw * (result == 0)))
    np.add.at(wins, (prompt, second, first), np.where(result > 0, 1.0, draw * (result == 0)))
    return wins


def strongly_connected(wins: Array) -> bool:
    """True if every method has beaten every other one, be it over others in between.

    Ratings of largest likelihood exist if and only if that is so (Ford, 1957).

    Args:
        wins: (n, n): row wins against column.
    """
    n = len(wins)
    reached = (wins > 0) | np.eye(n, dtype=bool)
    for _ in range(max(1, math.ceil(math.log2(n)))):
        reached = reached @ reached
    return bool(reached.all())


def objective(elo: Array, wins: Array) -> float:
    """GPTEval3D's: the sum of ``wins_ij log(1 + 10^((R_j - R_i) / 400))``, in nats.

    Args:
        elo: (n,).
        wins: (n, n): row wins against column.
    """
    return float((wins * np.logaddexp(0, (elo[None] - elo[:, None]) / ELO)).sum())


def fit(wins: Array, *, virtual_games: float = 0.0, start: Array | None = None) -> Array:
    """Minimize ``objective`` by Newton's method, for many tournaments at a time.

    Args:
        wins: (..., n, n): row wins against column. Strongly connected, or with virtual games.
        virtual_games: games of each method, half of them won, against one of rating 0.
        start: (..., n) ratings to start from.

    Returns:
        (..., n) ratings in Elo points with mean 0.

    Raises:
        ValueError: the minimum is at infinity.
    """
    n = wins.shape[-1]
    games = wins + wins.swapaxes(-1, -2)
    ahead = wins.sum(-1)
    strength = np.zeros(wins.shape[:-1]) if start is None else start / ELO + np.zeros_like(ahead)
    # the objective is blind to the mean, which a term of this size keeps where it is
    level = 0.0 if virtual_games else np.maximum(games.sum((-1, -2)), 1.0)[..., None, None] / n**2
    diagonal = np.arange(n)
    for _ in range(_MOST_STEPS):
        expected = expit(strength[..., :, None] - strength[..., None, :])
        alone = expit(strength)
        slope = ahead - (games * expected).sum(-1) + virtual_games * (0.5 - alone)
        weight = games * expected * (1 - expected)
        curvature = level - weight
        curvature[..., diagonal, diagonal] += weight.sum(-1) + virtual_games * alone * (1 - alone)
        try:
            step = np.linalg.solve(curvature, slope[..., None])[..., 0]
        except np.linalg.LinAlgError:  # flat, far away from all finite ratings
            break
        size = np.abs(step).max(-1, keepdims=True)
        strength = strength + step * np.minimum(1, _LONGEST_STEP / np.maximum(size, 1e-300))
        if size.max() < 1e-9:
            return ELO * (strength - strength.mean(-1, keepdims=True))
    raise ValueError(
        "the ratings do not converge: some methods never lost to the others; expected wins and "
        "losses of each of them, or virtual games"
    )


def rate(wins: Array, *, anchor: int | None = None, draws: int = 1000, seed: int = 0) -> Ratings:
    """Ratings with 95 % intervals over the prompts.

    An interval has the 2.5 % and 97.5 % percentiles of a bootstrap that draws prompts, each of them
    moved away from the rating by Student's factor for so few prompts. It is never narrower than
    that of the Fisher information, which counts each comparison as independent: prompts that all
    have the same result would have a bootstrap of no width.

    Args:
        wins: (prompts, n, n): row wins against column.
        anchor: the method whose rating is 1000; by default the mean of all is.
        draws: samples of the bootstrap.
        seed: Seed of the samples.

    Raises:
        ValueError: fewer than two methods, or a method without a comparison.
    """
    total, n = wins.sum(0), wins.shape[-1]
    if n < 2 or not (total + total.T).any(1).all():
        raise ValueError("a method has no comparison; expected some of each of two or more methods")
    regularized = not strongly_connected(total)
    virtual = VIRTUAL_GAMES if regularized else 0.0
    elo = fit(total, virtual_games=virtual)
    rng = np.random.default_rng(seed)
    samples = fit(
        resampled(wins, rng, draws),
        virtual_games=max(virtual, _VIRTUAL_IN_RESAMPLES),
        start=elo,
    )
    low, high = interval(_gauged(elo, anchor), _gauged(samples, anchor), len(wins))
    half = 1.96 * _deviations(total, elo, virtual, anchor)
    elo = _gauged(elo, anchor)
    return Ratings(elo, np.minimum(low, elo - half), np.maximum(high, elo + half), regularized)


def resampled(wins: Array, rng: np.random.Generator, draws: int) -> Array:
    """Wins over samples of the prompts, drawn with replacement: (draws, n, n)."""
    prompts = len(wins)
    counts = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=draws).astype(float)
    return np.einsum("dp,pij->dij", counts, wins, optimize=True)


def interval(elo: Array, samples: Array, prompts: int) -> tuple[Array, Array]:
    """Ends of the bootstrap's 95 % intervals, (n,) each, of ratings (n,) and samples (draws, n)."""
    low, high = np.percentile(samples, [2.5, 97.5], axis=0)
    factor = student_factor(prompts)
    return elo + factor * (low - elo), elo + factor * (high - elo)


def student_factor(prompts: int) -> float:
    """Factor by which a bootstrap interval of a mean over few prompts has to be widened.

    ``t / z sqrt(p / (p - 1))`` with the 97.5 % quantile t of Student's distribution of p - 1
    degrees of freedom, by the expansion in Abramowitz and Stegun, 26.7.5.
    """
    if prompts < 2:  # the bootstrap has no width, whatever it is multiplied by
        return 1.0
    z, v = 1.959963984540054, prompts - 1
    if v < 3:  # where the expansion is not good enough
        t = (12.706204736432095, 4.302652729911275)[v - 1]
    else:
        t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return t / z * math.sqrt(prompts / v)


def _deviations(total: Array, elo: Array, virtual_games: float, anchor: int | None) -> Array:
    """Standard deviations (n,) by the Fisher information of all comparisons."""
    strength = elo / ELO
    expected = expit(strength[:, None] - strength[None])
    weight = (total + total.T) * expected * (1 - expected)
    alone = expit(strength)
    own = virtual_games * alone * (1 - alone)
    covariance = np.linalg.pinv(np.diag(weight.sum(1) + own) - weight, hermitian=True)
    n = len(elo)
    gauge = np.eye(n) - (1 / n if anchor is None else np.eye(n)[anchor][None])
    return ELO * np.sqrt(np.diag(gauge @ covariance @ gauge.T).clip(0))


def _gauged(elo: Array, anchor: int | None) -> Array:
    origin = elo.mean(-1, keepdims=True) if anchor is None else elo[..., anchor, None]
    return elo - origin + MEAN
