"""What can be said and asked about a scene of the blocks world, with the true answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from vlmreward.models.vocabulary import words_of
from vlmreward.rewards.questions import NAMED_QUESTIONS
from vlmreward_3d.blocks.world.scenes import (
    COLORS,
    RELATIONS,
    SHAPES,
    Scene,
    SceneObject,
    sample_scene,
)

LONG_PROMPTS = ("paper/selected", "paper/A", "paper/B")

CAPTION_QUESTIONS = (
    NAMED_QUESTIONS["yes-no"],
    "Do these images show {prompt}? Answer Yes or No.",
    "Does the object match the description: {prompt}? Answer Yes or No.",
    "Is this {prompt}?",
    "Do the views show {prompt}?",
)
GEOMETRY_QUESTIONS: dict[str, tuple[str, ...]] = {
    "sound": (
        "Is the object geometrically sound and consistent? Answer Yes or No.",
        "Is the geometry free of flaws?",
    ),
    "faces": ("Does the object have multiple faces?", "Is there a Janus-faced issue?"),
    "floaters": ("Are there floating pieces?", "Are there pieces floating around the object?"),
    "holes": ("Are there holes or broken surfaces?", "Is a surface broken?"),
    "intersection": ("Is there intersecting geometry?", "Do the objects intersect?"),
    "mixed": ("Do the views show different objects?",),
}

PRESENCE_WORDS = (
    *(*COLORS, *SHAPES, "top", "below", "next"),
    *("faces", "floating", "broken", "intersecting"),
)
"""Words that the auxiliary word-presence loss looks for in image tokens."""


@dataclass(frozen=True)
class Question:
    """A question, whether its answer is Yes, and what kind it is (for tables)."""

    text: str
    yes: bool
    kind: str


def _article(words: str, style: int) -> str:
    if style == 0:
        return ("an " if words[0] in "aeiou" else "a ") + words
    return words if style == 1 else "the " + words


def _name(thing: SceneObject, style: int = 0) -> str:
    return _article(f"{thing.color} {thing.shape}", style)


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """A true description; the plain one without ``rng``, else one of several wordings."""
    style = 0 if rng is None else int(rng.choice(3, p=(0.7, 0.15, 0.15)))
    names = [_name(t, style) for t in scene.things]
    if scene.relation is None:
        return names[0]
    return f"{names[0]} {scene.relation} {names[1]}"


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


def exchange_colors(scene: Scene) -> Scene:
    """The pair whose things have each other's color."""
    a, b = scene.things
    return replace(scene, things=(replace(a, color=b.color), replace(b, color=a.color)))


def exchange_order(scene: Scene) -> Scene:
    """The pair whose second thing comes first."""
    a, b = scene.things
    return replace(scene, things=(b, a))


def same_meaning(one: Scene, other: Scene) -> bool:
    """True if a caption of one scene also describes the other."""
    return _key(one) == _key(other)


Option = TypeVar("Option")


def _other(options: Iterable[object], current: object, rng: np.random.Generator) -> str:
    rest = [o for o in options if o != current]
    return str(rest[int(rng.integers(len(rest)))])


def _altered(thing: SceneObject, rng: np.random.Generator) -> SceneObject:
    if rng.random() < 0.5:
        return replace(thing, color=_other(COLORS, thing.color, rng))
    return replace(thing, shape=_other(SHAPES, thing.shape, rng))


def _key(scene: Scene) -> tuple:
    """What a caption says; equal keys are descriptions of the same."""
    words = [t.words for t in scene.things]
    return (scene.relation, tuple(sorted(words) if scene.relation == "next to" else words))


