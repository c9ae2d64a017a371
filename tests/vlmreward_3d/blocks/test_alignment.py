"""The direction of the log-odds' gradient at the pixels, and training for it."""

import json

import numpy as np
import pytest
import torch
from test_training import options
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from vlmreward.models.loading import resolve
from vlmreward_3d.blocks.training import alignment, train_vlm
from vlmreward_3d.blocks.training.alignment import alignment_loss, pairs_of, telling_question
from vlmreward_3d.blocks.training.vlm_model import PackedVLM
from vlmreward_3d.blocks.world import dataset
from vlmreward_3d.blocks.world.descriptions import caption


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "SHARD", 24)
        folder = tmp_path_factory.mktemp("pairs")
        yield dataset.render_dataset(folder, 24, seed=1, counterparts=True, workers=1)


def test_pairs_are_seen_by_the_same_cameras_and_begin_with_a_whole_scene(data):
    pairs = pairs_of(data)
    assert len(pairs) > 8
    for one, two in pairs:
        assert torch.equal(data.cameras[one], data.cameras[two])
        assert data.scenes[one].flaw is None
        assert data.scenes[one] != data.scenes[two]


def test_questions_tell_the_two_scenes_apart(data):
    rng = np.random.default_rng(0)
    kinds = set()
    for one, two in pairs_of(data) * 4:
        scenes = data.scenes[one], data.scenes[two]
        question, sign = telling_question(*scenes, rng)
        kinds.add(question.kind)
        assert sign in (-1.0, 1.0)
        said = caption(scenes[0], np.random.default_rng(0))
        if question.kind == "mixture: caption" and said in question.text:
            assert sign == 1.0
    assert {"mixture: caption", "mixture: binding"} <= kinds


class Painter:
    """Log-odds that grow with the part of views along a direction of its own for each scene."""

    def __init__(self, directions):
        self.directions = directions

    def margins(self, images, questions):
        assert [len(asked) for asked in questions] == [1] * len(images)
        return (images * self.directions).flatten(1).sum(1) ** 3


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 0.0), (-2.0, 2.0)])
def test_the_loss_is_one_less_the_cosine_to_what_the_scenes_differ_in(
    data, factor, expected, monkeypatch
):
    pairs, composited = pairs_of(data)[:3], []
    composite = alignment.augment_and_composite

    def recorded(*args, **kwargs):
        composited.append(composite(*args, **kwargs))
        return composited[-1]

    def first(one, two, rng):
        question, _ = telling_question(one, two, rng)
        return question, 1.0

    monkeypatch.setattr(alignment, "augment_and_composite", recorded)
    monkeypatch.setattr(alignment, "telling_question", first)

    class Knowing(Painter):
        def margins(self, images, questions):
            self.directions = factor * (composited[0] - composited[1])
            return super().margins(images, questions)

    loss = alignment_loss(
        Knowing(None), data, pairs, np.random.default_rng(0), strength=1.0, device="cpu"
    )
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    across = torch.randn(composited[0].shape, generator=torch.Generator().manual_seed(0))
    loss = alignment_loss(
        Painter(across), data, pairs, np.random.default_rng(0), strength=1.0, device="cpu"
    )
    assert loss.item() == pytest.approx(1.0, abs=0.05)


def test_a_model_learns_it(data):
    source = resolve("builtin/blocks")
    vlm = Qwen2_5_VLForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    model = PackedVLM(vlm, Qwen2_5_VLProcessor.from_pretrained(source))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    losses = []
    for _ in range(5):
        rng = np.random.default_rng(3)  # the same blends and questions
        loss = alignment_loss(model, data, pairs_of(data)[:3], rng, strength=0.0, device="cpu")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    assert all(x.isfinite().all() for x in model.state_dict().values())


def test_a_training_follows_it_and_says_how_far_it_is(data, tmp_path, monkeypatch):
    followed, asked = [], []

    def loss_of_gradients(model, data, pairs, rng, **_):
        asked.append((pairs, int(rng.integers(2**30))))
        return torch.tensor(0.25)

    monkeypatch.setattr(train_vlm, "render_dataset", lambda *_, **kwargs: data)
    monkeypatch.setattr(train_vlm, "losses", lambda *_: (torch.tensor(2.0), torch.tensor(0.0), []))
    monkeypatch.setattr(train_vlm, "alignment_loss", loss_of_gradients)
    monkeypatch.setattr(train_vlm.Trainer, "update", lambda self, loss, step: followed.append(loss))
    settings = {"start": "builtin/blocks", "alignment": 3.0, "steps": 50, "batch": 4}
    args = options(tmp_path, tmp_path / "out", compile=False, save_every=50, **settings)
    train_vlm.train(args)
    assert [loss.item() for loss in followed] == [2.75] * 50
    assert len({number for _, number in asked}) == 50
    assert {len(pairs) for pairs, _ in asked} == {2}
    assert {pair for pairs, _ in asked for pair in pairs} <= {*pairs_of(data)}
    (line,) = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["alignment"] == [0.25, 50]
