"""Low-pass filtering of a reward's gradient at the pixels."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vlmreward.images.batch import ImageBatch, Images
from vlmreward.images.filters import smooth
from vlmreward.rewards.module import RewardModule
from vlmreward.rewards.placeholders import Text
from vlmreward.rewards.protocol import Reward, call_reward
from vlmreward.utils.arguments import number, reward_like
from vlmreward.utils.autograd_context import Context

__all__ = ["GradientBlur", "blur_gradient"]


class _SmoothGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: torch.Tensor, sigma: float) -> torch.Tensor:
        ctx.sigma = sigma
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Context, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return smooth(grad, ctx.sigma), None


def blur_gradient(images: Images, sigma: float) -> Images:
    """The images unchanged, with a blur of their gradient in the backward pass.

    Args:
        images: ``(B, 3, H, W)``, ``(B, V, 3, H, W)`` or lists, as a reward takes them.
        sigma: standard deviation of the Gaussian, in pixels of these images; above 0.

    Returns:
        The same images, values and layout; backward, ``smooth`` is applied to the gradient.

    Raises:
        ValueError: ``sigma`` is not above 0.
        TypeError, ValueError: images outside the contract.
    """
    number("sigma", sigma, above=0)
    return _blurred(ImageBatch.of(images), sigma).images


def _blurred(batch: ImageBatch, sigma: float) -> ImageBatch:
    tensors = [_SmoothGradient.apply(tensor, sigma) for tensor in batch.tensors]
    return batch.with_tensors(tensors, same_values=True)


class GradientBlur(RewardModule):
    """A reward whose gradient at the pixels is blurred; its value is unchanged.

    Noise that fools a model has high spatial frequencies, and so has much of its gradient. The
    blurred gradient is that of the same reward for images that can only change smoothly: a step
    along it still raises the reward (the blur is symmetric and positive semidefinite), but not by
    changes of single pixels.

    Args:
        reward: any reward, called as ``reward(images, prompt)``.
        sigma: standard deviation of the Gaussian, in pixels of the images that are passed; above 0.

    Raises:
        ValueError: ``sigma`` is not above 0.

    Example:
        ``GradientBlur(reward, sigma=1.5)(images, prompt="a cat").sum().backward()``.
    """

    def __init__(self, reward: Reward, sigma: float = 1.5) -> None:
        super().__init__()
        reward_like(reward)
        number("sigma", sigma, above=0)
        self.reward = reward
        self.sigma = sigma

    def forward_batch(self, batch: ImageBatch, values: Mapping[str, Text]) -> torch.Tensor:
        """The reward of each query, whose gradient is blurred in the backward pass."""
        return call_reward(self.reward, _blurred(batch, self.sigma), values)
