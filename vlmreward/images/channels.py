"""Gray and RGBA images as RGB."""

from __future__ import annotations

import torch

from vlmreward.utils.arguments import number

__all__ = ["gray_to_rgb", "rgba_to_rgb"]


def gray_to_rgb(images: torch.Tensor) -> torch.Tensor:
    """Gray images ``(..., 1, H, W)`` as RGB ``(..., 3, H, W)``; a view, differentiable.

    Raises:
        TypeError: not a tensor.
        ValueError: there is more than one channel.
    """
    _require_tensor(images)
    if images.ndim < 3 or images.shape[-3] != 1:
        raise ValueError(
            f"images has shape {tuple(images.shape)}; expected (..., 1, H, W): add the channel, "
            "e.g. images.unsqueeze(-3)"
        )
    return images.expand(*images.shape[:-3], 3, *images.shape[-2:])


def rgba_to_rgb(images: torch.Tensor, background: float | torch.Tensor = 1.0) -> torch.Tensor:
    """RGBA with straight alpha over a background: ``rgb * a + background * (1 - a)``.

    Args:
        images: ``(..., 4, H, W)`` in [0, 1].
        background: a level in [0, 1], white by default as in HF's processors, or a tensor that
            broadcasts to ``(..., 3, H, W)``, for example a color ``(3, 1, 1)``.

    Returns:
        ``(..., 3, H, W)``, differentiable to the images and the background.

    Raises:
        TypeError: not a tensor, or a background that is neither a number nor a tensor.
        ValueError: not four channels, a level outside [0, 1], or a shape that does not broadcast.
    """
    _require_tensor(images)
    if images.ndim < 3 or images.shape[-3] != 4:
        raise ValueError(
            f"images has shape {tuple(images.shape)}; expected RGBA (..., 4, H, W), channels first"
        )
    color, alpha = images.split([3, 1], dim=-3)
    if not isinstance(background, torch.Tensor):
        background = number("background", background, least=0, most=1)
    elif not _broadcasts(background.shape, color.shape):
        raise ValueError(
            f"background has shape {tuple(background.shape)}; expected one that broadcasts to "
            f"{tuple(color.shape)}, such as a color (3, 1, 1)"
        )
    return color * alpha + background * (1 - alpha)


def _require_tensor(images: object) -> None:
    if not isinstance(images, torch.Tensor):
        raise TypeError(
            f"images is a {type(images).__name__}; expected a torch.Tensor: convert it, e.g. with "
            "torch.from_numpy(array)"
        )


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    """True if a tensor of the shape can be expanded to another one."""
    return len(shape) <= len(to) and all(
        own in (1, wanted) for own, wanted in zip(reversed(shape), reversed(to))
    )
