"""Views of a training step, and back-propagation from their pixels to the field.

A guidance receives pixels and returns a gradient at them, so the graph of the rendering is not
needed while guidances work. `render_deferred` does not keep it: it renders chunks of rays without
a graph and, once the gradient at the pixels is known, renders each chunk again with one ("deferred
back-propagation" of ARF, Zhang et al., 2022). It needs the memory of one chunk and a second
rendering.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.losses import (
    emptiness_loss,
    opacity_entropy,
    orientation_loss,
    sparsity_loss,
)
from vlmreward_3d.rendering.base import BakedField, RegularizerWeights, Shader, Surface, Views
from vlmreward_3d.rendering.occupancy import OccupancyGrid
from vlmreward_3d.rendering.volume import RenderedRays, render_rays

__all__ = ["render_deferred", "render_with_graph"]


def render_with_graph(
    baked: BakedField,
    occupancy: OccupancyGrid,
    cameras: Cameras,
    resolution: int,
    *,
    n_samples: int,
    background: Tensor,
    shader: Shader | None,
    generator: torch.Generator,
) -> Views:
    """Render all rays at once and keep their graph.

    Args:
        baked: The field, with normals if the shader or the orientation loss needs them.
        occupancy: Grid of the cells in which the field is not empty.
        cameras: N cameras.
        resolution: Height and width of the images in pixels.
        n_samples: Samples on each ray that meets occupied space.
        background: (N, 3) colors in [0, 1], or (N, 4) latents.
        shader: Turns field samples into colors; None for the field's own colors.
        generator: CPU source of the samples' positions.

    Returns:
        The views; `backward` differentiates to the field's parameters.
    """
    origins, directions = (x.reshape(-1, 3) for x in cameras.rays(resolution, resolution))
    rays = render_rays(
        baked,
        occupancy,
        origins,
        directions,
        n_samples=n_samples,
        background=background.repeat_interleave(resolution * resolution, dim=0),
        shader=shader,
        views=_view_index(cameras, resolution),
        generator=generator,
    )

    def backward(
        gradient: Tensor, regularizers: RegularizerWeights, *, retain_graph: bool = False
    ) -> None:
        loss = (rays.rgb * _flat(gradient)).sum()
        loss = loss + _regularization(rays, regularizers, _visible(rays), len(origins))
        (loss + _variation(baked, regularizers)).backward(retain_graph=retain_graph)

    rgb, opacity, depth = (
        _images(x.detach(), len(cameras), resolution) for x in (rays.rgb, rays.opacity, rays.depth)
    )
    surface = Surface(depth, opacity)
    return Views(rgb, opacity, len(rays.samples.rays), backward, lambda: surface)


def render_deferred(
    baked: BakedField,
    occupancy: OccupancyGrid,
    cameras: Cameras,
    resolution: int,
    *,
    n_samples: int,
    background: Tensor,
    shader: Shader | None,
    generator: torch.Generator,
    rays_per_chunk: int,
) -> Views:
    """Render `rays_per_chunk` rays at a time, and again for the backward pass.

    The samples are the same in both renderings, and those of `render_with_graph`.

    Args:
        baked: The field, with normals if the shader or the orientation loss needs them.
        occupancy: Grid of the cells in which the field is not empty.
        cameras: N cameras.
        resolution: Height and width of the images in pixels.
        n_samples: Samples on each ray that meets occupied space.
        background: (N, 3) colors in [0, 1], or (N, 4) latents.
        shader: Turns field samples into colors; None for the field's own colors.
        generator: CPU source of the samples' positions.
        rays_per_chunk: Rays rendered together; bounds the memory.

    Returns:
        The views; `backward` differentiates to the field's parameters.
    """
    origins, directions = (x.reshape(-1, 3) for x in cameras.rays(resolution, resolution))
    colors = background.repeat_interleave(resolution * resolution, dim=0)
    view_index = _view_index(cameras, resolution)
    parts = [slice(i, i + rays_per_chunk) for i in range(0, len(origins), rays_per_chunk)]

    def part(field: BakedField, rays: slice, source: torch.Generator) -> RenderedRays:
        return render_rays(
            field,
            occupancy,
            origins[rays],
            directions[rays],
            n_samples=n_samples,
            background=colors[rays],
            shader=shader,
            views=view_index[rays],
            generator=source,
        )

    states, colored, opaque, deep, n_active, visible = [], [], [], [], 0, 0
    with torch.no_grad():
        for rays in parts:
            states.append(generator.get_state())
            seen = part(baked, rays, generator)
            colored.append(seen.rgb)
            opaque.append(seen.opacity)
            deep.append(seen.depth)
            n_active += len(seen.samples.rays)
            visible += _visible(seen)

    def backward(
        gradient: Tensor, regularizers: RegularizerWeights, *, retain_graph: bool = False
    ) -> None:
        flat = _flat(gradient)
        leaf = baked.detached_leaf()
        source = torch.Generator()
        for rays, state in zip(parts, states):
            source.set_state(state)
            seen = part(leaf, rays, source)
            loss = (seen.rgb * flat[rays]).sum()
            loss = loss + _regularization(seen, regularizers, visible, len(origins))
            if loss.requires_grad:  # not where no ray of the chunk meets anything
                loss.backward()
        total = _variation(baked, regularizers)
        carried = baked.pull_back(leaf)
        if carried is not None:
            total = total + carried
        if total.requires_grad:
            total.backward(retain_graph=retain_graph)

    rgb, opacity, depth = (
        _images(torch.cat(x), len(cameras), resolution) for x in (colored, opaque, deep)
    )
    surface = Surface(depth, opacity)
    return Views(rgb, opacity, n_active, backward, lambda: surface)


def _view_index(cameras: Cameras, resolution: int) -> Tensor:
    """(N * resolution * resolution,) the number of each ray's camera."""
    view_index = torch.arange(len(cameras), device=cameras.c2w.device)
    return view_index.repeat_interleave(resolution * resolution)


def _images(values: Tensor, count: int, resolution: int) -> Tensor:
    return values.view(count, resolution, resolution, -1).permute(0, 3, 1, 2)


def _flat(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1).flatten(0, 2)


def _visible(rays: RenderedRays) -> int:
    return int(rays.visible.any(dim=1).sum())


def _regularization(
    rays: RenderedRays, regularizers: RegularizerWeights, visible: int, count: int
) -> Tensor:
    """Contribution of some rays to regularizers, which are means over `visible` or `count` rays."""
    total = rays.rgb.new_zeros(())
    share = len(rays.rgb) / count
    if regularizers.orientation > 0 and visible:
        hit, normals = rays.composite, rays.field.normals
        assert normals is not None  # baked with them where this weight is positive
        normals = normals.view(*hit.weights.shape, 3)
        loss = orientation_loss(hit.weights, normals, rays.directions, rays.visible, rays=visible)
        total = total + regularizers.orientation * loss
    if regularizers.entropy > 0:
        total = total + regularizers.entropy * share * opacity_entropy(rays.opacity)
    if regularizers.sparsity > 0:
        total = total + regularizers.sparsity * share * sparsity_loss(rays.opacity)
    if regularizers.emptiness > 0:
        weights, scale = rays.composite.weights, regularizers.emptiness_scale
        total = total + regularizers.emptiness * emptiness_loss(weights, scale, rays=count)
    return total


def _variation(baked: BakedField, regularizers: RegularizerWeights) -> Tensor:
    if regularizers.variation > 0:
        return regularizers.variation * baked.total_variation()
    return baked.reference_tensor.new_zeros(())
