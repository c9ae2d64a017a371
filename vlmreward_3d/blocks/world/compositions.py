"""Scenes beyond one or two plain things: numbers, triples, landmarks, contents, sizes, patterns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from vlmreward_3d.blocks.world.scenes import (
    BOTTOM_TOP,
    COLORS,
    COMPOUNDS,
    COUNTS,
    EXTENTS,
    HALF_WIDTH,
    INSIDE,
    LANDMARK_RELATIONS,
    PATTERNS,
    RELATIONS,
    SHAPES,
    Scene,
    SceneObject,
    arrange,
    pick,
)

_GROUND = -0.35
_PATTERNED = 0.3
"""Share of the things of a composition that have a pattern."""
_LACKING = 0.3
"""Share of the compounds of a pattern scene that lack their front."""


def _thing(rng: np.random.Generator, size: float, shapes: tuple[str, ...] = SHAPES) -> SceneObject:
    return SceneObject(
        pick(shapes, rng),
        pick(tuple(COLORS), rng),
        float(size * rng.uniform(0.95, 1.05)),
        float(rng.uniform(-0.2, 0.2)),
        pattern=pick(PATTERNS, rng) if rng.random() < _PATTERNED else "",
    )


def _others(
    rng: np.random.Generator, n: int, size: float, shapes: tuple[str, ...] = SHAPES
) -> list[SceneObject]:
    """Things that no two have color and shape in common."""
    things: list[SceneObject] = []
    while len(things) < n:
        thing = _thing(rng, size, shapes)
        if thing.words not in [t.words for t in things]:
            things.append(thing)
    return things


def _at(thing: SceneObject, x: float, y: float, z: float) -> SceneObject:
    return replace(thing, position=(float(x), float(y), float(z)))


def _standing(thing: SceneObject, x: float, y: float) -> SceneObject:
    return _at(thing, x, y, _GROUND - BOTTOM_TOP[thing.shape][0] * thing.size)


def _middled(things: list[SceneObject]) -> tuple[SceneObject, ...]:
    """The things with the middle of their heights at 0."""
    low = min(t.position[2] + t.size * BOTTOM_TOP[t.shape][0] for t in things)
    high = max(t.position[2] + t.size * BOTTOM_TOP[t.shape][1] for t in things)
    lift = -(low + high) / 2
    return tuple(_at(t, *t.position[:2], t.position[2] + lift) for t in things)


def _on(thing: SceneObject, below: SceneObject) -> SceneObject:
    x, y, z = below.position
    top = z + below.size * BOTTOM_TOP[below.shape][1]
    return _at(thing, x, y, top - thing.size * BOTTOM_TOP[thing.shape][0] - 0.02)


def number(rng: np.random.Generator) -> Scene:
    """Two or three equal things in a ring."""
    n = int(rng.integers(2, len(COUNTS) + 1))
    thing = _thing(rng, 0.27 if n == 2 else 0.25)
    turn, radius = rng.uniform(0, 2 * np.pi), 0.32 if n == 2 else 0.42
    angles = turn + 2 * np.pi * np.arange(n) / n
    places = np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1)
    return Scene(_middled([_standing(thing, x, y) for x, y in places]))


def triple(rng: np.random.Generator) -> Scene:
    """Three things: a tower, a row, or one on top of another next to a third one."""
    first, then = pick(RELATIONS, rng), pick(RELATIONS, rng)
    while (first, then) == ("next to", "on top of"):  # the middle one would be on top of both
        first, then = pick(RELATIONS, rng), pick(RELATIONS, rng)
    tower = first == then == "on top of"
    a, b, c = _others(rng, 3, 0.25 if tower else 0.27)
    if tower:
        c = _standing(c, 0, 0)
        b = _on(b, c)
        return Scene(_middled([_on(a, b), b, c]), first, then=then)
    if first == "on top of":
        b, c = arrange([b, c], "next to", rng)
        return Scene(_middled([_on(a, b), b, c]), first, then=then)
    row, y = [], 0.0
    for thing in (a, b, c):
        half = HALF_WIDTH[thing.shape] * thing.size
        row.append((thing, y + half))
        y += 2 * half + 0.05
    return Scene(_middled([_standing(t, 0, at - y / 2) for t, at in row]), first, then=then)


def landmark(rng: np.random.Generator) -> Scene:
    """A thing in front of a compound, or behind it."""
    relation = pick(LANDMARK_RELATIONS, rng)
    first, second = _others(rng, 2, 0.34)
    while second.shape not in COMPOUNDS or first.words == second.words:
        second = _thing(rng, 0.34, COMPOUNDS)
    side = 1 if relation == "in front of" else -1
    gap = 0.06 + first.size + second.size * (1.0 if second.shape in ("car", "mug") else 0.7)
    along = side * gap / 2
    placed = [_standing(first, along, 0), _standing(second, -along, 0)]
    return Scene(_middled(placed), relation)


def content(rng: np.random.Generator) -> Scene:
    """A thing that sticks out of a mug, or in the hole of a torus."""
    outer = replace(_thing(rng, 0.5, ("mug", "torus")), pattern="")
    inner = _thing(rng, outer.size * (0.48 if outer.shape == "mug" else 0.42), ("sphere", "cube"))
    while inner.color == outer.color:
        inner = replace(inner, color=pick(tuple(COLORS), rng))
    height = 0.85 * outer.size if outer.shape == "mug" else 0.12 * outer.size
    return Scene(_middled([_at(inner, 0, 0, height), _at(outer, 0, 0, 0)]), INSIDE)


def sizes(rng: np.random.Generator) -> Scene:
    """A pair of which one is small and the other large."""
    extents = [str(x) for x in rng.permutation(EXTENTS)]
    things = [
        replace(t, extent=extent, size=t.size * (0.7 if extent == "small" else 1.15))
        for t, extent in zip(_others(rng, 2, 0.37), extents)
    ]
    relation = pick(RELATIONS, rng)
    return Scene(arrange(things, relation, rng), relation)


def pattern(rng: np.random.Generator) -> Scene:
    """One striped or dotted thing, or a compound that lacks its front."""
    thing = replace(_thing(rng, 0.6), pattern=pick(PATTERNS, rng))
    if rng.random() < _LACKING:
        thing = replace(_thing(rng, 0.6, COMPOUNDS), fronts=())
    return Scene(arrange([thing], None, rng))


KINDS: dict[str, Callable[[np.random.Generator], Scene]] = {
    "number": number,
    "triple": triple,
    "landmark": landmark,
    "content": content,
    "sizes": sizes,
    "pattern": pattern,
}
"""Kinds of compositions, and what draws them."""


def sample_composition(rng: np.random.Generator, kind: str | None = None) -> Scene:
    """Draw a scene of one of `KINDS`, of any by default."""
    scene = KINDS[kind or pick(tuple(KINDS), rng)](rng)
    return replace(scene, seed=int(rng.integers(2**31)))
