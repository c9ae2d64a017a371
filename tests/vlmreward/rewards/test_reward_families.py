"""The reward of every family against transformers' own processor and full forward pass."""

import copy

import pytest
import tiny_models
import torch
from float64_models import float64_throughout
from margins import PROMPTS, QUESTION, hf_margin, levels, unit

from vlmreward import YesNoReward


@pytest.fixture(scope="module", params=tiny_models.FAMILIES)
def pair(request):
    return tiny_models.build(request.param)


@pytest.fixture(scope="module")
def reward(pair):
    return YesNoReward((copy.deepcopy(pair[0]), pair[1]), question=QUESTION, pixel_mode="uint8")


def check(pair, reward, queries, prompts):
    expected = hf_margin(pair, queries, prompts, reward.answers)
    torch.testing.assert_close(
        reward(unit(queries), prompt=prompts).detach(), expected, atol=1e-4, rtol=0
    )
    return expected


def test_single(pair, reward):
    check(pair, reward, [levels((40, 50))], PROMPTS[:1])


def test_answer_depends_on_the_image(pair, reward):
    a, b = (reward(unit([levels((40, 50), seed=s)]), prompt="a cat") for s in (0, 1))
    assert (a - b).abs() > 1e-3


def test_batch_of_mixed_lengths_and_sizes(pair, reward):
    queries = [[image] for image in levels((40, 50), (64, 33), (40, 50))]
    expected = check(pair, reward, queries, PROMPTS)
    assert expected.std() > 0.01  # or the comparison would say nothing
    alone = torch.cat([reward(unit([q]), prompt=t) for q, t in zip(queries, PROMPTS)])
    torch.testing.assert_close(alone.detach(), expected, atol=1e-4, rtol=0)


def test_several_images(pair, reward):
    check(pair, reward, [levels((40, 50), (30, 60)), levels((33, 33))], PROMPTS[:2])


def test_order_in_the_batch_does_not_matter(pair, reward):
    queries = unit([[image] for image in levels((40, 50), (64, 33), (30, 30))])
    forward = reward(queries, prompt=PROMPTS)
    backward = reward(queries[::-1], prompt=PROMPTS[::-1])
    torch.testing.assert_close(forward, backward.flip(0), atol=1e-5, rtol=0)


def test_a_saved_folder_gives_the_same(pair, reward, tmp_path):
    pair[0].save_pretrained(tmp_path)
    pair[1].save_pretrained(tmp_path)
    loaded = YesNoReward(tmp_path, question=QUESTION, pixel_mode="uint8")
    queries = unit([levels((40, 50)), levels((33, 60))])
    torch.testing.assert_close(loaded(queries, prompt="a cat"), reward(queries, prompt="a cat"))


def test_pixel_gradients_equal_central_differences(pair, monkeypatch):
    model = float64_throughout(copy.deepcopy(pair[0]).double(), monkeypatch)
    reward = YesNoReward((model, pair[1]), question=QUESTION)
    g = torch.Generator().manual_seed(5)
    x = torch.rand(1, 2, 3, 40, 50, generator=g, dtype=torch.float64).mul_(0.8).add_(0.1)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(reward(x, prompt="a cat").sum(), x)
    assert gradient.abs().max() > 0
    for _ in range(2):
        direction = torch.randn(x.shape, generator=g, dtype=torch.float64)
        step = 1e-5 * direction
        with torch.no_grad():
            up, down = (reward(x + s, prompt="a cat") for s in (step, -step))
        slope = float((up - down).sum() / 2e-5)
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-4, abs=1e-7)
