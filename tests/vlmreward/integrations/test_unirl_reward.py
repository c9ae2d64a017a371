"""UniRL's protocol for differentiable rewards, as its `unirl/reward/base.py` declares it."""

import inspect
from typing import Protocol, runtime_checkable

import pytest
import torch
from reference_rewards import Linear, noise, pattern
from torch.testing import assert_close

from vlmreward.integrations import UniRLReward

WEIGHT = pattern(3, 6, 5).float() / 10


@runtime_checkable
class DifferentiableReward(Protocol):
    def compute_rewards_differentiable(self, media_tensor, prompts, records=None): ...


def test_it_is_what_the_protocol_asks_for():
    reward = UniRLReward(Linear(WEIGHT))
    assert isinstance(reward, DifferentiableReward)
    assert isinstance(reward, torch.nn.Module)  # "in-process nn.Module rewards"
    declared, ours = (
        list(inspect.signature(c.compute_rewards_differentiable).parameters)
        for c in (DifferentiableReward, UniRLReward)
    )
    assert ours == declared


@pytest.mark.parametrize("named", [False, True])
def test_scores_of_images_carry_their_gradient(named):
    toy = Linear(WEIGHT)
    images = noise(2, 3, 6, 5).float().requires_grad_()
    prompts = ["a cat", "a dog"]
    reward = UniRLReward(toy)
    scores = (
        reward.compute_rewards_differentiable(media_tensor=images, prompts=prompts, records=None)
        if named
        else reward.compute_rewards_differentiable(images, prompts)
    )
    assert_close(scores, (images * WEIGHT).sum((1, 2, 3)))
    scores.sum().backward()
    assert_close(images.grad, WEIGHT.expand_as(images))
    assert toy.calls[0][1] == prompts


def test_frames_of_a_video_are_views():
    videos = noise(2, 3, 4, 6, 5).float().requires_grad_()
    scores = UniRLReward(Linear(WEIGHT)).compute_rewards_differentiable(videos, ["a", "b"])
    assert_close(scores, (videos * WEIGHT[:, None]).sum((1, 2, 3, 4)))


def test_values_outside_of_the_range_are_clamped_and_records_may_make_prompts():
    toy = Linear(WEIGHT)
    reward = UniRLReward(toy, make_prompt=lambda prompt, record: f"{prompt} in {record['place']}")
    images = torch.tensor([-0.1, 1.1]).view(2, 1, 1, 1).expand(2, 3, 6, 5).half()
    scores = reward.compute_rewards_differentiable(images, ["a", "b"], [{"place": "Rome"}] * 2)
    assert_close(scores, torch.stack([0 * WEIGHT.sum(), WEIGHT.sum()]))
    assert toy.calls[0][1] == ["a in Rome", "b in Rome"]


def test_what_is_refused():
    reward = UniRLReward(Linear(WEIGHT))
    images = noise(2, 3, 6, 5).float()
    with pytest.raises(TypeError, match="expected a reward"):
        UniRLReward(None)
    with pytest.raises(ValueError, match=r"shape \(3, 6, 5\); expected images"):
        reward.compute_rewards_differentiable(images[0], ["a"])
    with pytest.raises(ValueError, match="2 images or videos, 1 prompts and 1 records"):
        reward.compute_rewards_differentiable(images, ["a"])
    flat = UniRLReward(lambda images, prompt: images.detach().sum((1, 2, 3)))
    with pytest.raises(RuntimeError, match="without a graph"):
        flat.compute_rewards_differentiable(images.requires_grad_(), ["a", "b"])
    with torch.no_grad():
        assert flat.compute_rewards_differentiable(images, ["a", "b"]).shape == (2,)
