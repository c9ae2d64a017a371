"""Adversarial training of the built-in VLM: small changes of the views that mislead it most.

A model that is trained against such changes has gradients at the pixels that change the visible
content (Tsipras et al., 2019, "Robustness may be at odds with accuracy"; Santurkar et al., 2019,
"Image synthesis with a single (robust) classifier"): a step towards "Yes" paints, it does not add
noise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

STEPS = 2
"""Number of steps of the attack."""
_STEP = 1.5
"""Total length of all steps, in radii."""
_UNTOUCHED = 1 / 3
"""Number of unchanged scenes, as a share of the number of changed ones."""


def _to_length(x: Tensor, length: Tensor) -> Tensor:
    """Views (N, V, C, H, W), each scaled to the L2 norm ``length`` (N, 1, 1, 1, 1)."""
    return x * (length / x.flatten(2).norm(dim=2)[..., None, None, None].clamp_min(1e-12))


def mislead(
    model: nn.Module,
    images: Tensor,
    loss: Callable[[Tensor], Tensor],
    radius: float,
    generator: torch.Generator,
) -> Tensor:
    """Adversarial views, which raise the loss within a given distance of the original views.

    Projected gradient descent (Madry et al., 2018) in L2, from a random start. The distance is
    drawn for each scene from [0, ``radius``]; a quarter of the scenes stay unchanged, so that the
    model is trained on clean views too.

    Args:
        model: model that ``loss`` evaluates; its parameters get no gradient.
        images: (N, V, 3, H, W) in [0, 1].
        loss: function from views to a scalar.
        radius: largest distance of a view to its original (L2 norm over pixels and channels).
        generator: CPU source of everything random.

    Returns:
        Views of the same shape in [0, 1], detached.
    """
    n = len(images)
    share = (torch.rand(n, generator=generator) * (1 + _UNTOUCHED) - _UNTOUCHED).clamp_min(0)
    lengths = (radius * share).reshape(n, 1, 1, 1, 1).to(images)
    start = torch.randn(images.shape, generator=generator).to(images)
    shares = torch.rand(n, generator=generator).reshape(n, 1, 1, 1, 1).to(images)
    change = _to_length(start, lengths * shares)
    frozen = [p for p in model.parameters() if p.requires_grad]
    for p in frozen:
        p.requires_grad_(False)
    try:
        for _ in range(STEPS):
            leaf = change.detach().requires_grad_()
            (slope,) = torch.autograd.grad(loss((images + leaf).clamp(0, 1)), leaf)
            change = leaf.detach() + _to_length(slope, lengths * (_STEP / STEPS))
            norms = change.flatten(2).norm(dim=2)[..., None, None, None]
            change = change * (lengths / norms.clamp_min(1e-12)).clamp(max=1)
    finally:
        for p in frozen:
            p.requires_grad_(True)
    return (images + change).clamp(0, 1)
