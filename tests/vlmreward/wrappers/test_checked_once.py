"""Nested wrappers and rewards check their images once, and rewards of users get plain tensors."""

import copy

import pytest
import torch
from reference_rewards import Square, noise

from vlmreward import CompositeReward, MicroBatched, YesNoReward
from vlmreward.images import batch as batches
from vlmreward.wrappers import (
    Ensemble,
    ExpectationOverTransformations,
    GradientBlur,
    HeldOutMonitor,
    QuestionEnsemble,
)


@pytest.fixture(scope="module")
def vlm(pair):
    return YesNoReward((copy.deepcopy(pair[0]), pair[1]), question="Is there {prompt}?")


def unmarked(reward):
    """The same reward, which no wrapper knows."""
    return lambda images, prompt=None: reward(images, prompt)


def nested(vlm, around):
    """All wrappers around a reward; ``around`` stands between each of them and the next."""
    reward = around(CompositeReward([vlm, vlm.ask("Is {prompt} red?")]))
    reward = around(Ensemble([reward, around(QuestionEnsemble(vlm, ["A {prompt}?"]))]))
    reward = around(MicroBatched(reward, micro_batch_size=1))
    reward = ExpectationOverTransformations(
        reward, num_samples=2, generator=torch.Generator().manual_seed(0)
    )
    return HeldOutMonitor(around(GradientBlur(around(reward))), around(vlm), every=1)


def result(reward, images):
    leaves = [image.clone().requires_grad_() for image in images]
    values = reward(leaves if len(leaves) > 1 else leaves[0], prompt="a cat")
    return [values.detach(), *torch.autograd.grad(values.sum(), leaves)]


@pytest.mark.parametrize(
    "images",
    [
        [noise(2, 2, 3, 56, 60, dtype=torch.float32)],
        [noise(3, 40, 50, dtype=torch.float32), noise(2, 3, 56, 56, dtype=torch.float32)],
    ],
    ids=["a tensor", "a list"],
)
def test_images_are_checked_once(vlm, images, monkeypatch):
    counted = []
    check = batches.flatten_views
    monkeypatch.setattr(
        batches,
        "flatten_views",
        lambda *args, **options: counted.append(1) or check(*args, **options),
    )
    ours = result(nested(vlm, lambda reward: reward), images)
    assert len(counted) == 1
    # with the images taken apart and checked again at every step between two of them
    theirs = result(nested(vlm, unmarked), images)
    assert len(counted) > 10
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_values_are_looked_at_once(vlm, monkeypatch):
    counted = []
    monkeypatch.setattr(batches, "check_values", counted.append)
    reward = HeldOutMonitor(GradientBlur(CompositeReward([vlm, vlm.ask("Is it?")])), vlm, every=1)
    reward(noise(2, 3, 40, 50, dtype=torch.float32).requires_grad_(), prompt="a cat")
    assert len(counted) == 1


class Shown(Square):
    def __call__(self, images, prompt=None):
        self.seen = images
        return super().__call__(images, prompt)


class Brighter(YesNoReward):
    """A reward with a ``forward`` of its own."""

    def forward(self, images, prompt=None, **placeholders):
        self.seen = images
        return super().forward(images + 0.1, prompt, **placeholders)


def test_rewards_of_users_are_given_plain_tensors(vlm):
    x = noise(2, 3, 40, 50, dtype=torch.float32)
    for inner in (Shown(), Brighter(vlm, question="A {prompt}?")):
        MicroBatched(GradientBlur(inner), micro_batch_size=2)(x, prompt="a cat")
        assert isinstance(inner.seen, torch.Tensor)
        assert torch.equal(inner.seen, x)
    lists = [x[0], x[1, :, :30]]
    brighter = Brighter(vlm, question="Is it red?")
    brighter.forward = lambda images: torch.stack([image.mean() for image in images])
    assert torch.equal(GradientBlur(brighter)(lists), torch.stack([i.mean() for i in lists]))
