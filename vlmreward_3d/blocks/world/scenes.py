"""Scenes of the blocks world: their things, places and flaws.

The world is z-up, the front of an object looks along +x, and everything fits into a ball of radius
0.8 around the origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TypeVar

import numpy as np

Option = TypeVar("Option")

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.10, 0.10),
    "orange": (0.96, 0.50, 0.06),
    "yellow": (0.95, 0.86, 0.12),
    "green": (0.12, 0.62, 0.18),
    "cyan": (0.12, 0.78, 0.82),
    "blue": (0.12, 0.22, 0.86),
    "purple": (0.48, 0.14, 0.68),
    "pink": (0.97, 0.55, 0.74),
}
PRIMITIVES = ("sphere", "cube", "cylinder", "cone", "torus")
COMPOUNDS = ("mug", "chair", "car", "snowman")
SHAPES = PRIMITIVES + COMPOUNDS
RELATIONS = ("on top of", "next to")
LANDMARK_RELATIONS = ("in front of", "behind")
"""Relations to a compound, whose front determines the direction."""
INSIDE = "inside"
"""The relation of a thing to its holder, a mug or a torus."""
PATTERNS = ("striped", "dotted")
EXTENTS = ("small", "large")
COUNTS = ("one", "two", "three")
LACKS = {"mug": "a handle", "chair": "a back", "car": "lamps", "snowman": "a face"}
"""The feature at the front of each compound."""
FLAWS = ("faces", "floaters", "holes", "intersection", "no front")
SEVERAL_FRONTS = ((0, 2), (0, 1), (0, 1, 2), (0, 1, 2, 3))
"""Arrangements of several fronts, as angles in quarters of a turn."""


@dataclass(frozen=True)
class SceneObject:
    """One object: a shape and a color, ``yaw`` in radians, ``size`` its half extent.

    ``fronts`` are the angles in radians, from ``yaw``, of what marks the front of a compound:
    handle, back, lamps or face. An object has one; others are made to test who counts them.
    ``pattern`` is one of ``PATTERNS`` or empty, ``extent`` one of ``EXTENTS`` where the size is
    spoken of.
    """

    shape: str
    color: str
    size: float
    yaw: float = 0.0
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    fronts: tuple[float, ...] = (0.0,)
    pattern: str = ""
    extent: str = ""

    @property
    def words(self) -> tuple[str, str]:
        """Color word and shape word."""
        return self.color, self.shape


@dataclass(frozen=True)
class Scene:
    """Things, their relation (``things[0]`` *relation* ``things[1]``), and a flaw.

    ``then`` is the relation of the second to a third thing. Two or three things without a relation
    are equal. ``seed`` determines the random parts of the solids: color jitter, floaters and holes.
    """

    things: tuple[SceneObject, ...]
    relation: str | None = None
    flaw: str | None = None
    seed: int = 0
    holes: tuple[tuple[float, float, float, float], ...] = field(default=())
    then: str | None = None

    @property
    def links(self) -> tuple[str, ...]:
        """The relations of each thing to the next one."""
        return tuple(r for r in (self.relation, self.then) if r is not None)

    @property
    def count(self) -> int:
        """Number of equal things in the scene; 1 if the things are different."""
        return 1 if self.relation else len(self.things)

    @property
    def composed(self) -> bool:
        """True for scenes that only ``compositions`` draws."""
        details = any(t.pattern or t.extent for t in self.things)
        lacking = self.flaw is None and not all(t.fronts for t in self.things)
        beyond = self.relation not in (None, *RELATIONS) or self.then is not None
        return details or lacking or beyond or self.count > 1

    def to_dict(self) -> dict:
        """The scene as plain data; ``from_dict`` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> Scene:
        """Inverse of ``to_dict``."""
        things = tuple(
            SceneObject(**{**t, "position": tuple(t["position"]), "fronts": tuple(t["fronts"])})
            for t in data["things"]
        )
        holes = tuple(tuple(h) for h in data["holes"])
        return cls(things, data["relation"], data["flaw"], data["seed"], holes, data.get("then"))


BOTTOM_TOP = {
    "sphere": (-0.92, 0.92), "cube": (-0.74, 0.74), "cylinder": (-0.92, 0.92),
    "cone": (-0.95, 0.95), "torus": (-0.29, 0.29), "mug": (-0.78, 0.80),
    "chair": (-0.95, 0.90), "car": (-0.54, 0.48), "snowman": (-0.97, 0.95),
}  # fmt: skip
HALF_WIDTH = {
    "sphere": 0.92, "cube": 0.76, "cylinder": 0.62, "cone": 0.85, "torus": 0.97,
    "mug": 0.62, "chair": 0.62, "car": 0.55, "snowman": 0.52,
}  # fmt: skip


