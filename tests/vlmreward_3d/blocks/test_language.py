import json
import warnings
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import vlmreward_3d
from vlmreward.models.vocabulary import KNOWN_WORDS, words_of
from vlmreward_3d.blocks.world.captions import (
    attribute_question,
    caption_question,
    corpus,
    geometry_question,
    known_words,
    relation_question,
)
from vlmreward_3d.blocks.world.descriptions import (
    caption,
    false_captions,
    unbound_caption,
    usual_arrangements,
)
from vlmreward_3d.blocks.world.scenes import COLORS, FLAWS, SHAPES, Scene, SceneObject, sample_scene
from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion

WEIGHTS = Path(vlmreward_3d.__file__).parent / "blocks" / "weights"


def read(text):
    """Relation and (color, shape) pairs of a description, by an independent parser."""
    words = text.replace("?", "").replace(".", "").split()
    things = [(a, b) for a, b in pairwise(words) if a in COLORS and b in SHAPES]
    relation = next((r for r in ("on top of", "next to") if r in text), None)
    return relation, things


def holds(scene, text):
    relation, things = read(text)
    truth = [t.words for t in scene.things]
    if relation != scene.relation:
        return False
    return sorted(things) == sorted(truth) if relation == "next to" else things == truth


def scenes(n=400):
    rng = np.random.default_rng(11)
    return [sample_scene(rng) for _ in range(n)], rng


def test_captions_hold_and_false_captions_do_not():
    drawn, rng = scenes()
    kinds = set()
    for scene in drawn:
        assert holds(scene, caption(scene))
        assert holds(scene, caption(scene, rng))
        for kind, text in false_captions(scene, rng):
            kinds.add(kind)
            assert not holds(scene, text), (scene, text)
    assert {"swapped colors", "swapped order", "wrong relation", "attribute"} <= kinds


def test_unbound_captions_keep_the_words_and_neither_binding_nor_order():
    a, b = SceneObject("cube", "red", 0.3), SceneObject("sphere", "blue", 0.3)
    scene, rng = Scene((a, b), "on top of"), np.random.default_rng(0)
    said = Counter(unbound_caption(scene, rng).replace("the ", "a ") for _ in range(2000))
    plain = {text.removeprefix("a ").replace(" of a ", " of ") for text in said}
    assert plain == {
        "red cube on top of blue sphere",
        "blue cube on top of red sphere",
        "red sphere on top of blue cube",
        "blue sphere on top of red cube",
    }
    bound = sum(n for text, n in said.items() if "red cube" in text)
    on_top = sum(n for text, n in said.items() if "sphere on top" not in text)
    for share in (bound / 2000, on_top / 2000):
        assert abs(share - 0.5) < 4 * (0.25 / 2000) ** 0.5
    single = Scene((a,))
    assert "red cube" in unbound_caption(single, rng)


@pytest.mark.parametrize(
    ("things", "relation", "count"),
    [
        ([("sphere", "red"), ("cube", "blue")], "on top of", 2),
        ([("sphere", "blue"), ("cube", "red")], "on top of", 1),  # unusual colors
        ([("cube", "blue"), ("sphere", "red")], "on top of", 1),  # unusual order
        ([("cube", "red"), ("sphere", "blue")], "on top of", 0),
        ([("cube", "blue"), ("sphere", "red")], "next to", 1),  # which has no order
        ([("sphere", "red"), ("cube", "blue")], "next to", 1),
        ([("cube", "red"), ("sphere", "blue")], "next to", 0),
        ([("sphere", "red"), ("cube", "red")], "next to", 0),
        ([("cube", "red"), ("cube", "blue")], "on top of", 0),
        ([("cube", "red")], None, 0),
    ],
)
def test_usual_arrangements_are_those_of_the_lists(things, relation, count):
    scene = Scene(tuple(SceneObject(*thing, 0.3) for thing in things), relation)
    assert usual_arrangements(scene) == count


def test_swapping_what_stands_side_by_side_is_no_false_caption():
    a, b = SceneObject("cube", "red", 0.3), SceneObject("cone", "blue", 0.3)
    kinds = {k for k, _ in false_captions(Scene((a, b), "next to"), np.random.default_rng(0))}
    assert "swapped order" not in kinds


def test_attribute_answers_are_true_and_balanced():
    drawn, rng = scenes()
    answers = defaultdict(list)
    for scene in drawn:
        question = attribute_question(scene, rng)
        words = set(question.text.rstrip("?").split())
        colors, shapes = words & set(COLORS), words & set(SHAPES)
        candidates = [
            t
            for t in scene.things
            if (not colors or t.color in colors) and (not shapes or t.shape in shapes)
        ]
        assert bool(candidates) == question.yes, (scene, question)
        answers[question.kind].append(question.yes)
    for given in answers.values():
        assert 0.35 < np.mean(given) < 0.65


def test_relation_answers_are_true():
    drawn, rng = scenes()
    for scene in (s for s in drawn if s.relation):
        question = relation_question(scene, rng)
        _, (first, second) = read(question.text)
        top, bottom = (t.words for t in scene.things)
        if "next to" in question.text:
            truth = scene.relation == "next to"
        elif "below" in question.text:
            truth = scene.relation == "on top of" and (first, second) == (bottom, top)
        else:
            truth = scene.relation == "on top of" and (first, second) == (top, bottom)
        assert truth == question.yes, (scene, question)


def test_the_papers_prompt_wants_sound_geometry_as_well():
    drawn, rng = scenes(100)
    for scene in drawn:
        assert not caption_question(scene, rng, form="paper/selected", sound=False).yes
        only_content = caption_question(scene, rng, form="paper/A", sound=False)
        said = only_content.text.split("description: '")[1].split("'?")[0]
        assert only_content.yes == holds(scene, said)


@pytest.mark.parametrize("flaw", [None, "mixed", *FLAWS])
def test_geometry_answers(flaw):
    rng = np.random.default_rng(2)
    for _ in range(60):
        question = geometry_question(flaw, rng)
        topic = question.kind.removeprefix("geometry: ")
        sound = flaw in (None, "no front")
        assert question.yes == ((topic == "sound") == sound and topic in ("sound", flaw))


def test_the_shipped_models_know_the_words_of_their_training_texts():
    for folder, captions in (("vlm", False), ("denoiser/tokenizer", True)):
        path = WEIGHTS / folder / "tokenizer_config.json"
        known = json.loads(path.read_text())[KNOWN_WORDS]
        assert known == known_words(captions=captions)
    rng = np.random.default_rng(5)
    scenes = [sample_scene(rng) for _ in range(200)]
    assert {w for text in (caption(s, rng) for s in scenes) for w in words_of(text)} <= set(known)
    heard = {w for text in corpus(scenes, rng) for w in words_of(text)}
    assert heard <= set(known_words())
    assert not {"elephant", "cubes", "ball"} & set(known_words())


def test_the_denoiser_names_words_that_it_was_not_trained_on():
    model = PixelDiffusion.from_pretrained("builtin/blocks")
    with pytest.warns(UserWarning, match=r"not trained on: chess, elephant, playing; expected"):
        model.encode_text(["", "a purple elephant playing chess"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_text(["a purple elephant playing chess", "a red cube next to a blue sphere"])