def false_captions(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Descriptions that the scene does not meet, as (kind, text), hardest first."""
    out: list[tuple[str, Scene]] = []
    if scene.relation is None:
        (thing,) = scene.things
        out.append(("attribute", replace(scene, things=(_altered(thing, rng),))))
        other = SceneObject(str(rng.choice(SHAPES)), str(rng.choice(list(COLORS))), 0.5)
        out.append(("other", replace(scene, things=(other,))))
        relation = str(rng.choice(RELATIONS))
        pair = (thing, other) if rng.random() < 0.5 else (other, thing)
        out.append(("extra", replace(scene, things=pair, relation=relation)))
    else:
        a, b = scene.things
        out.append(("swapped colours", exchange_colors(scene)))
        out.append(("swapped order", exchange_order(scene)))
        relation = _other(RELATIONS, scene.relation, rng)
        out.append(("wrong relation", replace(scene, relation=relation)))
        changed = (_altered(a, rng), b) if rng.random() < 0.5 else (a, _altered(b, rng))
        out.append(("attribute", replace(scene, things=changed)))
    return [(kind, caption(s, rng)) for kind, s in out if not same_meaning(s, scene)]


def _pick(options: Sequence[Option], rng: np.random.Generator) -> Option:
    return options[int(rng.integers(len(options)))]


def attribute_question(scene: Scene, rng: np.random.Generator, *, simple: bool = False) -> Question:
    """A question about colours and shapes; Yes as often as No.

    Args:
        scene: what the images show.
        rng: source of choices.
        simple: one colour or one shape only, never which goes with which.
    """
    yes = bool(rng.random() < 0.5)
    thing = _pick(scene.things, rng)
    present_colors = {t.color for t in scene.things}
    present_shapes = {t.shape for t in scene.things}
    roll = rng.random() * (0.65 if simple else 1.0)
    if roll < 0.3:
        absent = [c for c in COLORS if c not in present_colors]
        color = thing.color if yes else _pick(absent, rng)
        form = _pick(("Is there something {}?", "Is anything here {}?"), rng)
        return Question(form.format(color), yes, "color")
    if roll < 0.65:
        absent = [s for s in SHAPES if s not in present_shapes]
        shape = thing.shape if yes else _pick(absent, rng)
        return Question(f"Is there {_article(shape, 0)}?", yes, "shape")
    if roll < 0.8 and sum(t.shape == thing.shape for t in scene.things) == 1:
        color = thing.color
        if not yes:
            swap = [t.color for t in scene.things if t.color != thing.color]
            color = swap[0] if swap and rng.random() < 0.5 else _other(COLORS, color, rng)
        return Question(f"Is the {thing.shape} {color}?", yes, "binding")
    asked = thing
    words = {t.words for t in scene.things}
    while not yes and asked.words in words:
        if len(scene.things) == 2 and rng.random() < 0.5:
            a, b = scene.things
            asked = replace(a, color=b.color)
            if asked.words in words:
                asked = _altered(thing, rng)
        else:
            asked = _altered(thing, rng)
    return Question(f"Is there {_name(asked)}?", yes, "binding")


def relation_question(scene: Scene, rng: np.random.Generator) -> Question:
    """A question about the relation of a pair, its things named by colour and shape."""
    a, b = scene.things
    first, second = _name(a, 2), _name(b, 2)
    yes = bool(rng.random() < 0.5)
    if scene.relation == "next to":
        if rng.random() < 0.5:
            first, second = second, first
        asked = "next to" if yes else _pick(("on top of", "below"), rng)
        return Question(f"Is {first} {asked} {second}?", yes, "relation")
    form = int(rng.integers(3))
    if form == 0:  # above
        pair = (first, second) if yes else (second, first)
        return Question(f"Is {pair[0]} on top of {pair[1]}?", yes, "relation")
    if form == 1:
        pair = (second, first) if yes else (first, second)
        return Question(f"Is {pair[0]} below {pair[1]}?", yes, "relation")
    asked = "on top of" if yes else "next to"
    return Question(f"Is {first} {asked} {second}?", yes, "relation")


def caption_question(
    scene: Scene, rng: np.random.Generator, *, form: str | None = None, sound: bool = True
) -> Question:
    """Does a description hold? The paper's prompts B and selected also want sound geometry.

    Args:
        scene: what the images show.
        rng: source of choices.
        form: a text with ``{prompt}``, or a name in ``NAMED_QUESTIONS``; one of the short ones by
            default.
        sound: whether the geometry is free of flaws.
    """
    template = NAMED_QUESTIONS.get(form or "", form) or _pick(CAPTION_QUESTIONS, rng)
    wants_sound = form in ("paper/selected", "paper/B")
    family = "pair caption" if scene.relation else "single caption"
    if rng.random() < 0.5 or (wants_sound and not sound):
        says = caption(scene, rng)
        yes = sound or not wants_sound
        kind = f"{family}: " + ("true" if yes else "flawed")
    else:
        why, says = _pick(false_captions(scene, rng), rng)
        yes, kind = False, f"{family}: {why}"
    return Question(template.format(prompt=says), yes, kind)


def geometry_question(flaw: str | None, rng: np.random.Generator) -> Question:
    """A question about flaws; ``flaw`` is None, ``"mixed"`` views, or one of ``FLAWS``.

    What has no front is geometrically sound; it is not what its name says.
    """
    flaw = None if flaw == "no front" else flaw
    topics = list(GEOMETRY_QUESTIONS)
    if rng.random() < 0.5:
        topic = "sound"
    elif flaw is not None and rng.random() < 0.5:
        topic = flaw
    else:
        topic = str(_pick(topics[1:], rng))
    yes = flaw is None if topic == "sound" else topic == flaw
    return Question(_pick(GEOMETRY_QUESTIONS[topic], rng), yes, f"geometry: {topic}")


def corpus(scenes: list[Scene], rng: np.random.Generator) -> list[str]:
    """Texts of every kind, to train a tokenizer on."""
    texts: list[str] = [q for group in GEOMETRY_QUESTIONS.values() for q in group]
    for scene in scenes:
        texts += [caption(scene, rng), attribute_question(scene, rng).text]
        texts += [caption_question(scene, rng, form=_pick((*LONG_PROMPTS, None), rng)).text]
        if scene.relation:
            texts.append(relation_question(scene, rng).text)
    return texts


def known_words(*, captions: bool = False) -> list[str]:
    """All words, in lower case and in order, that the VLM is trained on, or that captions have.

    The paper's prompts with one criterion, which share their other words with those that are
    trained on, count as known.
    """
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(3000)]
    if captions:
        texts = [caption(scene, rng) for scene in scenes]
    else:
        paper = [text for name, text in NAMED_QUESTIONS.items() if name.startswith("paper/")]
        named = [text.format(prompt="") for text in paper]
        texts = [*named, *corpus(scenes, rng)]
    return sorted({word for text in texts for word in words_of(text)})
