"""Exact ray casting of the blocks world: closed-form intersections, and sphere tracing for tori.

Every solid is intersected in its own canonical frame; because directions are not normalized there,
ray parameters of all solids can be compared directly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlmreward_3d.blocks.world.scenes import Scene
from vlmreward_3d.blocks.world.solids import FLOATER, FRONT, Primitive, solids
from vlmreward_3d.cameras import Cameras

LIGHT = (0.38, 0.27, 0.88)
"""Direction towards the light, world space, not normalized."""
AMBIENT = 0.5
"""Share of the light that reaches every surface."""

THINGS = 3
"""Largest number of things of a scene that are marked separately."""
CHANNELS = (*(f"thing {i}" for i in range(THINGS)), "front", "floater", "broken")
"""Marks of a view: things, front features, floaters, insides of broken surfaces."""

_FAR = 1.0e9


@dataclass(frozen=True)
class Views:
    """Ray-cast views of one scene.

    Attributes:
        rgba: (V, H, W, 4) float32 in [0, 1], color premultiplied by coverage.
        coverage: (V, H, W, 6) float32 in [0, 1]: share of the pixel that each of ``CHANNELS``
            covers.
    """

    rgba: Tensor
    coverage: Tensor


def _slab(o: Tensor, d: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    inverse = 1.0 / torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d)
    a, b = (low - o) * inverse, (high - o) * inverse
    return torch.minimum(a, b), torch.maximum(a, b)


def _quadric(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Both roots of a t^2 + 2 b t + c; (+far, -far) where there are none."""
    disc = b * b - a * c
    root = disc.clamp_min(0).sqrt()
    a = torch.where(a.abs() < 1e-9, torch.full_like(a, 1e-9), a)
    t0, t1 = (-b - root) / a, (-b + root) / a
    miss = disc <= 0
    lo, hi = torch.minimum(t0, t1), torch.maximum(t0, t1)
    return lo.masked_fill(miss, _FAR), hi.masked_fill(miss, -_FAR)


