"""Images of Gaussians, and the views of a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vlmreward.utils.arguments import whole
from vlmreward_3d.cameras import Cameras
from vlmreward_3d.losses import opacity_entropy, sparsity_loss
from vlmreward_3d.rendering.base import RegularizerWeights, Surface, Views
from vlmreward_3d.rendering.evaluation import normals_as_colors
from vlmreward_3d.rendering.gaussians import rasterize_gsplat as cuda
from vlmreward_3d.rendering.gaussians.footprints import Footprints, footprints_of
from vlmreward_3d.rendering.gaussians.primitives import Gaussians, rotations
from vlmreward_3d.rendering.gaussians.projection import project
from vlmreward_3d.rendering.gaussians.rasterize_torch import draw
from vlmreward_3d.rendering.volume import check_background

__all__ = [
    "GaussianRendering",
    "gaussian_surface",
    "render_gaussian_images",
    "render_gaussian_views",
    "render_gaussians",
]


@dataclass(frozen=True)
class GaussianRendering:
    """V rendered images, channels first; differentiable to the Gaussians.

    Attributes:
        rgb: (V, 3, H, W) in [0, 1] up to rounding, on the background.
        opacity: (V, 1, H, W) in [0, 1].
        normals: (V, 3, H, W) world-space mean normals, length <= 1, 0 where nothing is; or None.
        footprints: Positions and extents of the Gaussians in the images.
    """

    rgb: Tensor
    opacity: Tensor
    normals: Tensor | None
    footprints: Footprints


def render_gaussians(
    gaussians: Gaussians,
    cameras: Cameras,
    height: int,
    width: int,
    *,
    background: Tensor | None = None,
    normals: bool = False,
) -> GaussianRendering:
    """Draw Gaussians: with gsplat on a CUDA device where it is installed, in torch elsewhere.

    Args:
        gaussians: N of them.
        cameras: V cameras, on the Gaussians' device; not differentiable.
        height: Rows.
        width: Columns.
        background: (V, 3) or (3,) colors in [0, 1]; white if not given.
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
        drawn = cuda.draw_on_cuda(gaussians, channels, cameras, height, width)
        sums, opacity, footprints = drawn
    else:
        projection = project(gaussians, cameras, height, width)
        footprints = footprints_of(projection, height, width)
        sums, opacity = draw(projection, gaussians.opacity, channels, height, width)
    if background is None:
        background = gaussians.rgb.new_ones(3)
    check_background(background, views)
    behind = background.expand(views, 3)[..., None, None]
    mean = sums[:, 3:] / opacity.clamp_min(torch.finfo(opacity.dtype).eps) if normals else None
    return GaussianRendering(sums[:, :3] + behind * (1 - opacity), opacity, mean, footprints)


def _facing(gaussians: Gaussians, cameras: Cameras) -> Tensor:
    """(V, N, 3) unit vectors along the shortest axes, towards the cameras."""
    shortest = gaussians.scales.argmin(dim=-1)
    axes = rotations(gaussians.quaternions)
    axis = axes.gather(2, shortest[:, None, None].expand(-1, 3, 1))[..., 0]
    toward = cameras.positions[:, None] - gaussians.means
    away = (axis * toward).sum(dim=-1, keepdim=True) < 0
    return torch.where(away, -axis, axis.expand_as(toward))


def render_gaussian_views(
    gaussians: Gaussians,
    cameras: Cameras,
    resolution: int,
    *,
    background: Tensor,
    observe: Callable[[Footprints], None] | None = None,
) -> Views:
    """Views of a training step, with their graph kept.

    Of the regularizers, entropy and sparsity apply.

    Args:
        gaussians: N of them.
        cameras: V cameras.
        resolution: Height and width of the images in pixels.
        background: (V, 3) colors in [0, 1].
        observe: Called at each `backward` of the views with their footprints, which have retained
            the gradient of all of them so far.

    Returns:
        The views; `backward` differentiates to the Gaussians.
    """
    seen = render_gaussians(gaussians, cameras, resolution, resolution, background=background)
    if observe is not None:
        seen.footprints.retain_gradient()

    def backward(
        gradient: Tensor, regularizers: RegularizerWeights, *, retain_graph: bool = False
    ) -> None:
        loss = (seen.rgb * gradient).sum()
        if regularizers.entropy > 0:
            loss = loss + regularizers.entropy * opacity_entropy(seen.opacity)
        if regularizers.sparsity > 0:
            loss = loss + regularizers.sparsity * sparsity_loss(seen.opacity)
        loss.backward(retain_graph=retain_graph)
        if observe is not None:
            observe(seen.footprints)

    n_active_rays = int((seen.opacity.detach() > 0).sum())
    return Views(
        seen.rgb.detach(),
        seen.opacity.detach(),
        n_active_rays,
        backward,
        lambda: gaussian_surface(gaussians, cameras, resolution),
    )


@torch.no_grad()
def gaussian_surface(gaussians: Gaussians, cameras: Cameras, resolution: int) -> Surface:
    """The surface that cameras see, by the mean distance of what is drawn in each pixel.

    Args:
        gaussians: N of them; the distance of each is that of its center from the camera, or from
            the picture's plane in an orthographic projection.
        cameras: V cameras, on the Gaussians' device.
        resolution: Height and width of the images in pixels.
    """
    depths, opacities = [], []
    for index in range(len(cameras)):
        view = cameras[index : index + 1]
        away = gaussians.means - view.positions
        if view.projection == "orthographic":
            distance = -away @ view.c2w[0, :3, 2:3]
        else:
            distance = away.norm(dim=-1, keepdim=True)
        seen = render_gaussians(
            replace(gaussians, rgb=distance.expand(-1, 3)),
            view,
            resolution,
            resolution,
            background=distance.new_zeros(3),
        )
        depths.append(seen.rgb[:, :1] / seen.opacity.clamp_min(torch.finfo(distance.dtype).eps))
        opacities.append(seen.opacity)
    return Surface(torch.cat(depths), torch.cat(opacities))


@torch.no_grad()
def render_gaussian_images(
    gaussians: Gaussians, cameras: Cameras, size: int, *, normals: bool = False
) -> Iterator[Tensor]:
    """Render Gaussians on white without gradients, one camera at a time.

    Args:
        gaussians: N of them.
        cameras: V cameras, on the Gaussians' device.
        size: Height and width in pixels.
        normals: If True, add the world-space normals, as colors, below the image.

    Yields:
        For each camera an image (3, size or 2 * size, size) in [0, 1].
    """
    for index in range(len(cameras)):
        view = cameras[index : index + 1]
        seen = render_gaussians(gaussians, view, size, size, normals=normals)
        rows = [seen.rgb[0].clamp(0, 1)]
        if seen.normals is not None:
            rows.append(normals_as_colors(seen.normals, seen.opacity)[0])
        yield torch.cat(rows, dim=1)
