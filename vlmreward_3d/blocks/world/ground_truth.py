"""Facts of a scene, word by word, as labels of the built-in VLM's word-truth loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vlmreward_3d.blocks.world.scenes import COLORS, SHAPES, Scene, SceneObject

ROLES = {
    "on top of": ("top", "below"),
    "next to": ("next", "next"),
    "in front of": ("front", "has in front"),
    "behind": ("behind", "has behind"),
    "inside": ("inside", "holds"),
}
"""Parts that the first and the second thing of a relation play."""
_OTHER_ROLE = {**dict(ROLES.values()), "below": "top"}
"""Part of the thing named behind a relation word: x on *top* of y puts y *below*."""
_FLAW_WORDS = {
    "faces": "faces",
    "floaters": "floating",
    "holes": "broken",
    "intersection": "intersecting",
}


def roles_of(scene: Scene) -> list[set[str]]:
    """The parts that each thing of a scene plays in its relations."""
    roles: list[set[str]] = [set() for _ in scene.things]
    for i, link in enumerate(scene.links):
        for thing, role in zip(roles[i : i + 2], ROLES[link]):
            thing.add(role)
    return roles


def _words(thing: SceneObject) -> set[str]:
    return {*filter(None, (thing.extent, thing.pattern, thing.color, thing.shape))}


@dataclass(frozen=True)
class Facts:
    """The facts of a scene that word-truth labels are derived from.

    Attributes:
        words: presence words that are true of the scene.
        pairs: (color, shape) of each thing.
        roles: (role, color, shape) of each thing, for every part that it plays in a relation.
    """

    words: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    roles: frozenset[tuple[str, str, str]]


def facts_of(scene: Scene, flaw: str | None) -> Facts | None:
    """The facts of a scene shown with a flaw; None for mixed views or a missing front."""
    if flaw == "mixed" or (flaw is None and not all(t.fronts for t in scene.things)):
        return None
    if flaw == "nothing":
        return Facts(frozenset(), frozenset(), frozenset())
    if flaw == "no front":  # a color, and no object that has a name
        return Facts(frozenset(t.color for t in scene.things), frozenset(), frozenset())
    roles = frozenset(
        (role, *t.words) for parts, t in zip(roles_of(scene), scene.things) for role in parts
    )
    words = {role for role, *_ in roles} | {w for thing in scene.things for w in _words(thing)}
    if flaw in _FLAW_WORDS:
        words.add(_FLAW_WORDS[flaw])
    return Facts(frozenset(words), frozenset(t.words for t in scene.things), roles)


def iter_labels(words: Sequence[str | None], facts: Facts) -> Iterator[tuple[int, int, bool]]:
    """Truth labels at the places of a text, as far as they are known when it is read from the left.

    Args:
        words: the presence word at each token, ``""`` for any other token, None between questions.
        facts: facts of the scene.

    Yields:
        Place, kind and truth. Kind 0: the word is true of the scene. Kind 1, at a shape behind a
        color: one thing has both. Kind 2, at the second such pair of a relation: that thing plays
        its part in the relation named before.
    """
    before, role = "", ""
    for place, word in enumerate(words):
        if word:
            yield place, 0, word in facts.words
        if word in SHAPES and before in COLORS:
            yield place, 1, (before, word) in facts.pairs
            if role:
                yield place, 2, (role, before, word) in facts.roles
        role = "" if word is None else _OTHER_ROLE.get(word, role)
        before = word or ""
