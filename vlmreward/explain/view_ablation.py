"""Which views a reward looks at."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlmreward.explain.attribution import check_tensor, filled
from vlmreward.rewards.protocol import Reward, ask

__all__ = ["leave_one_view_out"]


def leave_one_view_out(
    reward: Reward,
    images: torch.Tensor,
    prompt: str | Sequence[str] | None = None,
    *,
    fill: float | str | torch.Tensor | None = None,
    **placeholders: str | Sequence[str],
) -> torch.Tensor:
    """What the reward owes to each view: r(all views) - r(without this one).

    Args:
        reward: see ``vlmreward.rewards.protocol.Reward``.
        images: ``(B, V, 3, H, W)`` (or ``(B, 3, H, W)``, one view), floating in [0, 1].
        prompt: as the reward takes it.
        fill: what takes the place of the view: a gray level, ``"mean"`` (the view's mean colour),
            or a tensor that broadcasts to the images. None: the view is left out and the reward is
            given V - 1 of them, which a VLM takes, but not every reward of a fixed number of views.
        **placeholders: as the reward takes them.

    Returns:
        ``(B, V)``, detached; above 0 where the view speaks for "Yes".

    Raises:
        ValueError: the only view is to be left out, or images or ``fill`` outside the contract.
    """
    images = check_tensor(images)
    if images.ndim == 4:
        return leave_one_view_out(reward, images[:, None], prompt, fill=fill, **placeholders)
    views = images.shape[1]
    if fill is None and views == 1:
        raise ValueError(
            "fill is None for queries of one view, of which nothing would be left; expected a "
            "gray level, 'mean' or a tensor: pass fill=0.5"
        )
    instead = None if fill is None else filled(images, fill)
    with torch.no_grad():
        whole = ask(reward, images, len(images), prompt, placeholders)
        changes = []
        for view in range(views):
            if instead is None:
                others = torch.cat([images[:, :view], images[:, view + 1 :]], dim=1)
            else:
                others = images.clone()
                others[:, view] = instead[:, view]
            changes.append(whole - ask(reward, others, len(images), prompt, placeholders))
    return torch.stack(changes, dim=1)
