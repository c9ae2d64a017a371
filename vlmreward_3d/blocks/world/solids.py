"""The solids that the objects of a scene are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vlmreward_3d.blocks.world.scenes import BOTTOM_TOP, COLORS, SHAPES, Scene

BODY, FRONT, FLOATER = 0, 1, 2
"""Roles of a primitive: plain surface, a feature that marks the front, a piece that floats."""


@dataclass(frozen=True)
class Pattern:
    """Stripes or dots of a second color in the space around a thing.

    ``kind`` is one of ``PATTERNS``, ``center`` and ``size`` are the thing's. Stripes follow each
    other along ``axis`` (0 to 2).
    """

    kind: str
    center: tuple[float, float, float]
    size: float
    axis: int

    def color(self, points: Tensor, base: Tensor) -> Tensor:
        """Colors (N, 3) at points (N, 3) of a surface whose own color is ``base`` (3,)."""
        local = (points - points.new_tensor(self.center)) / self.size
        if self.kind == "striped":
            marked = ((local[:, self.axis] + 1) * _STRIPES).floor() % 2 == 1
            second = points.new_tensor(_LIGHT)
        else:
            nearest = (local / _DOT_DISTANCE - 0.5).round() + 0.5
            marked = (local - nearest * _DOT_DISTANCE).norm(dim=-1) < _DOT_RADIUS
            second = points.new_tensor(_DARK)
        return torch.where(marked[:, None], second, base)


@dataclass(frozen=True)
class Primitive:
    """One canonical solid under a rotation and a scale along its own axes.

    ``kind`` is ``"sphere"``, ``"cube"``, ``"cylinder"``, ``"cone"`` (unit radius and height -1..1,
    ``param`` is the radius at the top) or ``"torus"`` (ring radius 1 around z, ``param`` is the
    tube radius, isotropic scale only).
    """

    kind: str
    center: tuple[float, float, float]
    scale: tuple[float, float, float]
    color: tuple[float, float, float]
    rotation: tuple[tuple[float, float, float], ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    param: float = 0.0
    owner: int = 0
    role: int = BODY
    pattern: Pattern | None = None


def _rot_z(angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


_ROT_X90 = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
_FORWARD = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""Turns z to x, the direction of the front."""
_LIGHT = (0.97, 0.97, 0.97)
_STRIPES = 2.0
"""Pairs of a plain and a light stripe in the height of a thing."""
_DOT_DISTANCE, _DOT_RADIUS = 0.44, 0.17
"""Sizes of the dots, in half extents of the thing; a dot is a ball that the surface cuts."""
_DARK = (0.10, 0.10, 0.12)
_NOSE = (0.98, 0.45, 0.05)
_LAMP = (1.0, 0.98, 0.75)


