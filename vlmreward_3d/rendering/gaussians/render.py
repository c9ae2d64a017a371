"""Pictures of splats, and a step's views of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlmreward.utils.arguments import whole
from vlmreward_3d.cameras import Cameras
from vlmreward_3d.fields.gaussians import GaussianField, Gaussians, rotations
from vlmreward_3d.losses import opacity_entropy, sparsity_loss
from vlmreward_3d.rendering.deferred import RegularizerWeights, Views
from vlmreward_3d.rendering.gaussians import rasterize_gsplat as cuda
from vlmreward_3d.rendering.gaussians.projection import project
from vlmreward_3d.rendering.gaussians.rasterize_torch import draw
from vlmreward_3d.rendering.volume import check_background

__all__ = ["SplatPicture", "gaussian_views", "render_gaussians"]


@dataclass(frozen=True)
class SplatPicture:
    """V images, channels first; differentiable to the Gaussians.

    Attributes:
        rgb: (V, 3, H, W) in [0, 1] up to rounding, on the background.
        opacity: (V, 1, H, W) in [0, 1].
        normals: (V, 3, H, W) world-space mean normals, length <= 1, 0 where nothing is; or None.
    """

    rgb: Tensor
    opacity: Tensor
    normals: Tensor | None


def render_gaussians(
    gaussians: Gaussians,
    cameras: Cameras,
    height: int,
    width: int,
    *,
    background: Tensor | None = None,
    normals: bool = False,
) -> SplatPicture:
    """Draw Gaussians: with gsplat on a CUDA device where it is installed, in torch elsewhere.

    Args:
        gaussians: N of them.
        cameras: V cameras, on the Gaussians' device; not differentiable.
        height: Rows.
        width: Columns.
        background: (V, 3) or (3,) colours in [0, 1]; white if not given.
        normals: Also draw normals: each Gaussian's shortest axis, on the camera's side.

    Returns:
        The pictures.
    """
    whole("height", height)
    whole("width", width)
    views = len(cameras)
    channels = gaussians.rgb.expand(views, -1, -1)
    if normals:
        channels = torch.cat([channels, _facing(gaussians, cameras)], dim=-1)
    if cuda.available(gaussians.means.device):
        sums, opacity = cuda.draw_on_cuda(gaussians, channels, cameras, height, width)
    else:
        projection = project(gaussians, cameras, height, width)
        sums, opacity = draw(projection, gaussians.opacity, channels, height, width)
    if background is None:
        background = gaussians.rgb.new_ones(3)
    check_background(background, views)
    behind = background.expand(views, 3)[..., None, None]
    mean = sums[:, 3:] / opacity.clamp_min(torch.finfo(opacity.dtype).eps) if normals else None
    return SplatPicture(sums[:, :3] + behind * (1 - opacity), opacity, mean)


def _facing(gaussians: Gaussians, cameras: Cameras) -> Tensor:
    """(V, N, 3) unit vectors along the shortest axes, towards the cameras."""
    shortest = gaussians.scales.argmin(dim=-1)
    axes = rotations(gaussians.quaternions)
    axis = axes.gather(2, shortest[:, None, None].expand(-1, 3, 1))[..., 0]
    toward = cameras.positions[:, None] - gaussians.means
    away = (axis * toward).sum(dim=-1, keepdim=True) < 0
    return torch.where(away, -axis, axis.expand_as(toward))


def gaussian_views(
    field: GaussianField, cameras: Cameras, side: int, *, background: Tensor
) -> Views:
    """A step's views, with their graph kept; of the penalties, entropy and sparsity count.

    Args:
        field: The splats.
        cameras: V cameras.
        side: Of the images, in pixels.
        background: (V, 3) colours in [0, 1].
    """
    seen = render_gaussians(field.gaussians(), cameras, side, side, background=background)

    def backward(gradient: Tensor, penalties: RegularizerWeights, again: bool) -> None:
        loss = (seen.rgb * gradient).sum()
        if penalties.entropy > 0:
            loss = loss + penalties.entropy * opacity_entropy(seen.opacity)
        if penalties.sparsity > 0:
            loss = loss + penalties.sparsity * sparsity_loss(seen.opacity)
        loss.backward(retain_graph=again)

    live = int((seen.opacity.detach() > 0).sum())
    return Views(seen.rgb.detach(), seen.opacity.detach(), live, backward)
