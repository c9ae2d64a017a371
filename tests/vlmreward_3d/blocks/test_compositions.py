"""Compositions: what is drawn, what is said of it by a reader of its own, and what is seen."""

import itertools

import numpy as np
import pytest
import torch

from vlmreward_3d.blocks.training.tokenizer import train_tokenizer
from vlmreward_3d.blocks.training.train_denoiser import RICH_TEXT_LENGTH
from vlmreward_3d.blocks.world.captions import (
    RICH_WORDS,
    detail_question,
    known_words,
    relation_question,
    sample_scenes,
)
from vlmreward_3d.blocks.world.compositions import KINDS, sample_composition
from vlmreward_3d.blocks.world.dataset import sample_cameras
from vlmreward_3d.blocks.world.descriptions import caption, false_captions
from vlmreward_3d.blocks.world.ground_truth import facts_of
from vlmreward_3d.blocks.world.questions import _WORD, word_labels
from vlmreward_3d.blocks.world.raycast import raycast
from vlmreward_3d.blocks.world.scenes import (
    COLORS,
    COMPOUNDS,
    EXTENTS,
    PATTERNS,
    SHAPES,
    Scene,
    SceneObject,
)
from vlmreward_3d.blocks.world.solids import Pattern
from vlmreward_3d.cameras import orbit

LINKS = ("on top of", "next to", "in front of", "behind", "inside")
NUMBERS = {"one": 1, "two": 2, "three": 3}
SINGULAR = {f"{s}s": s for s in SHAPES} | {"tori": "torus", "snowmen": "snowman"}


def read_thing(text):
    """(extent, pattern, color, shape, has a front) of "a small striped red mug without ..."."""
    said, _, lack = text.partition(" without ")
    words = [w for w in said.split() if w not in ("a", "an", "the", *NUMBERS)]
    kinds = {w: i for i, group in enumerate((EXTENTS, PATTERNS, COLORS)) for w in group}
    out = ["", "", "", SINGULAR.get(words[-1], words[-1]), not lack]
    for word in words[:-1]:
        out[kinds[word]] = word
    return tuple(out)


def read(text):
    """Number, links and things of a description."""
    parts, links = [text], []
    for link in LINKS:
        new = []
        for part in parts:
            new += part.split(f" {link} ")
        parts = new
    place = text
    while any(f" {link} " in place for link in LINKS):
        at, link = min((place.index(f" {k} "), k) for k in LINKS if f" {k} " in place)
        links.append(link)
        place = place[at + len(link) + 1 :]
    parts.sort(key=text.index)
    number = NUMBERS.get(text.split()[0], 1)
    return number, tuple(links), [read_thing(p) for p in parts]


def truth(scene):
    things = [(t.extent, t.pattern, *t.words, bool(t.fronts)) for t in scene.things]
    return (scene.count, scene.links, things[:1] if scene.count > 1 else things)


def agrees(scene, text):
    number, links, things = read(text)
    n, true_links, true_things = truth(scene)
    orders = [true_things, true_things[::-1]] if {*links} == {"next to"} else [true_things]
    return number == n and links == true_links and things in orders


def drawn(n=240):
    rng = np.random.default_rng(8)
    kinds = itertools.cycle(KINDS)
    return [sample_composition(rng, next(kinds)) for _ in range(n)], rng


def test_captions_hold_and_false_captions_do_not():
    scenes, rng = drawn()
    seen = set()
    for scene in scenes:
        assert agrees(scene, caption(scene))
        assert agrees(scene, caption(scene, rng))
        for kind, text in false_captions(scene, rng, rich=True):
            seen.add(kind)
            assert not agrees(scene, text), (scene, text)
    assert seen >= {
        *("swapped colors", "swapped order", "swapped sizes", "swapped patterns"),
        *("wrong relation", "attribute", "number", "pattern", "front", "extra", "other"),
    }


def test_questions_about_details_and_relations_are_answered_right_and_both_ways():
    scenes, rng = drawn(600)
    answers = {}
    for scene in scenes:
        question = detail_question(scene, rng)
        answers.setdefault(question.kind, []).append(question.yes)
        text = question.text.removesuffix("?")
        if question.kind == "detail: number":
            number, shape = text.split()[-2:]
            shape = SINGULAR.get(shape, shape)
            count = sum(t.shape == shape for t in scene.things)
            assert question.yes == (count == NUMBERS[number])
        elif "something" in text:
            assert question.yes == (text.split()[-1] in {t.pattern for t in scene.things})
        elif question.kind == "detail: front":
            asked = read_thing(text.removeprefix("Is there "))
            assert question.yes == (asked in truth(scene)[2])
        else:  # "Is the small red cube striped?"
            *thing, quality = text.removeprefix("Is the ").split()
            held = [t for t in scene.things if {*thing} & {*COLORS, *SHAPES} == {*t.words}]
            if "without" not in thing:
                assert question.yes == (quality in (held[0].pattern, held[0].extent))
        if scene.links:
            question = relation_question(scene, rng)
            answers.setdefault(scene.links, []).append(question.yes)
            if "below" not in question.text:
                _, (link,), (a, b) = read(question.text.removeprefix("Is ").removesuffix("?"))
                _, links, things = truth(scene)
                pairs = [*zip(things, links, things[1:])]
                pairs += [(y, k, x) for x, k, y in pairs if k == "next to"]
                assert question.yes == ((a, link, b) in pairs)
    for kind, found in answers.items():
        assert 0.2 < np.mean(found) < 0.8, kind