def _shape_parts(shape: str, fronts: tuple[float, ...]) -> list[tuple]:
    """Solids of a shape of half extent 1: (kind, center, scale, rotation, param, tint, role).

    ``tint`` is ``None`` for the thing's own color. The parts of the front are repeated under each
    of the angles ``fronts``.
    """
    eye = np.eye(3)
    parts: list[tuple] = []

    def add(
        kind: str,
        center: tuple[float, float, float],
        scale: tuple[float, ...],
        rotation: np.ndarray = eye,
        param: float = 0.0,
        tint: tuple[float, float, float] | None = None,
        role: int = BODY,
    ) -> None:
        turns = [_rot_z(angle) for angle in fronts] if role == FRONT else [eye]
        for turn in turns:
            place = tuple((turn @ np.array(center, float)).tolist())
            parts.append((kind, place, scale, turn @ rotation, param, tint, role))

    if shape == "sphere":
        add("sphere", (0, 0, 0), (0.92,) * 3)
    elif shape == "cube":
        add("cube", (0, 0, 0), (0.74,) * 3)
    elif shape == "cylinder":
        add("cylinder", (0, 0, 0), (0.62, 0.62, 0.92))
    elif shape == "cone":
        add("cone", (0, 0, 0), (0.85, 0.85, 0.95), param=0.0)
    elif shape == "torus":
        add("torus", (0, 0, 0), (0.68,) * 3, param=0.42)
    elif shape == "mug":
        add("cylinder", (0, 0, 0), (0.60, 0.60, 0.78))
        add("cylinder", (0, 0, 0.74), (0.48, 0.48, 0.06), tint=_DARK)
        add("torus", (0.62, 0, 0), (0.36,) * 3, _ROT_X90, 0.28, None, FRONT)
    elif shape == "chair":
        add("cube", (0, 0, -0.10), (0.60, 0.60, 0.09))
        for x in (-0.5, 0.5):
            for y in (-0.5, 0.5):
                add("cube", (x, y, -0.55), (0.09, 0.09, 0.40))
        add("cube", (-0.52, 0, 0.42), (0.08, 0.60, 0.48), role=FRONT)
    elif shape == "car":
        add("cube", (0, 0, -0.10), (0.95, 0.46, 0.22))
        # the cabin is at the back of the only front
        back = -0.25 * math.cos(fronts[0]) if len(fronts) == 1 else 0.0
        add("cube", (back, 0, 0.28), (0.48, 0.40, 0.20))
        for x in (-0.58, 0.58):
            for y in (-0.46, 0.46):
                add("cylinder", (x, y, -0.32), (0.22, 0.22, 0.09), _ROT_X90, 0.0, _DARK)
        for y in (-0.27, 0.27):
            add("sphere", (0.94, y, -0.05), (0.07, 0.14, 0.12), tint=_LAMP, role=FRONT)
    elif shape == "snowman":
        add("sphere", (0, 0, -0.45), (0.52,) * 3)
        add("sphere", (0, 0, 0.18), (0.38,) * 3)
        add("sphere", (0, 0, 0.66), (0.29,) * 3)
        add("cone", (0.42, 0, 0.64), (0.08, 0.08, 0.18), _FORWARD, 0.0, _NOSE, FRONT)
        for y in (-0.12, 0.12):
            add("sphere", (0.25, y, 0.77), (0.06,) * 3, tint=_DARK, role=FRONT)
        for z in (0.05, 0.28):
            add("sphere", (0.37, 0, z), (0.06,) * 3, tint=_DARK, role=FRONT)
    else:
        raise ValueError(f"unknown shape {shape!r}; expected one of {', '.join(SHAPES)}")
    return parts


def solids(scene: Scene) -> list[Primitive]:
    """All primitives of a scene, in world space."""
    rng = np.random.default_rng(scene.seed)
    out: list[Primitive] = []
    for owner, thing in enumerate(scene.things):
        base = np.clip(np.array(COLORS[thing.color]) + rng.normal(0, 0.025, 3), 0.02, 0.98)
        spin = _rot_z(thing.yaw)
        low, high = BOTTOM_TOP[thing.shape]
        axis = 2 if high - low > 1.2 else 0  # flat things have no room for stripes above each other
        pattern = None
        if thing.pattern:
            pattern = Pattern(thing.pattern, thing.position, thing.size, axis)
        parts = _shape_parts(thing.shape, thing.fronts)
        for kind, center, scale, rotation, param, tint, role in parts:
            world = np.array(thing.position) + thing.size * (spin @ np.array(center, float))
            out.append(
                Primitive(
                    kind=kind,
                    center=tuple(world.tolist()),
                    scale=tuple((thing.size * np.array(scale, float)).tolist()),
                    color=tuple(base.tolist()) if tint is None else tint,
                    rotation=tuple(map(tuple, (spin @ rotation).tolist())),
                    param=param,
                    owner=owner if scene.relation else 0,
                    role=role,
                    pattern=pattern if tint is None else None,
                )
            )
    if scene.flaw == "floaters":
        for _ in range(int(rng.integers(2, 6))):
            direction = rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            name = scene.things[0].color if rng.random() < 0.5 else rng.choice(list(COLORS))
            scale = rng.uniform(0.05, 0.13) * rng.uniform(0.7, 1.3, 3)
            where = direction * rng.uniform(0.62, 0.85)
            out.append(
                Primitive(
                    kind=str(rng.choice(["sphere", "cube"])),
                    center=tuple(where.tolist()),
                    scale=tuple(scale.tolist()),
                    color=COLORS[str(name)],
                    role=FLOATER,
                )
            )
    return out
