"""Scenes beyond one or two plain things: numbers, triples, landmarks, contents, sizes, patterns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

HOLDERS = {"mug": ("sphere", "cube"), "torus": ("sphere", "cube")}
"""Shapes that can hold another one, with the shapes that they can hold."""
_GROUND = -0.35
_PATTERNED = 0.3
"""Share of the things of a composition that have a pattern."""
_LACKING = 0.3
"""Share of the compounds of a pattern scene that lack their front."""
_SIZE_OF = {"small": 0.7, "large": 1.15, "": 1.0}


def _at(thing: SceneObject, x: float, y: float, z: float) -> SceneObject:
    return replace(thing, position=(float(x), float(y), float(z)))


def _standing(thing: SceneObject, x: float, y: float) -> SceneObject:
    return _at(thing, x, y, _GROUND - BOTTOM_TOP[thing.shape][0] * thing.size)


def _on(thing: SceneObject, below: SceneObject) -> SceneObject:
    x, y, z = below.position
    top = z + below.size * BOTTOM_TOP[below.shape][1]
    return _at(thing, x, y, top - thing.size * BOTTOM_TOP[thing.shape][0] - 0.02)


def _middled(things: Sequence[SceneObject]) -> tuple[SceneObject, ...]:
    """The things with the middle of their heights at 0."""
    low = min(t.position[2] + t.size * BOTTOM_TOP[t.shape][0] for t in things)
    high = max(t.position[2] + t.size * BOTTOM_TOP[t.shape][1] for t in things)
    lift = -(low + high) / 2
    return tuple(_at(t, *t.position[:2], t.position[2] + lift) for t in things)


def _ring(things: Sequence[SceneObject], rng: np.random.Generator) -> list[SceneObject]:
    """Equal things around the middle."""
    n, radius = len(things), 0.32 if len(things) == 2 else 0.42
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(n) / n
    return [_standing(t, radius * np.cos(a), radius * np.sin(a)) for t, a in zip(things, angles)]


def _row(things: Sequence[SceneObject]) -> list[SceneObject]:
    """Things side by side."""
    halves = np.array([HALF_WIDTH[t.shape] * t.size for t in things])
    ends = np.cumsum(2 * halves + 0.05)
    return [_standing(t, 0, y) for t, y in zip(things, ends - halves - ends[-1] / 2)]


def _around_a_front(
    first: SceneObject, second: SceneObject, relation: str
) -> tuple[SceneObject, SceneObject]:
    """A thing in front of the other one, or behind it; that one looks along +x."""
    reach = 1.0 if second.shape in ("car", "mug") else 0.7
    along = (0.06 + first.size + second.size * reach) / 2
    along *= 1 if relation == "in front of" else -1
    return _standing(first, along, 0), _standing(second, -along, 0)


def _inside(inner: SceneObject, outer: SceneObject) -> tuple[SceneObject, SceneObject]:
    """A thing that sticks out of a mug, or in the hole of a torus."""
    share, height = (0.48, 0.85) if outer.shape == "mug" else (0.42, 0.12)
    inner = replace(inner, size=share * outer.size)
    return _at(inner, 0, 0, height * outer.size), _at(outer, 0, 0, 0)


def _base_size(count: int, links: tuple[str, ...]) -> float:
    """Half extent of things that are neither small nor large."""
    if not links:
        return (0.6, 0.27, 0.25)[count - 1]
    if len(links) == 2:
        return 0.25 if {*links} == {"on top of"} else 0.27
    if links[0] in RELATIONS:
        return 0.37
    return 0.5 if links[0] == INSIDE else 0.34


def place(
    things: Sequence[SceneObject], links: tuple[str, ...], rng: np.random.Generator
) -> tuple[SceneObject, ...]:
    """Copies of the things with the sizes and positions that their relations require."""
    base = _base_size(len(things), links)
    several = [base * float(rng.uniform(0.95, 1.05)) for _ in things]
    sizes = several if links else several[:1] * len(things)  # equal things are of one size
    sized = [replace(t, size=size * _SIZE_OF[t.extent]) for t, size in zip(things, sizes)]
    if not links:
        return arrange(sized, None, rng) if len(sized) == 1 else _middled(_ring(sized, rng))
    relation = links[0]
    if relation == INSIDE:
        return _middled(_inside(sized[0], sized[1]))
    if relation in LANDMARK_RELATIONS:
        return _middled(_around_a_front(sized[0], sized[1], relation))
    if len(links) == 1:
        return arrange(sized, relation, rng)
    a, b, c = sized
    if {*links} == {"on top of"}:
        c = _standing(c, 0, 0)
        b = _on(b, c)
        return _middled([_on(a, b), b, c])
    if relation == "on top of":
        b, c = arrange([b, c], "next to", rng)
        return _middled([_on(a, b), b, c])
    return _middled(_row(sized))


def _thing(rng: np.random.Generator, shapes: tuple[str, ...] = SHAPES) -> SceneObject:
    return SceneObject(
        pick(shapes, rng),
        pick(tuple(COLORS), rng),
        1.0,
        float(rng.uniform(-0.2, 0.2)),
        pattern=pick(PATTERNS, rng) if rng.random() < _PATTERNED else "",
    )


def _unlike(rng: np.random.Generator, n: int) -> list[SceneObject]:
    """Things of which no two have color and shape in common."""
    things: list[SceneObject] = []
    while len(things) < n:
        thing = _thing(rng)
        if thing.words not in [t.words for t in things]:
            things.append(thing)
    return things


Drawn = tuple[list[SceneObject], tuple[str, ...]]
"""Things and their relations."""


def _number(rng: np.random.Generator) -> Drawn:
    return [_thing(rng)] * int(rng.integers(2, len(COUNTS) + 1)), ()


def _triple(rng: np.random.Generator) -> Drawn:
    first, then = pick(RELATIONS, rng), pick(RELATIONS, rng)
    if (first, then) == ("next to", "on top of"):  # the middle one would be on top of both
        then = first
    return _unlike(rng, 3), (first, then)


def _landmark(rng: np.random.Generator) -> Drawn:
    first, second = _thing(rng), _thing(rng, COMPOUNDS)
    while first.words == second.words:
        first = _thing(rng)
    return [first, second], (pick(LANDMARK_RELATIONS, rng),)


def _content(rng: np.random.Generator) -> Drawn:
    outer = replace(_thing(rng, tuple(HOLDERS)), pattern="")
    inner = _thing(rng, HOLDERS[outer.shape])
    while inner.color == outer.color:
        inner = replace(inner, color=pick(tuple(COLORS), rng))
    return [inner, outer], (INSIDE,)


def _sizes(rng: np.random.Generator) -> Drawn:
    extents = [str(x) for x in rng.permutation(EXTENTS)]
    things = [replace(t, extent=extent) for t, extent in zip(_unlike(rng, 2), extents)]
    return things, (pick(RELATIONS, rng),)


def _pattern(rng: np.random.Generator) -> Drawn:
    if rng.random() < _LACKING:
        return [replace(_thing(rng, COMPOUNDS), fronts=())], ()
    return [replace(_thing(rng), pattern=pick(PATTERNS, rng))], ()


KINDS: dict[str, Callable[[np.random.Generator], Drawn]] = {
    "number": _number,
    "triple": _triple,
    "landmark": _landmark,
    "content": _content,
    "sizes": _sizes,
    "pattern": _pattern,
}
"""Kinds of compositions, and what draws them: two or three equal things; three different ones; one
in front of a compound or behind it; one inside another; a small and a large one; one with a pattern
or without its front."""


def sample_composition(rng: np.random.Generator, kind: str | None = None) -> Scene:
    """Draw a scene of one of `KINDS`, of any by default."""
    things, links = KINDS[kind or pick(tuple(KINDS), rng)](rng)
    relation, then = (*links, None, None)[:2]
    return Scene(place(things, links, rng), relation, seed=int(rng.integers(2**31)), then=then)
