import numpy as np
import pytest
import torch
import torch.nn.functional as F
from judge import Judge, cell_labels, target, target_of, target_of_prompt

from vlmreward_3d.blocks.world.descriptions import caption
from vlmreward_3d.blocks.world.scenes import sample_scene


def test_targets_of_scenes_and_of_their_captions_agree():
    rng = np.random.default_rng(0)
    for _ in range(100):
        scene = sample_scene(rng)
        assert target_of(scene) == target_of_prompt(caption(scene))


def test_only_a_stack_has_an_order():
    a, b = ("red", "cube"), ("blue", "cone")
    assert target("next to", [a, b]) == target("next to", [b, a])
    assert target("on top of", [a, b]) != target("on top of", [b, a])


def test_cells_vote_for_the_scene_they_were_labeled_with():
    """A judge that says the labels of every cell reads the scene right."""

    class Perfect(Judge):
        def forward(self, images):
            return images

    judge = Perfect(width=4)
    data = [random_cells(np.random.default_rng(i)) for i in range(60)]
    for scene, coverage in data:
        labels = cell_labels(scene, coverage)
        says = [20.0 * (labels[..., :1] == 1).float() - 10]
        says += [
            20.0 * F.one_hot(x.clamp_min(0), n) for x, n in zip(labels.unbind(-1)[1:], (8, 9, 4))
        ]
        unknown = labels[..., 1:2] < 0
        logits = torch.cat(says, -1).masked_fill(unknown, -10.0)
        assert judge.read(logits[None]) == [target_of(scene)]
        kind, color, *rest = target_of(scene)
        assert judge.share(logits[None], [kind, color, *rest]) == pytest.approx([1], abs=1e-2)
        if kind == 0:
            wrong = [kind, (color + 1) % 8, *rest]
            assert judge.share(logits[None], wrong) == pytest.approx([0], abs=1e-2)


def random_cells(rng):
    """A scene whose things cover the left and the right half, or all cells, of two views."""
    scene = sample_scene(rng)
    coverage = torch.zeros(2, 4, 4, 6, dtype=torch.uint8)
    coverage[:, 1:3, :2, 0] = 200
    coverage[:, 1:3, 2:, 1 if scene.relation else 0] = 200
    return scene, coverage


def test_cells_that_show_little_or_two_things_are_not_learnt():
    scene = next(s for s in map(sample_scene, map(np.random.default_rng, range(99))) if s.relation)
    coverage = torch.zeros(1, 4, 4, 6, dtype=torch.uint8)
    coverage[0, 0, 0, :2] = torch.tensor([200, 120])
    coverage[0, 0, 1, 1] = 30
    coverage[0, 0, 2, 1] = 200
    labels = cell_labels(scene, coverage)[0]
    second = [*target_of(scene)[3:]]
    assert labels[0].tolist() == [1, -100, -100, -100]
    assert labels[1].tolist() == [-100] * 4
    assert labels[3].tolist() == [0, -100, -100, -100]
    assert labels[2, 0] == 1
    assert labels[2, 3] in (2, 3)
    if scene.relation == "on top of":
        assert labels[2, 1:3].tolist() == second