def pick(options: Sequence[Option], rng: np.random.Generator) -> Option:
    """One of the options, drawn with equal probabilities."""
    return options[int(rng.integers(len(options)))]


def arrange(
    things: list[SceneObject],
    relation: str | None,
    rng: np.random.Generator,
    *,
    overlap: float = 0.0,
) -> tuple[SceneObject, ...]:
    """Put one or two things into their places; ``overlap`` in 0..1 pushes a pair together."""
    if relation is None:
        (thing,) = things
        low, high = BOTTOM_TOP[thing.shape]
        return (replace(thing, position=(0.0, 0.0, -thing.size * (low + high) / 2)),)
    first, second = things
    if relation == "on top of":
        low_1, high_1 = (b * first.size for b in BOTTOM_TOP[first.shape])
        low_2, high_2 = (b * second.size for b in BOTTOM_TOP[second.shape])
        lift = (high_2 - low_1) * (1 - overlap) - 0.02
        middle = (low_2 + lift + high_1) / 2
        slide = rng.uniform(-0.04, 0.04, 2)
        return (
            replace(first, position=(float(slide[0]), float(slide[1]), lift - middle)),
            replace(second, position=(0.0, 0.0, -middle)),
        )
    if relation == "next to":
        half_1 = HALF_WIDTH[first.shape] * first.size
        half_2 = HALF_WIDTH[second.shape] * second.size
        apart = (half_1 + half_2) * (1 - overlap) + (0.05 if overlap == 0 else 0.0)
        y_1 = -(apart + half_2 - half_1) / 2
        ground = -0.35
        placed = []
        for thing, y in ((first, y_1), (second, y_1 + apart)):
            z = ground - BOTTOM_TOP[thing.shape][0] * thing.size
            placed.append(replace(thing, position=(0.0, float(y), float(z))))
        return tuple(placed)
    raise ValueError(f"unknown relation {relation!r}; expected one of {', '.join(RELATIONS)}")


def several_fronts(shape: str) -> tuple[tuple[int, ...], ...]:
    """The ``SEVERAL_FRONTS`` of a shape; a car, which is long, has fronts at its ends only."""
    return SEVERAL_FRONTS[:1] if shape == "car" else SEVERAL_FRONTS


def flawed_fronts(shape: str, flaw: str, rng: np.random.Generator) -> tuple[float, ...]:
    """Angles of the fronts of a flawed thing."""
    if flaw == "no front":
        return ()
    return tuple(np.pi / 2 * quarter for quarter in pick(several_fronts(shape), rng))


def sample_scene(
    rng: np.random.Generator,
    *,
    pair: bool | None = None,
    flaw: str | None = None,
    relation: str | None = None,
) -> Scene:
    """Draw a scene.

    ``flaw="faces"`` forces a compound, which gets several fronts; ``"no front"`` a compound alone,
    which has none and so is not what its name says; ``"intersection"`` forces a pair.
    """
    if flaw in ("intersection", "no front"):
        pair = flaw == "intersection"
    if pair is None:
        pair = bool(rng.random() < 0.55)
    names = [str(rng.choice(SHAPES)) for _ in range(1 + pair)]
    if flaw in ("faces", "no front") and not any(n in COMPOUNDS for n in names):
        names[int(rng.integers(len(names)))] = str(rng.choice(COMPOUNDS))
    colors = [str(rng.choice(list(COLORS))) for _ in names]
    if pair:
        while (names[0], colors[0]) == (names[1], colors[1]):
            colors[1] = str(rng.choice(list(COLORS)))
        relation = relation or str(rng.choice(RELATIONS))
        base = 0.37 if relation == "on top of" else 0.36
    else:
        relation, base = None, 0.60
    things = [
        SceneObject(n, c, float(base * rng.uniform(0.9, 1.08)), float(rng.uniform(-0.2, 0.2)))
        for n, c in zip(names, colors)
    ]
    if flaw in ("faces", "no front"):
        things = [replace(t, fronts=flawed_fronts(t.shape, flaw, rng)) for t in things]
    overlap = float(rng.uniform(0.45, 0.75)) if flaw == "intersection" else 0.0
    placed = arrange(things, relation, rng, overlap=overlap)
    holes: list[tuple[float, float, float, float]] = []
    if flaw == "holes":
        for _ in range(int(rng.integers(4, 9))):
            thing = placed[int(rng.integers(len(placed)))]
            direction = rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            where = np.array(thing.position) + direction * thing.size * rng.uniform(0.5, 0.9)
            radius = float(thing.size * rng.uniform(0.28, 0.5))
            holes.append((float(where[0]), float(where[1]), float(where[2]), radius))
    return Scene(placed, relation, flaw, int(rng.integers(2**31)), tuple(holes))
