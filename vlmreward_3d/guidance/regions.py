"""Prompts of regions, composed by masks (SemanticSDS; Yang et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import RegionConfig
from vlmreward_3d.guidance.view_prompts import view_index

__all__ = ["composed", "region_masks", "sides_of_region"]

RAYS = 4
"""Rays along each side of a pixel, whose share in a region is the pixel's weight."""


def composed(whole: Tensor, regional: Tensor, masks: Tensor) -> Tensor:
    """(1 - sum_i m_i) eps + sum_i m_i eps_i (N, C, H, W).

    As all eps_i are of one z_t, the gradient of "sds" with it is the sum of the masked gradients of
    the prompts.

    Args:
        whole: (N, C, H, W) noise eps predicted for the prompt of the scene.
        regional: (R, N, C, H, W) noise eps_i predicted for the prompts of R regions.
        masks: (R, N, 1, H, W) weights m_i in [0, 1], whose sums are at most 1.
    """
    masks = masks.to(whole)
    return (1 - masks.sum(0)) * whole + (masks * regional).sum(0)


def region_masks(
    cameras: Cameras, regions: Sequence[RegionConfig], height: int, width: int
) -> Tensor:
    """Shares of pixels in which N cameras see each of R boxes, (R, N, 1, height, width) in [0, 1].

    A ray belongs to the box that it leaves first, of equal ones to the first: boxes in front hide
    those behind, and one inside another is seen. So the shares of a pixel sum to at most 1; what is
    left is of the scene as a whole. Boxes that cameras are in are seen from inside.

    The source renders an embedding of each Gaussian instead, takes the object that it is nearest
    to, and enlarges the masks by two pixels of the background; a guidance here does not see the
    field, and boxes leave objects the room to grow into.
    """
    origins, directions = cameras.rays(height * RAYS, width * RAYS)
    tiny = torch.finfo(directions.dtype).tiny
    directions = torch.where(directions.abs() < tiny, tiny, directions)
    leaving = []
    for region in regions:
        one, two = (
            (origins.new_tensor(x) - origins) / directions for x in (region.low, region.high)
        )
        near = torch.minimum(one, two).amax(-1)
        far = torch.maximum(one, two).amin(-1)
        leaving.append(torch.where((far > near) & (far > 0), far, torch.inf))
    first = torch.stack(leaving)
    owner = torch.where(first.amin(0).isfinite(), first.argmin(0), len(regions))
    shares = F.one_hot(owner, len(regions) + 1)[..., : len(regions)].permute(3, 0, 1, 2)
    return F.avg_pool2d(shares.to(origins), RAYS)[:, :, None]


def sides_of_region(cameras: Cameras, region: RegionConfig) -> Tensor:
    """The side of a region that each of N cameras sees, from its center; see `view_index`."""
    c2w = cameras.c2w.clone()
    c2w[:, :3, 3] -= c2w.new_tensor(region.center)
    return view_index(replace(cameras, c2w=c2w))
