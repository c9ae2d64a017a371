"""The learning judge of compositions: its texts, its invariances and its training."""

import sys

import caption_judge
import numpy as np
import pytest
import torch
from caption_judge import (
    DESCRIPTIONS,
    LENGTH,
    WORDS,
    CaptionJudge,
    descriptions_of,
    encode,
    load_caption_judge,
)

from vlmreward_3d.blocks.world import dataset
from vlmreward_3d.blocks.world.compositions import sample_composition
from vlmreward_3d.blocks.world.dataset import BlocksData
from vlmreward_3d.blocks.world.descriptions import caption


def test_every_description_has_words_and_room():
    rng = np.random.default_rng(0)
    texts = [caption(sample_composition(rng), rng) for _ in range(300)]
    codes = encode(texts)
    assert codes.shape == (300, LENGTH)
    for row, text in zip(codes.tolist(), texts):
        assert [WORDS[i] for i in row if i] == text.split()
    with pytest.raises(ValueError, match="not in"):
        encode(["a red elephant"])


def test_scores_do_not_depend_on_the_order_of_views_nor_on_the_other_texts():
    torch.manual_seed(0)
    judge = CaptionJudge(width=4, size=16).eval()
    images = torch.rand(2, 4, 3, 64, 64)
    texts = encode(["a red cube", "two red cubes", "a red cube on top of a small blue mug"])
    scores = judge(images, texts.expand(2, -1, -1))
    assert scores.shape == (2, 3)
    assert scores.std(1).min() > 1e-5
    assert scores.std(0).min() > 1e-6
    turned = judge(images.flip(1), texts.expand(2, -1, -1))
    torch.testing.assert_close(turned, scores, rtol=1e-4, atol=1e-5)
    alone = judge(images, texts[None, 2:].expand(2, -1, -1))
    torch.testing.assert_close(alone, scores[:, 2:], rtol=1e-4, atol=1e-5)
    swapped = encode(["a blue cube on top of a small red mug"])
    assert (judge(images, swapped.expand(2, 1, -1)) - alone).abs().min() > 1e-6


def test_only_the_first_description_is_true():
    rng = np.random.default_rng(1)
    scenes = [sample_composition(rng) for _ in range(12)]
    empty = torch.zeros(12, 8, 1)
    data = BlocksData(scenes, empty, empty, empty)
    for row, scene in enumerate(scenes):
        texts = descriptions_of(data, row, rng)
        assert len({*texts}) == len(texts) == DESCRIPTIONS
        true = {caption(scene, np.random.default_rng(i)) for i in range(40)}
        assert true & {*texts} == {texts[0]}


def test_training_writes_a_judge_that_can_be_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dataset, "SHARD", 6)
    words = ["--data", str(tmp_path / "d"), "--out", str(tmp_path / "o"), "--scenes", "6"]
    words += ["--test-scenes", "6", "--steps", "2", "--batch", "3", "--no-bf16"]
    for part, seed in (("train", caption_judge.TRAIN_SEED), ("test", caption_judge.TEST_SEED)):
        dataset.render_dataset(
            tmp_path / "d" / part, 6, seed=seed, flawed=0.0, composed=0.6, workers=1
        )
    monkeypatch.setattr(sys, "argv", ["x", *words])
    caption_judge.main()
    assert "of 6 unseen scenes recognized" in capsys.readouterr().out
    judge = load_caption_judge(tmp_path / "o" / "caption_judge.safetensors")
    texts = ["a red cube", "a blue cube"]
    assert judge.best(torch.rand(8, 3, 64, 64), texts) in texts