def test_scenes_fit_into_the_world_and_survive_being_written():
    scenes, _ = drawn()
    for scene in scenes:
        assert scene.composed
        assert Scene.from_dict(scene.to_dict()) == scene
        if scene.count == 1:
            assert len({t.words for t in scene.things}) == len(scene.things)
        for thing in scene.things:
            assert np.linalg.norm(thing.position) + 0.6 * thing.size < 0.95
    assert {len(s.things) for s in scenes} == {1, 2, 3}
    plain = sample_scenes(60, np.random.default_rng(0))
    assert not any(s.composed for s in plain)
    mixed = sample_scenes(60, np.random.default_rng(0), rich=True)
    assert [s.composed for s in mixed] == [bool(i % 2) for i in range(60)]


def test_in_front_is_where_the_front_is():
    rng = np.random.default_rng(5)
    for _ in range(40):
        scene = sample_composition(rng, "landmark")
        (x, *_), (at, *_) = (t.position for t in scene.things)
        assert scene.things[1].shape in COMPOUNDS
        assert (x > at) == (scene.relation == "in front of")


def test_words_of_compositions_are_where_they_are_seen():
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(2)
    for kind in KINDS:
        scene = sample_composition(rng, kind)
        views = raycast(scene, sample_cameras(generator), 64)
        cover = (views.coverage.reshape(8, 4, 16, 4, 16, -1).mean((2, 4)) * 255).to(torch.uint8)
        labels = word_labels(scene, cover)
        for thing in scene.things:
            for word in filter(None, (*thing.words, thing.pattern, thing.extent)):
                # a small thing may leave it open everywhere, and never says no
                assert (labels[..., _WORD[word]] != 0).any(), (kind, word)
        absent = {*COLORS} - {t.color for t in scene.things}
        assert not any((labels[..., _WORD[word]] == 1).any() for word in absent)


def test_a_triple_has_both_relations_among_its_facts():
    things = [SceneObject(s, c, 0.3) for s, c in zip(SHAPES, ("red", "blue", "green"))]
    scene = Scene(tuple(things), "on top of", then="next to")
    facts = facts_of(scene, None)
    assert facts.roles == {
        ("top", "red", "sphere"),
        ("below", "blue", "cube"),
        ("next", "blue", "cube"),
        ("next", "green", "cylinder"),
    }
    lacking = Scene((SceneObject("mug", "red", 0.6, fronts=()),))
    assert facts_of(lacking, None) is None


@pytest.mark.parametrize("kind", PATTERNS)
def test_patterns_mark_a_part_of_a_surface(kind):
    pattern = Pattern(kind, (0.1, 0.0, -0.2), 0.5, 2)
    direction = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    points = 0.46 * torch.nn.functional.normalize(direction, dim=1) + torch.tensor([0.1, 0, -0.2])
    base = torch.tensor([0.8, 0.1, 0.1])
    colors = pattern.color(points, base)
    plain = (colors == base).all(1)
    assert 0.3 < plain.float().mean() < 0.85
    assert colors[~plain].unique(dim=0).shape == (1, 3)
    if kind == "striped":  # the same height, the same color
        turned = torch.stack([0.2 - points[:, 0], -points[:, 1], points[:, 2]], 1)
        assert torch.equal(pattern.color(turned, base), colors)


def test_a_striped_ball_is_seen_in_two_colors():
    angle = torch.zeros(1, dtype=torch.float64)
    cameras = orbit(angle, angle + 20, angle + 3.0, angle + 34)
    plain, striped = (
        raycast(Scene((SceneObject("sphere", "blue", 0.6, pattern=p),)), cameras, 48)
        for p in ("", "striped")
    )
    assert torch.equal(plain.coverage, striped.coverage)
    assert torch.equal(plain.rgba[..., 3], striped.rgba[..., 3])
    changed = (plain.rgba != striped.rgba).any(-1).sum() / (plain.rgba[..., 3] > 0).sum()
    assert 0.2 < changed < 0.8


def test_texts_of_compositions_have_words_and_room():
    words = known_words(captions=True, rich=True)
    assert {*known_words(captions=True)} < {*words}
    assert {*RICH_WORDS} < {*known_words(rich=True)}
    tokenizer = train_tokenizer(768, rich=True)
    rng = np.random.default_rng(1)
    texts = [caption(sample_composition(rng, "triple"), rng) for _ in range(500)]
    assert max(len(tokenizer(text)["input_ids"]) for text in texts) + 1 <= RICH_TEXT_LENGTH
