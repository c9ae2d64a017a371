"""A step's views, and the way of a gradient at their pixels back to the field.

Teachers look at pixels and answer with gradients there, so the rendering's graph is not needed
while they work. `render_deferred` does not keep it: it renders in chunks of rays without a graph,
and once the gradient at the pixels is known, each chunk again with one ("deferred back-propagation"
of ARF, Zhang et al., 2022). Memory is then that of one chunk, for one more rendering.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.fields.base import BakedField
from vlmreward_3d.fields.dense_grid import BakedDenseGrid
from vlmreward_3d.losses import (
    opacity_entropy,
    orientation_loss,
    sparsity_loss,
    total_variation,
)
from vlmreward_3d.rendering.occupancy import OccupancyGrid
from vlmreward_3d.rendering.volume import RenderedRays, Shader, render_rays

__all__ = ["RegularizerWeights", "Views", "render_deferred", "render_with_graph"]


@dataclass(frozen=True)
class RegularizerWeights:
    """Weights of the regularisers; those that are 0 are not computed."""

    orientation: float = 0.0
    entropy: float = 0.0
    sparsity: float = 0.0
    variation: float = 0.0


@dataclass(frozen=True)
class Views:
    """Rendered views without their graph.

    Attributes:
        rgb: (N, 3, H, W) in [0, 1] up to rounding, detached.
        opacity: (N, 1, H, W) in [0, 1], detached.
        live: Number of rays that met occupied space.
        backward: Called with a gradient at `rgb` in its shape, the penalties, and whether it is to
            be called again (False for the last time): adds the gradient of both to the field's
            parameters.
    """

    rgb: Tensor
    opacity: Tensor
    live: int
    backward: Callable[[Tensor, RegularizerWeights, bool], None]


def render_with_graph(
    baked: BakedField,
    grid: OccupancyGrid,
    cameras: Cameras,
    side: int,
    *,
    n_samples: int,
    background: Tensor,
    shader: Shader | None,
    generator: torch.Generator,
) -> Views:
    """Render all rays at once and keep their graph.

    Args:
        baked: The field, with normals where the shader or the orientation penalty needs them.
        grid: Where there is something to see.
        cameras: N cameras.
        side: Of the images, in pixels.
        n_samples: Samples on each ray that meets occupied space.
        background: (N, 3) colours in [0, 1].
        shader: See `render_rays`.
        generator: CPU source of the samples' places.
    """
    origins, directions = (x.reshape(-1, 3) for x in cameras.rays(side, side))
    rays = render_rays(
        baked,
        grid,
        origins,
        directions,
        n_samples=n_samples,
        background=background.repeat_interleave(side * side, dim=0),
        shader=shader,
        views=_numbers(cameras, side),
        generator=generator,
    )

    def backward(gradient: Tensor, penalties: RegularizerWeights, again: bool) -> None:
        loss = (rays.rgb * _flat(gradient)).sum()
        loss = loss + _penalty(rays, penalties, _visible(rays), len(origins))
        (loss + _variation(baked, penalties)).backward(retain_graph=again)

    rgb, opacity = (_images(x.detach(), len(cameras), side) for x in (rays.rgb, rays.opacity))
    return Views(rgb, opacity, len(rays.samples.rays), backward)


def render_deferred(
    baked: BakedField,
    grid: OccupancyGrid,
    cameras: Cameras,
    side: int,
    *,
    n_samples: int,
    background: Tensor,
    shader: Shader | None,
    generator: torch.Generator,
    chunk: int,
) -> Views:
    """Render `chunk` rays at a time, and again for the backward pass.

    The samples are the same in both renderings, and those of `render_with_graph`.

    Args:
        baked: See `render_with_graph`; likewise all others.
        grid: See there.
        cameras: See there.
        side: See there.
        n_samples: See there.
        background: See there.
        shader: See there.
        generator: See there.
        chunk: Rays at a time.
    """
    origins, directions = (x.reshape(-1, 3) for x in cameras.rays(side, side))
    colors = background.repeat_interleave(side * side, dim=0)
    numbers = _numbers(cameras, side)
    parts = [slice(i, i + chunk) for i in range(0, len(origins), chunk)]

    def part(field: BakedField, rays: slice, source: torch.Generator) -> RenderedRays:
        return render_rays(
            field,
            grid,
            origins[rays],
            directions[rays],
            n_samples=n_samples,
            background=colors[rays],
            shader=shader,
            views=numbers[rays],
            generator=source,
        )

    states, colored, opaque, live, visible = [], [], [], 0, 0
    with torch.no_grad():
        for rays in parts:
            states.append(generator.get_state())
            seen = part(baked, rays, generator)
            colored.append(seen.rgb)
            opaque.append(seen.opacity)
            live += len(seen.samples.rays)
            visible += _visible(seen)

    def backward(gradient: Tensor, penalties: RegularizerWeights, again: bool) -> None:
        flat = _flat(gradient)
        leaf = baked.leaf()
        source = torch.Generator()
        for rays, state in zip(parts, states):
            source.set_state(state)
            seen = part(leaf, rays, source)
            loss = (seen.rgb * flat[rays]).sum()
            loss = loss + _penalty(seen, penalties, visible, len(origins))
            if loss.requires_grad:  # not where no ray of the chunk meets anything
                loss.backward()
        total = _variation(baked, penalties)
        carried = baked.carry(leaf)
        if carried is not None:
            total = total + carried
        if total.requires_grad:
            total.backward(retain_graph=again)

    rgb, opacity = (_images(torch.cat(x), len(cameras), side) for x in (colored, opaque))
    return Views(rgb, opacity, live, backward)


def _numbers(cameras: Cameras, side: int) -> Tensor:
    """(N * side * side,) the number of each ray's camera."""
    numbers = torch.arange(len(cameras), device=cameras.c2w.device)
    return numbers.repeat_interleave(side * side)


def _images(values: Tensor, count: int, side: int) -> Tensor:
    return values.view(count, side, side, -1).permute(0, 3, 1, 2)


def _flat(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1).flatten(0, 2)


def _visible(rays: RenderedRays) -> int:
    return int(rays.visible.any(dim=1).sum())


def _penalty(rays: RenderedRays, penalties: RegularizerWeights, visible: int, count: int) -> Tensor:
    """What some rays add to penalties that are means over `visible` rays, or over all `count`."""
    total = rays.rgb.new_zeros(())
    share = len(rays.rgb) / count
    if penalties.orientation > 0 and visible:
        hit, normals = rays.composite, rays.field.normals
        assert normals is not None  # baked with them where this weight is positive
        normals = normals.view(*hit.weights.shape, 3)
        loss = orientation_loss(hit.weights, normals, rays.directions, rays.visible, rays=visible)
        total = total + penalties.orientation * loss
    if penalties.entropy > 0:
        total = total + penalties.entropy * share * opacity_entropy(rays.opacity)
    if penalties.sparsity > 0:
        total = total + penalties.sparsity * share * sparsity_loss(rays.opacity)
    return total


def _variation(baked: BakedField, penalties: RegularizerWeights) -> Tensor:
    if penalties.variation > 0:
        assert isinstance(baked, BakedDenseGrid)  # as the configuration requires
        return penalties.variation * total_variation(baked.logits[:, :4])
    return baked.like.new_zeros(())
