"""Integrated gradients: the contribution of every pixel to a reward, from a baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vlmreward.explain._inputs import check_tensor, gradient_at, make_baseline
from vlmreward.rewards.placeholders import Text, placeholder_values
from vlmreward.rewards.protocol import Reward, call_reward
from vlmreward.utils.arguments import number, reward_like, whole

__all__ = ["IntegratedGradients", "integrated_gradients"]

_NODES = 4  # of the quadrature in each piece of the path


@dataclass(frozen=True)
class IntegratedGradients:
    """The contribution of every value of every pixel to a reward, counted from a baseline.

    Attributes:
        attributions: tensor of the images' shape, with the sum
            ``reward - baseline_reward - residual``.
        reward: ``(B,)``, reward of the images.
        baseline_reward: ``(B,)``, reward of the baseline.
        residual: ``(B,)``, error of the quadrature; if it is large, more ``steps`` are needed.
    """

    attributions: torch.Tensor
    reward: torch.Tensor
    baseline_reward: torch.Tensor
    residual: torch.Tensor


@dataclass(frozen=True)
class _Piece:
    """The part of the path between two of its points, integrated.

    ``values`` are the rewards ``(B,)`` at both ends, ``mean`` the integral of the gradient, and
    ``missing`` ``(B,)`` how far the two disagree.
    """

    ends: tuple[float, float]
    values: tuple[torch.Tensor, torch.Tensor]
    mean: torch.Tensor
    missing: torch.Tensor


def integrated_gradients(
    reward: Reward,
    images: torch.Tensor,
    prompt: Text | None = None,
    *,
    baseline: float | str | torch.Tensor = 0.5,
    steps: int = 96,
    tolerance: float = 0.02,
    **placeholders: Text,
) -> IntegratedGradients:
    """Integrated gradients, Eq. 1 of Sundararajan et al. (2017), "Axiomatic Attribution".

    The attribution is the mean gradient along the straight line from the baseline to the images,
    times the difference of the two. Exactly integrated, the attributions sum up to the difference
    of the rewards (completeness).

    The rewards of VLMs rise in sudden steps along that line, so that the integration is adaptive:
    Gauss-Legendre quadrature with 4 nodes in each piece of the line, whose error is known by
    completeness of the piece. The piece with the largest error is halved until the total error is
    below ``tolerance``. Each node is one forward and backward pass.

    Args:
        reward: any deterministic reward, called as ``reward(images, prompt)``.
        images: ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``, floating in [0, 1].
        prompt: value of ``{prompt}``, one for all or a list of B.
        baseline: start of the line: a gray level, ``"mean"`` (each view's mean color), or a
            tensor that broadcasts to the images. Pixels equal to the baseline get no attribution,
            so that it should be a color that the objects do not have.
        steps: largest number of gradients, at least 4.
        tolerance: largest residual, as a share of the difference of the two rewards; 0 uses up all
            ``steps``.
        **placeholders: values of the other placeholders, likewise.

    Returns:
        Attributions, both rewards and the residual of completeness; detached.

    Raises:
        TypeError, ValueError: images or baseline outside the contract, ``steps`` below 4 or
            ``tolerance`` below 0.
        RuntimeError: the reward is not differentiable.
    """
    reward_like(reward)
    whole("steps", steps, _NODES)
    number("tolerance", tolerance, least=0)
    batch = check_tensor(images)
    (images,) = batch.tensors
    start = make_baseline(images, baseline)
    check_tensor(start)
    values_given = placeholder_values(prompt, placeholders)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)

    def value(at: float) -> torch.Tensor:
        with torch.no_grad():
            between = batch.with_tensors([start.lerp(images, at)])
            return call_reward(reward, between, values_given)

    def integrated(ends: tuple[float, float], values: tuple[torch.Tensor, torch.Tensor]) -> _Piece:
        middle, half = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
        mean = torch.zeros_like(images)
        for node, weight in zip(nodes, weights):
            at = batch.with_tensors([start.lerp(images, middle + half * float(node))])
            mean += half * float(weight) * gradient_at(reward, at, values_given)
        added = ((images - start) * mean).flatten(1).sum(dim=1).to(values[0])
        return _Piece(ends, values, mean, values[1] - values[0] - added)

    first, last = value(0.0), value(1.0)
    pieces = [integrated((0.0, 1.0), (first, last))]
    used = _NODES
    while used + 2 * _NODES <= steps:
        missing = torch.stack([piece.missing.abs() for piece in pieces])  # (pieces, B)
        if tolerance > 0 and (missing.sum(dim=0) <= tolerance * (last - first).abs()).all():
            break
        worst = pieces.pop(int(missing.amax(dim=1).argmax()))
        middle = (worst.ends[0] + worst.ends[1]) / 2
        between = value(middle)
        pieces.append(integrated((worst.ends[0], middle), (worst.values[0], between)))
        pieces.append(integrated((middle, worst.ends[1]), (between, worst.values[1])))
        used += 2 * _NODES
    attributions = (images - start) * torch.stack([piece.mean for piece in pieces]).sum(dim=0)
    residual = last - first - attributions.flatten(1).sum(dim=1).to(first)
    return IntegratedGradients(attributions, last, first, residual)
