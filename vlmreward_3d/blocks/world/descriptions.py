"""True and false descriptions of scenes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from vlmreward_3d.blocks.world.scenes import (
    COLORS,
    COMPOUNDS,
    COUNTS,
    INSIDE,
    LACKS,
    LANDMARK_RELATIONS,
    PATTERNS,
    RELATIONS,
    SHAPES,
    Scene,
    SceneObject,
    pick,
)

_PLURALS = {"torus": "tori", "snowman": "snowmen"}


def article(words: str, style: int) -> str:
    """Words with "a" or "an" (0), without an article (1), or with "the" (2)."""
    if style == 0:
        return ("an " if words[0] in "aeiou" else "a ") + words
    return words if style == 1 else "the " + words


def _qualities(thing: SceneObject) -> str:
    return " ".join(filter(None, (thing.extent, thing.pattern, thing.color)))


def bare(thing: SceneObject) -> str:
    """Words for the shape of a thing, and for a front that it lacks."""
    return thing.shape + ("" if thing.fronts else f" without {LACKS[thing.shape]}")


def name(thing: SceneObject, style: int = 0) -> str:
    """Words for a thing: article, qualities and shape; ``style`` as in ``article``."""
    return article(f"{_qualities(thing)} {bare(thing)}", style)


def as_if_whole(scene: Scene) -> Scene:
    """The same scene with a front on each thing that lacks one."""
    things = tuple(t if t.fronts else replace(t, fronts=(0.0,)) for t in scene.things)
    return replace(scene, things=things)


def plural(shape: str) -> str:
    """The word for several things of a shape."""
    return _PLURALS.get(shape, f"{shape}s")


def several(thing: SceneObject, count: int) -> str:
    """Words for a number of equal things, such as "three red cubes"."""
    return f"{COUNTS[count - 1]} {_qualities(thing)} {plural(thing.shape)}"


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """A true description of a scene: plain without ``rng``, else one of several wordings."""
    style = 0 if rng is None else int(rng.choice(3, p=(0.7, 0.15, 0.15)))
    if scene.count > 1:
        return several(scene.things[0], scene.count)
    words = [name(scene.things[0], style)]
    for link, thing in zip(scene.links, scene.things[1:]):
        words += [link, name(thing, style)]
    return " ".join(words)


def unbound_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption with the words of a true one: colors and order are exchanged at random.

    A model that learns from such captions knows the words, and neither which object has which color
    nor which of a pair is on top.
    """
    if len(scene.things) == 2:
        if rng.random() < 0.5:
            scene = exchange_colors(scene)
        if rng.random() >= 0.5:
            scene = exchange_order(scene)
    return caption(scene, rng)


def usual_arrangements(scene: Scene) -> int:
    """Number of usual properties of a pair of unlike shapes, 0 to 2: its colors and its order.

    Colors are usual if the shape that comes first in `SHAPES` has the color that comes first in
    `COLORS`. The order is usual if the shape that comes first in `SHAPES` is on top of the other
    one; things that are next to each other have no order.
    """
    if len(scene.things) != 2:
        return 0
    shapes = [SHAPES.index(thing.shape) for thing in scene.things]
    colors = [[*COLORS].index(thing.color) for thing in scene.things]
    if shapes[0] == shapes[1]:
        return 0
    first = shapes[0] < shapes[1]
    of_colors = colors[0] != colors[1] and first == (colors[0] < colors[1])
    return of_colors + (scene.relation == "on top of" and first)


def _exchanged(scene: Scene, i: int, j: int, *fields: str) -> Scene:
    """The scene with the values of some fields exchanged between things ``i`` and ``j``."""
    things = list(scene.things)
    a, b = things[i], things[j]
    things[i] = replace(a, **{f: getattr(b, f) for f in fields})
    things[j] = replace(b, **{f: getattr(a, f) for f in fields})
    return replace(scene, things=tuple(things))


def exchange_colors(scene: Scene, i: int = 0, j: int = 1) -> Scene:
    """The scene in which two things have each other's color."""
    return _exchanged(scene, i, j, "color")


def exchange_order(scene: Scene, i: int = 0, j: int = 1) -> Scene:
    """The scene in which two things have each other's place."""
    things = list(scene.things)
    things[i], things[j] = things[j], things[i]
    return replace(scene, things=tuple(things))


def same_meaning(one: Scene, other: Scene) -> bool:
    """True if a caption of one scene also describes the other."""
    return _key(one) == _key(other)


def _key(scene: Scene) -> tuple:
    """The content of a caption; equal keys are descriptions of the same."""
    said = tuple(name(thing, 1) for thing in scene.things)
    links = scene.links
    if links and {*links} == {"next to"}:  # a row has no beginning
        said = min(said, said[::-1])
    return (links, said)


