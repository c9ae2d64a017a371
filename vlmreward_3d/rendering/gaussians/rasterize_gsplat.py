"""Rasterization of Gaussians by gsplat's CUDA kernels; only this module uses gsplat (optional)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.rendering.gaussians._gsplat_private import compiled_kernels
from vlmreward_3d.rendering.gaussians.footprints import Footprints
from vlmreward_3d.rendering.gaussians.primitives import Gaussians
from vlmreward_3d.rendering.gaussians.projection import NEAR, intrinsics, world_to_camera

__all__ = ["available", "draw_on_cuda", "pinholes"]


def available(device: torch.device) -> bool:
    """True if gsplat draws Gaussians on this device.

    On a CUDA device where gsplat is not installed, or cannot build its kernels, a warning says so
    once.
    """
    return device.type == "cuda" and _kernels()


@cache
def _kernels() -> bool:
    try:
        # compiles them at the first import, where anything may go wrong; without a CUDA toolkit
        # there are none, and no error
        kernels = compiled_kernels()
    except Exception as error:
        kernels, reason = None, str(error)
    else:
        reason = "its kernels could not be built"
    if kernels is None:
        warnings.warn(
            f"received splats on a CUDA device without gsplat ({reason}); drawing them in torch, "
            "which is slower; run `pip install 'vlmreward[splats]'`, with a CUDA toolkit",
            stacklevel=2,
        )
    return kernels is not None


def pinholes(cameras: Cameras, height: int, width: int) -> tuple[Tensor, Tensor]:
    """World-to-camera matrices (V, 4, 4) in OpenCV's axes, and intrinsics (V, 3, 3) in pixels."""
    turn, shift = world_to_camera(cameras)
    view = torch.zeros_like(cameras.c2w)
    view[:, :3, :3] = turn
    view[:, :3, 3] = shift
    view[:, 3, 3] = 1
    focal = intrinsics(cameras, height)
    matrix = torch.zeros_like(turn)
    matrix[:, 0, 0] = matrix[:, 1, 1] = focal
    matrix[:, 0, 2] = width / 2
    matrix[:, 1, 2] = height / 2
    matrix[:, 2, 2] = 1
    return view, matrix


def draw_on_cuda(
    gaussians: Gaussians, channels: Tensor, cameras: Cameras, height: int, width: int
) -> tuple[Tensor, Tensor, Footprints]:
    """Draw like `project` and `draw`, up to rounding and rays that end at a transmittance of 1e-4.

    Gaussians with opacities above `MOST_OPAQUE`, which a `GaussianField` does not have, are drawn
    more
    opaque by gsplat 1.5: it limits alpha to 0.999.

    Args:
        gaussians: N of them, on a CUDA device.
        channels: (V, N, C) values to composite.
        cameras: V cameras.
        height: Rows.
        width: Columns.

    Returns:
        Sums (V, C, height, width) on nothing, opacities (V, 1, height, width) in [0, 1], and the
        Gaussians' footprints; differentiable to the Gaussians and channels.
    """
    from gsplat import rasterization

    view, matrix = pinholes(cameras, height, width)
    sums, opacity, found = rasterization(
        gaussians.means,
        gaussians.quaternions,
        gaussians.scales,
        gaussians.opacity,
        channels,
        view,
        matrix,
        width,
        height,
        near_plane=NEAR,
        packed=False,
        camera_model="ortho" if cameras.projection == "orthographic" else "pinhole",
    )
    footprints = _footprints(found, height, width)
    return sums.permute(0, 3, 1, 2), opacity.permute(0, 3, 1, 2), footprints


def _footprints(found: Mapping[str, Tensor], height: int, width: int) -> Footprints:
    """The footprints in the third result of `rasterization` with `packed=False`."""
    radii = found["radii"]  # (V, N), from version 1.5 on (V, N, 2); 0 where nothing is drawn
    visible = radii > 0 if radii.ndim == 2 else (radii > 0).all(dim=-1)
    # inverse covariances, xx, xy and yy
    xx, xy, yy = found["conics"].detach().unbind(-1)
    determinants = xx * yy - xy.square()
    covariances = torch.stack([yy, -xy, xx], dim=-1) / determinants[..., None]
    return Footprints(found["means2d"], covariances, visible, height, width)
