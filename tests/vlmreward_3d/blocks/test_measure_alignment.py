"""The cosine between a reward's gradient and what two scenes differ in."""

import numpy as np
import pytest
import torch

from vlmreward_3d.blocks.training import measure_alignment
from vlmreward_3d.blocks.training.measure_alignment import cosines
from vlmreward_3d.blocks.world import dataset
from vlmreward_3d.blocks.world.augment import augment_and_composite


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "SHARD", 24)
        folder = tmp_path_factory.mktemp("pairs")
        yield dataset.render_dataset(folder, 24, seed=3, counterparts=True, workers=1)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_reward_that_knows_the_scenes_has_a_cosine_of_one(data, sign):
    composited = {
        one: [
            augment_and_composite(
                data.rgba[[k], :4], torch.Generator().manual_seed(one), strength=0.0
            )
            for k in (one, one ^ 1)
        ]
        for one in range(len(data))
    }

    def knowing(images, prompt):
        first, second = next(
            pair for pair in composited.values() if torch.equal(sum(pair) / 2, images.detach())
        )
        return sign * (images * (first - second)).flatten(1).sum(1)

    values = cosines(knowing, data, 6)
    assert len(values) == 6
    np.testing.assert_allclose(values, sign, atol=1e-5)


def test_a_shipped_model_is_better_than_chance_and_is_told_of(data, monkeypatch, capsys):
    monkeypatch.setattr(measure_alignment, "render_dataset", lambda *_, **kwargs: data)
    words = ["--data", "x", "--models", "builtin/robust", "--pairs", "6", "--transformations", "2"]
    measure_alignment.main(words)
    head, _, alone, averaged = capsys.readouterr().out.splitlines()
    assert head == "| model | reward | cosine |"
    assert alone.startswith("| `builtin/robust` | alone | 0.")
    assert averaged.startswith("| `builtin/robust` | mean of 2 transformations | 0.")
    assert float(alone.split("|")[3].split("±")[0]) > 0.1