def _interval(prim: Primitive, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Entry and exit of rays (N,3) in the canonical frame; entry > exit means no hit."""
    if prim.kind == "sphere":
        return _quadric((d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1)
    if prim.kind == "cube":
        lo, hi = _slab(o, d, -1.0, 1.0)
        return lo.amax(-1), hi.amin(-1)
    if prim.kind in ("cylinder", "cone"):
        z_lo, z_hi = _slab(o[:, 2], d[:, 2], -1.0, 1.0)
        if prim.kind == "cylinder":
            p, q = o[:, :2], d[:, :2]
            lo, hi = _quadric((q * q).sum(-1), (p * q).sum(-1), (p * p).sum(-1) - 1)
            return torch.maximum(lo, z_lo), torch.minimum(hi, z_hi)
        # radius(z) = m - k z, positive on the whole slab, so only one nappe is inside it
        k = (1 - prim.param) / 2
        m = (1 + prim.param) / 2
        r, s = m - k * o[:, 2], -k * d[:, 2]
        a = (d[:, :2] ** 2).sum(-1) - s * s
        b = (o[:, :2] * d[:, :2]).sum(-1) - r * s
        c = (o[:, :2] ** 2).sum(-1) - r * r
        lo, hi = _quadric(a, b, c)
        # a < 0: the ray is steeper than the cone and is inside it outside of the two roots
        steep = a < 0
        first = r + s * lo >= 0
        lo_s = torch.where(first, torch.full_like(lo, -_FAR), hi)
        hi_s = torch.where(first, lo, torch.full_like(hi, _FAR))
        lo, hi = torch.where(steep, lo_s, lo), torch.where(steep, hi_s, hi)
        return torch.maximum(lo, z_lo), torch.minimum(hi, z_hi)
    raise ValueError(f"unknown solid {prim.kind!r}")


def _torus_distance(p: Tensor, tube: float) -> Tensor:
    ring = (p[:, 0] ** 2 + p[:, 1] ** 2).sqrt() - 1
    return (ring * ring + p[:, 2] ** 2).sqrt() - tube


def _torus_entry(o: Tensor, d: Tensor, tube: float, steps: int = 28) -> Tensor:
    """First hit of rays with a torus by sphere tracing; far where there is none."""
    reach = 1 + tube
    length = d.norm(dim=-1)
    lo, hi = _quadric(length**2, (o * d).sum(-1), (o * o).sum(-1) - reach**2)
    z_lo, z_hi = _slab(o[:, 2], d[:, 2], -tube, tube)
    lo, hi = torch.maximum(lo, z_lo), torch.minimum(hi, z_hi)
    out = torch.full_like(lo, _FAR)
    live = (lo < hi).nonzero()[:, 0]
    if live.numel() == 0:
        return out
    oo, dd, scale, end, t = o[live], d[live], length[live], hi[live], lo[live]
    for _ in range(steps):
        t = t + _torus_distance(oo + dd * t[:, None], tube) / scale
    hit = (_torus_distance(oo + dd * t[:, None], tube) < 0.02) & (t <= end + 0.02)
    out[live] = torch.where(hit, t, torch.full_like(t, _FAR))
    return out


def _normal(prim: Primitive, p: Tensor) -> Tensor:
    """Outward normal (N,3) in the canonical frame, not normalized."""
    if prim.kind == "sphere":
        return p
    if prim.kind == "cube":
        face = p.abs().argmax(-1, keepdim=True)
        return torch.zeros_like(p).scatter_(1, face, p.gather(1, face).sign())
    if prim.kind == "torus":
        ring = p[:, :2].norm(dim=-1, keepdim=True).clamp_min(1e-6)
        return torch.cat([p[:, :2] * (1 - 1 / ring), p[:, 2:]], -1)
    cap = p[:, 2:].abs() > 1 - 1e-3
    slope = 0.0 if prim.kind == "cylinder" else (1 - prim.param) / 2
    radius = p[:, :2].norm(dim=-1, keepdim=True)
    side = torch.cat([p[:, :2], slope * radius], -1)
    flat = torch.cat([torch.zeros_like(p[:, :2]), p[:, 2:].sign()], -1)
    return torch.where(cap, flat, side)


def _inside_hole(points: Tensor, holes: tuple[tuple[float, float, float, float], ...]) -> Tensor:
    inside = torch.zeros(points.shape[0], dtype=torch.bool)
    for x, y, z, radius in holes:
        inside |= ((points - points.new_tensor([x, y, z])) ** 2).sum(-1) < radius**2
    return inside


def raycast(scene: Scene, cameras: Cameras, size: int, *, supersample: int = 2) -> Views:
    """Render a scene by exact ray casting with Lambertian light from one fixed direction.

    Args:
        scene: scene to render.
        cameras: V cameras.
        size: height and width of the views in pixels.
        supersample: rays per pixel along each side, averaged.

    Returns:
        Float32 views on the CPU. Not differentiable.
    """
    side = size * supersample
    origins, directions = cameras.rays(side, side)
    origins = origins.reshape(-1, 3).float()
    directions = directions.reshape(-1, 3).float()
    n = directions.shape[0]
    best = torch.full((n,), _FAR)
    rgb = torch.zeros(n, 3)
    label = torch.full((n,), -1, dtype=torch.long)
    part = torch.zeros(n, dtype=torch.long)
    broken = torch.zeros(n, dtype=torch.bool)
    light = torch.nn.functional.normalize(torch.tensor(LIGHT), dim=0)
    for prim in solids(scene):
        rotation = torch.tensor(prim.rotation, dtype=torch.float32)
        scale = torch.tensor(prim.scale)
        to_local = rotation / scale  # columns scaled: (x - c) @ R / s
        relative = origins - torch.tensor(prim.center)
        # Only rays that pass the bounding ball can hit.
        reach = float(scale.max()) * {"sphere": 1.0, "cube": 1.7321, "torus": 1 + prim.param}.get(
            prim.kind, 1.4143
        )
        along = (relative * directions).sum(-1)
        near = (relative * relative).sum(-1) - along**2 < reach**2
        idx = near.nonzero()[:, 0]
        if idx.numel() == 0:
            continue
        o, d = relative[idx] @ to_local, directions[idx] @ to_local
        if prim.kind == "torus":
            entry = _torus_entry(o, d, prim.param)
            candidates = [(entry, entry < _FAR, False)]
        else:
            entry, leave = _interval(prim, o, d)
            hit = (entry < leave) & (entry > 0)
            candidates = [(entry, hit, False)]
            if scene.holes:
                candidates.append((leave, hit, True))
        for t, hit, back in candidates:
            if scene.holes:
                where = origins[idx] + directions[idx] * t[:, None]
                hit = hit & ~_inside_hole(where, scene.holes)
            closer = (hit & (t < best[idx])).nonzero()[:, 0]
            if closer.numel() == 0:
                continue
            rays = idx[closer]
            p = o[closer] + d[closer] * t[closer, None]
            normal = torch.nn.functional.normalize((_normal(prim, p) / scale) @ rotation.T, dim=-1)
            shade = AMBIENT + (1 - AMBIENT) * (normal @ light).clamp_min(0)
            if back:
                shade = torch.full_like(shade, 0.6 * AMBIENT)
            best[rays] = t[closer]
            color = torch.tensor(prim.color).expand(len(rays), 3)
            if prim.pattern is not None:
                hits = origins[rays] + directions[rays] * t[closer, None]
                color = prim.pattern.color(hits, color[0])
            rgb[rays] = shade[:, None] * color
            label[rays] = prim.owner
            part[rays] = prim.role
            broken[rays] = back
    solid = label >= 0
    floats = part == FLOATER
    things = [(label == i) & ~floats for i in range(THINGS)]
    flags = torch.stack([*things, part == FRONT, floats, broken], -1).float() * solid[:, None]
    image = torch.cat([rgb, solid[:, None].float(), flags], -1)
    v = cameras.c2w.shape[0]
    image = image.reshape(v, size, supersample, size, supersample, -1).mean((2, 4))
    return Views(rgba=image[..., :4], coverage=image[..., 4:])
