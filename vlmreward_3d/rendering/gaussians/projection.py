"""Gaussians in the image plane: EWA splatting (Zwicker et al., 2001), as in Kerbl et al. (2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.rendering.gaussians.primitives import Gaussians, rotations

__all__ = ["CUTOFF", "NEAR", "Projection", "intrinsics", "project", "world_to_camera"]

NEAR = 0.01
"""Least depth of a center along the viewing axis, world units; nearer Gaussians are not drawn."""
CUTOFF = 1 / 255
"""Least alpha of a Gaussian at a pixel; smaller contributions are dropped."""

_DILATION = 0.3
"""Summand of the variances, in squared pixels, by which each Gaussian is at least about a pixel
wide."""
_MARGIN = 1.3
"""Bound of the centers at which the Jacobian is evaluated, in half widths of the picture; centers
further out are clamped to it."""


@dataclass(frozen=True)
class Projection:
    """V views of N Gaussians; differentiable to the Gaussians, depths and extents apart.

    Attributes:
        means: (V, N, 2) centers x, y in pixels; x to the right, y down, pixel centers at +0.5.
        covariances: (V, N, 3) xx, xy and yy in squared pixels, with the dilation.
        determinants: (V, N) of these, positive.
        depths: (V, N) along the axis of view, world units; detached.
        extents: (V, N, 2) half sides, in pixels, of the smallest box outside of which the Gaussian
            contributes less than the cutoff; -1 where it is not drawn; detached.
    """

    means: Tensor
    covariances: Tensor
    determinants: Tensor
    depths: Tensor
    extents: Tensor


def world_to_camera(cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Extrinsics of the cameras: R and t of x_camera = R x_world + t.

    Args:
        cameras: V cameras.

    Returns:
        Rotations (V, 3, 3) and translations (V, 3); the camera's axes are right, down, forward, as
        in OpenCV.
    """
    flip = cameras.c2w.new_tensor([1.0, -1.0, -1.0])
    rotation = (cameras.c2w[:, :3, :3] * flip).transpose(1, 2)
    return rotation, -(rotation @ cameras.positions[..., None])[..., 0]


def intrinsics(cameras: Cameras, height: int) -> Tensor:
    """Focal lengths (V,) in pixels; of orthographic cameras, pixels per world unit."""
    if cameras.projection == "orthographic":
        return height / 2 / cameras.half_heights
    return height / 2 / torch.tan(cameras.fov / 2)


def project(gaussians: Gaussians, cameras: Cameras, height: int, width: int) -> Projection:
    """Project Gaussians: Sigma' = J W Sigma W^T J^T (Kerbl et al., Eq. 5) plus the dilation.

    In an orthographic projection, where x and y are not divided by the depth, J is exact.

    Args:
        gaussians: N of them.
        cameras: V cameras; not differentiable.
        height: Rows of the pictures.
        width: Columns.

    Returns:
        Centers, covariances, depths and extents in all views.
    """
    turn, shift = world_to_camera(cameras)
    centers = torch.einsum("vij,nj->vni", turn, gaussians.means) + shift[:, None]
    x, y, z = centers.unbind(-1)
    drawn = z > NEAR
    z = torch.where(drawn, z, 1.0)  # finite numbers, and gradients, where nothing is drawn
    focal = intrinsics(cameras, height)[:, None]
    parallel = cameras.projection == "orthographic"
    divisor = torch.ones_like(z) if parallel else z
    slopes = torch.stack([x / divisor, y / divisor], dim=-1)
    means = focal[..., None] * slopes + centers.new_tensor([width / 2, height / 2])

    limit = centers.new_tensor([width / 2, height / 2]) * _MARGIN / focal[..., None]
    u, v = torch.maximum(torch.minimum(slopes, limit), -limit).unbind(-1)
    scale, zero = focal / divisor, torch.zeros_like(z)
    right, down = (zero, zero) if parallel else (-scale * u, -scale * v)
    jacobian = torch.stack(
        [
            torch.stack([scale, zero, right], dim=-1),
            torch.stack([zero, scale, down], dim=-1),
        ],
        dim=-2,
    )
    axes = rotations(gaussians.quaternions) * gaussians.scales[:, None]
    half = torch.einsum("vnij,vjk,nkl->vnil", jacobian, turn, axes)
    across, along = half.unbind(-2)
    xx, yy = across.square().sum(-1), along.square().sum(-1)
    covariances = torch.stack(
        [xx + _DILATION, (across * along).sum(-1), yy + _DILATION],
        dim=-1,
    )
    # a sum of squares (Lagrange's identity), where the difference of products loses all digits of
    # long and thin Gaussians
    area = torch.linalg.cross(across, along).square().sum(-1)
    determinants = area + _DILATION * (xx + yy) + _DILATION**2
    extents = _extents(covariances, gaussians.opacity, drawn)
    return Projection(means, covariances, determinants, z.detach(), extents)


@torch.no_grad()
def _extents(covariances: Tensor, opacity: Tensor, drawn: Tensor) -> Tensor:
    reach = 2 * (opacity / CUTOFF).log()  # squared standard deviations
    seen = drawn & (reach > 0)
    half = (reach.clamp_min(0)[:, None] * covariances[..., ::2]).sqrt()
    return torch.where(seen[..., None], half, -1.0)
