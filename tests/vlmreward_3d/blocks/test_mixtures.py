"""Blends of two scenes: what differs, how much of each is seen, and what is asked."""

import numpy as np
import pytest
import torch

from vlmreward_3d.blocks.world import dataset, questions
from vlmreward_3d.blocks.world.captions import GEOMETRY_QUESTIONS, caption
from vlmreward_3d.blocks.world.descriptions import same_meaning
from vlmreward_3d.blocks.world.mixtures import (
    blend_weights,
    counterpart,
    mixture_questions,
    shares,
    truth_of,
)
from vlmreward_3d.blocks.world.questions import QuestionSampler, word_labels
from vlmreward_3d.blocks.world.scenes import sample_scene


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    one = [sample_scene(rng) for _ in range(60)]
    return [(scene, counterpart(scene, rng)) for scene in one]


def test_a_counterpart_differs_in_one_thing(scenes):
    changes = set()
    for one, two in scenes:
        if two.flaw is not None:
            assert [t.words for t in one.things] == [t.words for t in two.things]
            assert len(two.things[0].fronts) != 1
            changes.add(two.flaw)
            continue
        assert two.relation == one.relation
        assert not same_meaning(one, two)
        before, after = ([t.words for t in scene.things] for scene in (one, two))
        if sorted(before) == sorted(after):
            changes.add("order")
        elif {w for words in before for w in words} == {w for words in after for w in words}:
            changes.add("exchanged colors")
        else:
            differ = [(a, b) for a, b in zip(before, after) if a != b]
            assert len(differ) == 1
            assert sum(a != b for a, b in zip(*differ[0])) == 1
            changes.add("thing")
        assert max(np.linalg.norm(thing.position) + thing.size for thing in two.things) < 1.3
    assert changes == {"order", "exchanged colors", "thing", "faces", "no front"}


def test_in_half_of_the_pairs_a_thing_takes_over_from_the_other():
    rng = np.random.default_rng(1)
    pairs = [scene for _ in range(900) if (scene := sample_scene(rng)).relation]
    pairs = [s for s in pairs if all(a != b for a, b in zip(*(t.words for t in s.things)))]
    taken = {"color": 0, "shape": 0}
    for scene in pairs:
        colors, shapes = zip(*(t.words for t in counterpart(scene, rng).things))
        taken["color"] += colors[0] == colors[1]
        taken["shape"] += shapes[0] == shapes[1]
    assert len(pairs) > 300
    assert 0.2 < taken["color"] / len(pairs) < 0.35
    assert 0.2 < taken["shape"] / len(pairs) < 0.35


def test_shares_are_of_what_differs_in_the_worst_view():
    one, two = torch.zeros(2, 8, 8, 4), torch.zeros(2, 8, 8, 4)
    two[:, :4, :4] = 200.0
    weights = torch.zeros(2, 8, 8, 1)
    weights[:, 4:] = 1.0  # where both are the same
    assert shares(one, two, weights) == (1.0, 0.0)
    weights[1, :4, :1] = 1.0  # a quarter of what differs in the second view
    assert shares(one, two, weights) == pytest.approx((0.75, 0.0))
    weights[0, :4, :4] = 0.5
    assert shares(one, two, weights) == pytest.approx((0.5, 0.25))
    assert shares(one, one, weights) == (1.0, 1.0)
    two[1], weights[1] = 0.0, 1.0
    two[1, 0, 0] = 200.0  # hardly to be seen in the second view
    assert shares(one, two, weights) == pytest.approx((0.5, 0.5))


def test_weights_are_even_or_vary_by_place_and_side():
    drawn = [blend_weights(4, 16, np.random.default_rng(i)) for i in range(60)]
    assert all(w.shape == (4, 16, 16, 1) and 0 <= w.min() <= w.max() <= 1 for w in drawn)
    even = sum(bool((w == w[0, 0, 0]).all()) for w in drawn)
    by_view = sum(bool((w == w[:, :1, :1]).all() and w.max() > w.min()) for w in drawn)
    assert 10 < even < 32
    assert 8 < by_view < 28
    by_side = [w.mean((1, 2, 3)) for w in drawn]
    assert sum(float(m.max() - m.min()) > 0.3 for m in by_side) > 10
    assert 0.4 < torch.stack(drawn).mean() < 0.6


def test_weights_with_borders_part_the_views_and_leave_one_picture_nearly_whole():
    drawn = [blend_weights(4, 16, np.random.default_rng(i), borders=True) for i in range(300)]
    assert all(w.shape == (4, 16, 16, 1) and 0 <= w.min() <= w.max() <= 1 for w in drawn)
    means = torch.stack([w.mean() for w in drawn])
    assert 0.25 < ((means < 0.1) | (means > 0.9)).float().mean() < 0.55
    clear = torch.stack([((w < 0.1) | (w > 0.9)).float().mean() for w in drawn])
    assert (clear > 0.9).float().mean() > 0.4
    within = [w for w in drawn if (w.amax((1, 2, 3)) - w.amin((1, 2, 3))).max() > 0.7]
    assert len(within) > 60  # a border within a view; 26 of 300 without


