"""Gradients without their finest grain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from torch import nn

from vlmreward.arguments import number, reward_like
from vlmreward.queries import Reward, take_apart, working

__all__ = ["LowPass", "low_pass", "smooth"]


def _mirrored(length: int, radius: int, device: torch.device) -> torch.Tensor:
    """Indices that continue an axis by its mirror image, the edge pixel repeated: b a | a b c."""
    index = torch.arange(-radius, length + radius, device=device).remainder(2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def smooth(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur as a symmetric, positive semidefinite matrix that keeps the sum of the values.

    At the edges the image goes on as its mirror image with the edge pixel repeated. That makes the
    matrix symmetric, which the usual "reflect" (edge pixel not repeated) does not. Two blurs in a
    row make it positive, which one with a kernel that is cut off is not quite.

    Args:
        x: ``(..., H, W)``, floating; half precision is computed in float32.
        sigma: standard deviation in pixels, of both blurs together; each is cut off at 3 of its
            own.

    Returns:
        Same shape and dtype; linear in ``x``.
    """
    each = sigma / math.sqrt(2)
    radius = max(1, math.ceil(3 * each))
    height, width = x.shape[-2:]
    rows, columns = _mirrored(height, radius, x.device), _mirrored(width, radius, x.device)
    planes = working(x).reshape(-1, 1, height, width)
    kernel = get_gaussian_kernel1d(2 * radius + 1, each, device=x.device, dtype=planes.dtype)
    for _ in range(2):
        padded = planes[:, :, rows][..., columns]
        planes = filter2d_separable(padded, kernel, kernel, padding="valid")
    return planes.reshape(x.shape).to(x.dtype)


class _SmoothGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, sigma: float) -> torch.Tensor:
        ctx.sigma = sigma
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return smooth(grad, ctx.sigma), None


def low_pass(images: torch.Tensor | Sequence[Any], sigma: float) -> Any:
    """The images as they are; their gradient is blurred on its way back.

    Args:
        images: ``(B, 3, H, W)``, ``(B, V, 3, H, W)`` or lists, as a reward takes them.
        sigma: of the Gaussian, in pixels of these images; above 0.

    Returns:
        The same images, values and layout; backward, ``smooth`` is applied to the gradient.

    Raises:
        ValueError: ``sigma`` is not above 0.
        TypeError, ValueError: images outside the contract.
    """
    number("sigma", sigma, above=0)
    tensors, layout = take_apart(images)
    return layout.together([_SmoothGradient.apply(tensor, sigma) for tensor in tensors])


class LowPass(nn.Module):
    """A reward whose gradient at the pixels is blurred; its value is unchanged.

    Noise that fools a model lives in single pixels, and so does much of its gradient. Blurred, the
    gradient is that of the same reward for images that can only change smoothly: a step along it
    still raises the reward (the blur is symmetric and positive), but not grain by grain.

    Args:
        reward: see ``vlmreward.queries.Reward``.
        sigma: of the Gaussian, in pixels of the images that are passed; above 0.

    Raises:
        ValueError: ``sigma`` is not above 0.

    Example:
        ``LowPass(reward, sigma=1.5)(images, text="a cat").sum().backward()``.
    """

    def __init__(self, reward: Reward, sigma: float = 1.5) -> None:
        super().__init__()
        reward_like(reward)
        number("sigma", sigma, above=0)
        self.reward = reward
        self.sigma = sigma

    def forward(
        self,
        images: torch.Tensor | Sequence[Any],
        text: str | Sequence[str] | None = None,
        **fields: str | Sequence[str],
    ) -> torch.Tensor:
        """The reward of each query.

        Args:
            images: as the reward takes them. Differentiable, with a blurred gradient.
            text: as the reward takes it.
            **fields: as the reward takes them.

        Returns:
            ``(B,)``.
        """
        images = low_pass(images, self.sigma)
        return (
            self.reward(images, **fields) if text is None else self.reward(images, text, **fields)
        )
