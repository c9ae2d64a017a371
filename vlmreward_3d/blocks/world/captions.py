"""Captions of and questions about scenes of the blocks world, with the true answers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vlmreward.models.vocabulary import words_of
from vlmreward.rewards.questions import NAMED_QUESTIONS
from vlmreward_3d.blocks.world.compositions import sample_composition
from vlmreward_3d.blocks.world.descriptions import (
    altered,
    article,
    bare,
    caption,
    false_captions,
    name,
    other,
    plural,
)
from vlmreward_3d.blocks.world.scenes import (
    COLORS,
    COMPOUNDS,
    COUNTS,
    EXTENTS,
    INSIDE,
    LANDMARK_RELATIONS,
    PATTERNS,
    SHAPES,
    Scene,
    pick,
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
"""Words that the auxiliary word-presence loss detects in image tokens."""
RICH_WORDS = (*PATTERNS, *EXTENTS, "inside", "front", "behind")
"""Further words, of compositions, that the word-presence loss detects."""


@dataclass(frozen=True)
class Question:
    """A question with its true answer and its kind (for tables).

    ``probability`` is the probability of Yes if the views show a blend of two scenes.
    """

    text: str
    yes: bool
    kind: str
    probability: float | None = None

    @property
    def truth(self) -> float:
        """The probability of Yes."""
        return float(self.yes) if self.probability is None else self.probability


def attribute_question(scene: Scene, rng: np.random.Generator, *, simple: bool = False) -> Question:
    """A question about colors and shapes, with the answer Yes as often as No.

    Args:
        scene: scene that the images show.
        rng: source of choices.
        simple: ask about one color or one shape only, never about their combination.
    """
    yes = bool(rng.random() < 0.5)
    thing = pick(scene.things, rng)
    present_colors = {t.color for t in scene.things}
    present_shapes = {t.shape for t in scene.things}
    roll = rng.random() * (0.65 if simple else 1.0)
    if roll < 0.3:
        absent = [c for c in COLORS if c not in present_colors]
        color = thing.color if yes else pick(absent, rng)
        form = pick(("Is there something {}?", "Is anything here {}?"), rng)
        return Question(form.format(color), yes, "color")
    if roll < 0.65:
        if yes and not thing.fronts:  # its name holds together with what it lacks
            return Question(f"Is there {article(bare(thing), 0)}?", yes, "shape")
        absent = [s for s in SHAPES if s not in present_shapes]
        shape = thing.shape if yes or not thing.fronts else pick(absent, rng)
        return Question(f"Is there {article(shape, 0)}?", yes, "shape")
    if roll < 0.8 and thing.fronts and sum(t.shape == thing.shape for t in scene.things) == 1:
        color = thing.color
        if not yes:
            swap = [t.color for t in scene.things if t.color != thing.color]
            color = swap[0] if swap and rng.random() < 0.5 else other(COLORS, color, rng)
        return Question(f"Is the {thing.shape} {color}?", yes, "binding")
    asked = thing
    words = {t.words for t in scene.things}
    while not yes and asked.words in words:
        if len(words) > 1 and rng.random() < 0.5:
            another = pick([t for t in scene.things if t.words != thing.words], rng)
            asked = replace(thing, color=another.color)
            if asked.words in words:
                asked = altered(thing, rng)
        else:
            asked = altered(thing, rng)
    return Question(f"Is there {name(asked)}?", yes, "binding")


def detail_question(scene: Scene, rng: np.random.Generator) -> Question:
    """A question about patterns, fronts, sizes or numbers, if possible with Yes as often as No."""
    yes = bool(rng.random() < 0.5)
    thing = pick(scene.things, rng)
    patterns = {t.pattern for t in scene.things} - {""}
    topics = ["number"]
    topics += ["pattern"] if patterns or rng.random() < 0.3 else []
    topics += ["front"] if thing.shape in COMPOUNDS and scene.count == 1 else []
    topics += ["size"] if thing.extent else []
    topic = pick(topics, rng)
    if topic == "front":
        asked = replace(thing, fronts=(0.0,) if bool(thing.fronts) == yes else ())
        return Question(f"Is there {name(asked)}?", yes, "detail: front")
    if topic == "size":
        extent = thing.extent if yes else other(EXTENTS, thing.extent, rng)
        return Question(f"Is {name(replace(thing, extent=''), 2)} {extent}?", yes, "detail: size")
    if topic == "number":
        true = sum(t.shape == thing.shape for t in scene.things)
        count = true if yes else int(rng.choice([n for n in (1, 2, 3) if n != true]))
        words = plural(thing.shape) if count > 1 else thing.shape
        verb = "Are" if count > 1 else "Is"
        return Question(f"{verb} there {COUNTS[count - 1]} {words}?", yes, "detail: number")
    if scene.count == 1 and rng.random() < 0.6:
        pattern = thing.pattern if yes and thing.pattern else other(PATTERNS, thing.pattern, rng)
        plain = name(replace(thing, pattern=""), 2)
        return Question(f"Is {plain} {pattern}?", pattern == thing.pattern, "detail: pattern")
    pattern = pick([p for p in PATTERNS if (p in patterns) == yes] or PATTERNS, rng)
    return Question(f"Is there something {pattern}?", pattern in patterns, "detail: pattern")


def relation_question(scene: Scene, rng: np.random.Generator) -> Question:
    """A question about a relation of two things, which are named by their qualities."""
    link = int(rng.integers(len(scene.links)))
    a, b = scene.things[link : link + 2]
    first, second, relation = name(a, 2), name(b, 2), scene.links[link]
    yes = bool(rng.random() < 0.5)
    if relation in LANDMARK_RELATIONS or relation == INSIDE:
        wrong = other(LANDMARK_RELATIONS, relation, rng) if relation != INSIDE else "next to"
        return Question(f"Is {first} {relation if yes else wrong} {second}?", yes, "relation")
    if relation == "next to":
        if rng.random() < 0.5:
            first, second = second, first
        asked = "next to" if yes else pick(("on top of", "below"), rng)
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
    scene: Scene,
    rng: np.random.Generator,
    *,
    form: str | None = None,
    sound: bool = True,
    rich: bool = False,
) -> Question:
    """A question whether a description is true; the paper's prompts B and selected also require
    geometry without flaws.

    Args:
        scene: scene that the images show.
        rng: source of choices.
        form: a text with ``{prompt}``, or a name in ``NAMED_QUESTIONS``; one of the short ones by
            default.
        sound: True if the geometry is free of flaws.
        rich: also use the words of compositions; see ``false_captions``.
    """
    template = NAMED_QUESTIONS.get(form or "", form) or pick(CAPTION_QUESTIONS, rng)
    wants_sound = form in ("paper/selected", "paper/B")
    family = ("single caption", "pair caption", "triple caption")[len(scene.links)]
    family = "number caption" if scene.count > 1 else family
    if rng.random() < 0.5 or (wants_sound and not sound):
        says = caption(scene, rng)
        yes = sound or not wants_sound
        kind = f"{family}: " + ("true" if yes else "flawed")
    else:
        why, says = pick(false_captions(scene, rng, rich=rich), rng)
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
        topic = str(pick(topics[1:], rng))
    yes = flaw is None if topic == "sound" else topic == flaw
    return Question(pick(GEOMETRY_QUESTIONS[topic], rng), yes, f"geometry: {topic}")


def corpus(scenes: list[Scene], rng: np.random.Generator, *, rich: bool = False) -> list[str]:
    """Texts of every kind, the training data of the tokenizer."""
    texts: list[str] = [q for group in GEOMETRY_QUESTIONS.values() for q in group]
    for scene in scenes:
        form = pick((*LONG_PROMPTS, None), rng)
        texts += [caption(scene, rng), attribute_question(scene, rng).text]
        texts += [caption_question(scene, rng, form=form, rich=rich).text]
        if scene.relation:
            texts.append(relation_question(scene, rng).text)
        if rich:
            texts.append(detail_question(scene, rng).text)
    return texts


def sample_scenes(n: int, rng: np.random.Generator, *, rich: bool = False) -> list[Scene]:
    """Scenes without flaws; every other one a composition where ``rich``."""
    return [sample_composition(rng) if rich and i % 2 else sample_scene(rng) for i in range(n)]


def known_words(*, captions: bool = False, rich: bool = False) -> list[str]:
    """All words, in lower case and in order, that the VLM is trained on, or that captions have.

    The paper's prompts with one criterion, which share their other words with those that are
    trained on, count as known.

    Args:
        captions: take the captions alone.
        rich: take compositions, too.
    """
    rng = np.random.default_rng(0)
    scenes = sample_scenes(6000 if rich else 3000, rng, rich=rich)
    if captions:
        texts = [caption(scene, rng) for scene in scenes]
    else:
        paper = [text for name, text in NAMED_QUESTIONS.items() if name.startswith("paper/")]
        named = [text.format(prompt="") for text in paper]
        texts = [*named, *corpus(scenes, rng, rich=rich)]
    return sorted({word for text in texts for word in words_of(text)})