def other(options: Iterable[object], current: object, rng: np.random.Generator) -> str:
    """One of the options that is not the current one."""
    return str(pick([o for o in options if o != current], rng))


def altered(thing: SceneObject, rng: np.random.Generator) -> SceneObject:
    """The thing with another color or another shape."""
    if rng.random() < 0.5:
        return replace(thing, color=other(COLORS, thing.color, rng))
    shape = other(SHAPES, thing.shape, rng)
    return replace(thing, shape=shape, fronts=(0.0,))


def _other_relation(scene: Scene, link: int, rng: np.random.Generator, rich: bool) -> str:
    """A relation that does not hold, to replace that of a link."""
    relation, second = scene.links[link], scene.things[link + 1]
    if relation == INSIDE:
        return "next to"
    if relation in LANDMARK_RELATIONS:
        return other((*LANDMARK_RELATIONS, "on top of"), relation, rng)
    options: tuple[str, ...] = RELATIONS
    if rich and second.shape in COMPOUNDS and len(scene.things) == 2:
        options += LANDMARK_RELATIONS
    return other(options, relation, rng)


def _with_link(scene: Scene, link: int, relation: str) -> Scene:
    return replace(scene, then=relation) if link else replace(scene, relation=relation)


def with_thing(scene: Scene, i: int, thing: SceneObject) -> Scene:
    """The scene with another thing in one place."""
    return replace(scene, things=(*scene.things[:i], thing, *scene.things[i + 1 :]))


def _false_of_single(scene: Scene, rng: np.random.Generator) -> list[tuple[str, Scene]]:
    (thing,) = scene.things
    another = SceneObject(str(rng.choice(SHAPES)), str(rng.choice(list(COLORS))), 0.5)
    relation = str(rng.choice(RELATIONS))
    pair = (thing, another) if rng.random() < 0.5 else (another, thing)
    return [
        ("attribute", replace(scene, things=(altered(thing, rng),))),
        ("other", replace(scene, things=(another,))),
        ("extra", replace(scene, things=pair, relation=relation)),
    ]


def _false_of_several(
    scene: Scene, rng: np.random.Generator, rich: bool
) -> list[tuple[str, Scene]]:
    i = int(rng.integers(len(scene.links)))
    which = int(rng.integers(len(scene.things)))
    out = [
        ("swapped colors", exchange_colors(scene, i, i + 1)),
        ("wrong relation", _with_link(scene, i, _other_relation(scene, i, rng, rich))),
        ("attribute", with_thing(scene, which, altered(scene.things[which], rng))),
    ]
    # where the one behind has no front, nothing says where that is
    if scene.relation not in LANDMARK_RELATIONS or scene.things[0].shape in COMPOUNDS:
        out.insert(1, ("swapped order", exchange_order(scene, i, i + 1)))
    if any(t.extent for t in scene.things):
        out.append(("swapped sizes", _exchanged(scene, 0, 1, "extent")))
    if any(t.pattern for t in scene.things):
        out.append(("swapped patterns", _exchanged(scene, i, i + 1, "pattern")))
    return out


def _false_of_details(scene: Scene, rng: np.random.Generator) -> list[tuple[str, Scene]]:
    """Scenes with another pattern, and with a front added or removed."""
    which = int(rng.integers(len(scene.things)))
    thing = scene.things[which]
    pattern = other(PATTERNS, thing.pattern, rng)
    out = [("pattern", with_thing(scene, which, replace(thing, pattern=pattern)))]
    if thing.shape in COMPOUNDS:
        fronts = () if thing.fronts else (0.0,)
        out.append(("front", with_thing(scene, which, replace(thing, fronts=fronts))))
    return out


def false_captions(
    scene: Scene, rng: np.random.Generator, *, rich: bool = False
) -> list[tuple[str, str]]:
    """False descriptions of a scene, as (kind, text).

    Args:
        scene: scene that the descriptions do not match.
        rng: source of choices.
        rich: also use words of compositions: numbers, patterns, sizes, "without".
    """
    if scene.count > 1:
        thing = scene.things[0]
        wrong = int(rng.choice([n for n in range(1, len(COUNTS) + 1) if n != scene.count]))
        few = [("number", several(thing, wrong) if wrong > 1 else f"one {name(thing, 1)}")]
        changed = several(altered(thing, rng), scene.count)
        return [*few, ("attribute", changed)]
    out = _false_of_several(scene, rng, rich) if scene.links else _false_of_single(scene, rng)
    if rich:
        out += _false_of_details(scene, rng)
    return [(kind, caption(s, rng)) for kind, s in out if not same_meaning(s, scene)]
