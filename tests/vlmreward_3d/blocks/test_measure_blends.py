"""Right and wrong captions of blends, and how models answer them."""

import numpy as np
import pytest

from vlmreward_3d.blocks.training import measure_blends
from vlmreward_3d.blocks.training.measure_blends import answers, auc
from vlmreward_3d.blocks.world import dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "SHARD", 60)
        folder = tmp_path_factory.mktemp("pairs")
        yield dataset.render_dataset(folder, 60, seed=3, counterparts=True, workers=1)


def test_the_area_is_the_share_of_pairs_in_order():
    assert auc(np.array([1.0, 2.0]), np.array([0.0, 0.5])) == 1
    assert auc(np.array([0.0]), np.array([1.0, 2.0])) == 0
    assert auc(np.array([1.0, 3.0]), np.array([1.0, 2.0])) == pytest.approx((0.5 + 0 + 1 + 1) / 4)


def test_a_reward_is_asked_about_views_and_the_captions_of_both_scenes(data):
    asked = []

    class Reward:
        def __call__(self, images, prompt):
            asked.append((images, prompt))
            return images.new_tensor([float(len(asked))])

    right, wrong = answers(Reward(), data, 12)
    assert len(right) + len(wrong) == len(asked)
    assert len(wrong) > len(right) > 0
    assert sorted([*right, *wrong]) == list(range(1, len(asked) + 1))
    assert all(images.shape == (1, 4, 3, 64, 64) for images, _ in asked)
    assert len({prompt for _, prompt in asked}) > 6


def test_the_strict_vlm_says_no_more_often(data, monkeypatch, capsys):
    monkeypatch.setattr(measure_blends, "render_dataset", lambda *_, **kwargs: data)
    models = ["builtin/robust", "builtin/strict"]
    measure_blends.main(["--data", "x", "--models", *models])
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("| model | right, and Yes | wrong, and No |")
    (robust, strict) = ([float(row.split("|")[i].split("%")[0]) for i in (2, 3)] for row in rows)
    assert strict[1] > robust[1] + 20
    assert strict[0] > 60