def test_a_scene_is_there_from_nine_tenths_on_and_not_below_six():
    assert [truth_of(x) for x in (0.0, 0.3, 0.6, 0.9, 1.0)] == [0, 0, 0, 1, 1]
    assert truth_of(0.75) == pytest.approx(0.5)
    assert truth_of(0.7) == pytest.approx(1 / 3)


def test_the_truth_of_an_answer_follows_from_the_share_of_its_scene(scenes):
    rng = np.random.default_rng(1)
    for one, two in scenes:
        if two.flaw is not None:
            continue
        listed = mixture_questions(one, two, (0.84, 0.2), rng)
        asked = {q.text: q for q in listed}
        assert {round(q.truth, 9) for q in listed} <= {0.8, 0.0, 1.0}
        assert all(q.yes == (q.truth > 0.5) for q in listed)
        for thing in one.things:
            here = [t.words for t in two.things]
            article = "an" if thing.color[0] in "aeiou" else "a"
            text = f"Is there {article} {thing.color} {thing.shape}?"
            assert asked[text].truth == pytest.approx(1.0 if thing.words in here else 0.8)
        said = [q for q in listed if q.kind == "mixture: caption"]
        assert sorted(q.truth for q in said) == pytest.approx([0.0, 0.8, 0.8])
        for true in (q for q in said if q.truth > 0.5):
            words = [word for word in caption(one).split() if word not in ("a", "an")]
            assert all(word in true.text for word in words)
        (none,) = (q for q in listed if q.kind == "mixture: color")
        colors = {thing.color for scene in (one, two) for thing in scene.things}
        assert none.truth == 0.0
        assert not any(color in none.text for color in colors)


def test_a_front_by_halves_is_asked_about_by_name_and_by_number(scenes):
    rng = np.random.default_rng(2)
    fronts = [(one, two) for one, two in scenes if two.flaw is not None]
    assert len(fronts) >= 5
    for one, two in fronts:
        asked = {q.text: q.truth for q in mixture_questions(one, two, (0.7, 0.2), rng)}
        (thing,) = one.things
        named = 0.7 if two.flaw == "no front" else 1.0
        assert asked[f"Is there a {thing.shape}?"] == named
        assert asked[f"Is there something {thing.color}?"] == 1.0
        about = {text: truth for text, truth in asked.items() if "geometr" in text}
        assert all(truth == 0.7 for truth in about.values())
        several = [asked[q] for q in GEOMETRY_QUESTIONS["faces"] if q in asked]
        assert several == ([pytest.approx(0.3)] if two.flaw == "faces" else [])
        few = mixture_questions(one, two, (0.7, 0.2), rng, geometry=False)
        assert not {q.text for q in few} & {*GEOMETRY_QUESTIONS["faces"]}


def test_a_set_of_counterparts_gives_batches_of_blends(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "SHARD", 24)
    data = dataset.render_dataset(tmp_path, 24, seed=4, counterparts=True, workers=1)
    partners = [data.counterpart(i) for i in range(24)]
    assert sum(p is not None for p in partners) >= 8
    for i, j in enumerate(partners):
        if j is not None:
            assert partners[j] == i
            flawed = {data.scenes[i].flaw, data.scenes[j].flaw} != {None}
            assert flawed or not same_meaning(data.scenes[i], data.scenes[j])
            assert (data.rgba[i] != data.rgba[j]).any()
    with pytest.raises(ValueError, match="choose another folder"):
        dataset.render_dataset(tmp_path, 24, seed=4, workers=1)

    batch = QuestionSampler(data, 0, mixtures=1.0).draw(0, 16)
    graded = [any(q.probability is not None for q in asked) for asked in batch.questions]
    assert 2 <= sum(graded) < 16
    assert all(facts is None for blend, facts in zip(graded, batch.facts) if blend)
    none = QuestionSampler(data, 0).draw(0, 16)
    assert all(q.probability is None for asked in none.questions for q in asked)


def test_cells_of_a_blend_have_the_words_of_the_part_that_they_show(scenes):
    pairs = ((a, b) for a, b in scenes if not a.relation and b.flaw is None)
    one, two = next((a, b) for a, b in pairs if a.things[0].color != b.things[0].color)
    coverage = torch.zeros(1, 4, 4, 6, dtype=torch.uint8)
    coverage[..., 0] = 255  # the object is everywhere
    weights = torch.zeros(1, 64, 64, 1)
    weights[:, 32:] = 1.0
    weights[:, :16, :16] = 0.5
    labels = questions._labels_of_blend((one, two), (coverage, coverage), weights)[0]
    (a,), (b,) = one.things, two.things
    first, second = (labels[:, questions._WORD[thing.color]].view(4, 4) for thing in (a, b))
    assert (first[:2] == 1).all()
    assert (first[2:] == 0).all()
    assert (second[2:] == 1).all()
    assert second[0].tolist() == [1, 0, 0, 0]  # half of the cell shows it
    assert a.shape == b.shape
    whole = word_labels(one, coverage)[0, :, questions._WORD[a.shape]]
    assert (labels[:, questions._WORD[a.shape]] == whole).all()
