"""Image-plane positions and extents of Gaussians, and the gradient at the positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlmreward_3d.rendering.gaussians.projection import Projection

__all__ = ["Footprints", "footprints_of"]

_DEVIATIONS = 3.0


@dataclass(frozen=True, eq=False)
class Footprints:
    """Image-plane positions and extents of N Gaussians in V pictures.

    Attributes:
        means: (V, N, 2) centers x, y in pixels, x to the right, y down; the pictures are computed
            from this tensor itself, so that it can retain their gradient.
        covariances: (V, N, 3) xx, xy and yy in squared pixels, with the dilation; detached.
            Undefined where a Gaussian is not visible.
        visible: (V, N) True where a Gaussian is drawn and its box meets the picture.
        height: Rows of the pictures.
        width: Columns.
    """

    means: Tensor
    covariances: Tensor
    visible: Tensor
    height: int
    width: int

    def retain_gradient(self) -> None:
        """Make `gradient` sum the results of later back-propagations; no effect without a graph."""
        if self.means.requires_grad:
            self.means.retain_grad()

    @property
    def gradient(self) -> Tensor | None:
        """(V, N, 2) dL/d(center), summed over all back-propagations since `retain_gradient`.

        In units of half the picture's width and height, in which a picture reaches from -1 to 1
        (normalized device coordinates), as in the code of Kerbl et al. (2023); detached. None
        before the first.
        """
        found = self.means.grad if self.means.retains_grad else None
        if found is None:
            return None
        return found * found.new_tensor([self.width / 2, self.height / 2])

    @property
    def radii(self) -> Tensor:
        """(V, N) three standard deviations along the longest axis, pixels; 0 if not visible."""
        xx, xy, yy = self.covariances.unbind(-1)
        middle = (xx + yy) / 2
        longest = middle + (((xx - yy) / 2).square() + xy.square()).sqrt()
        return torch.where(self.visible, _DEVIATIONS * longest.clamp_min(0).sqrt(), 0.0)


def footprints_of(projection: Projection, height: int, width: int) -> Footprints:
    """The footprints of projected Gaussians in pictures of `height` rows and `width` columns."""
    means, extents = projection.means.detach(), projection.extents
    size = means.new_tensor([width, height])
    meets = ((means + extents > 0) & (means - extents < size)).all(dim=-1)
    return Footprints(
        projection.means,
        projection.covariances.detach(),
        meets & (extents[..., 0] >= 0),
        height,
        width,
    )
