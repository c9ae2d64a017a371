"""The contribution of each view to a reward, from the reward without that view."""

from __future__ import annotations

import torch

from vlmreward.explain._inputs import check_tensor, make_baseline
from vlmreward.images.batch import ImageBatch
from vlmreward.rewards.placeholders import Text, placeholder_values
from vlmreward.rewards.protocol import Reward, call_reward

__all__ = ["leave_one_view_out"]


def leave_one_view_out(
    reward: Reward,
    images: torch.Tensor,
    prompt: Text | None = None,
    *,
    replacement: float | str | torch.Tensor | None = None,
    **placeholders: Text,
) -> torch.Tensor:
    """The contribution of each view to the reward: r(all views) - r(without this one).

    Args:
        reward: any reward, called as ``reward(images, prompt)``.
        images: ``(B, V, 3, H, W)`` (or ``(B, 3, H, W)``, one view), floating in [0, 1].
        prompt: value of ``{prompt}``, one for all or a list of B.
        replacement: in place of the view, a gray level, ``"mean"`` (the view's mean
            color), or a tensor that broadcasts to the images. None: the view is left out and the
            reward is given V - 1 of them, which a VLM takes, but not every reward of a fixed number
            of views.
        **placeholders: values of the other placeholders, likewise.

    Returns:
        ``(B, V)``, detached; above 0 where the view speaks for "Yes".

    Raises:
        ValueError: the only view is to be left out, or images or ``replacement`` outside the
            contract.
    """
    (images,) = check_tensor(images).tensors
    if images.ndim == 4:
        return leave_one_view_out(
            reward, images[:, None], prompt, replacement=replacement, **placeholders
        )
    views = images.shape[1]
    if replacement is None and views == 1:
        raise ValueError(
            "replacement is None for queries of one view, of which nothing would be left; expected "
            "a gray level, 'mean' or a tensor: pass replacement=0.5"
        )
    values = placeholder_values(prompt, placeholders)
    instead = None if replacement is None else make_baseline(images, replacement)
    with torch.no_grad():
        whole = call_reward(reward, ImageBatch.of(images), values)
        changes = []
        for view in range(views):
            if instead is None:
                others = torch.cat([images[:, :view], images[:, view + 1 :]], dim=1)
            else:
                others = images.clone()
                others[:, view] = instead[:, view]
            changes.append(whole - call_reward(reward, ImageBatch.of(others), values))
    return torch.stack(changes, dim=1)
