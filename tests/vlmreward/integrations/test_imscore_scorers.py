"""The call of imscore's scorers, as its README and its classes (0.0.11) have it."""

import pytest
import torch
from reference_rewards import Linear, noise, pattern
from torch.testing import assert_close

from vlmreward.integrations import RewardScorer, ScorerReward

WEIGHT = pattern(3, 6, 5) / 10

SHAPES = {
    "(B,)": lambda x: x,
    "(B, 1)": lambda x: x[:, None],
    "squeezed": lambda x: x.squeeze(),
    "mean of the batch": lambda x: x.mean(),
}
"""Results of imscore: of CLIP scores, of HPSv3, of the aesthetic ones, of VQAScore."""


class Scorer(torch.nn.Module):
    def __init__(self, shape="(B,)"):
        super().__init__()
        self.shape = SHAPES[shape]
        self.calls = []

    def score(self, pixels, prompts):
        assert isinstance(prompts, list)
        assert len(prompts) == len(pixels)
        self.calls.append((tuple(pixels.shape), prompts))
        return self.shape((pixels * WEIGHT).sum((1, 2, 3)))


def test_a_reward_is_scored_as_imscore_does_it():
    """`scores = rm.score(images, prompts)`, `loss = -scores.mean()`."""
    toy = Linear(WEIGHT)
    images = noise(2, 3, 6, 5).requires_grad_()
    scores = RewardScorer(toy).score(images, ["a cat", "a dog"])
    assert_close(scores, (images * WEIGHT).sum((1, 2, 3)))
    (-scores.mean()).backward()
    assert_close(images.grad, (-WEIGHT / 2).expand_as(images))
    assert toy.calls[0][1] == ["a cat", "a dog"]
    assert_close(RewardScorer(toy)(images), scores)
    assert toy.calls[1][1] is None
    for prompts in ("a cat", ["a cat"]):
        with pytest.raises(ValueError, match="and 2 images; expected a list of as many"):
            RewardScorer(toy).score(images, prompts)
    with pytest.raises(TypeError, match="expected a reward"):
        RewardScorer(3)


@pytest.mark.parametrize("shape", ["(B,)", "(B, 1)", "squeezed"])
@pytest.mark.parametrize("n", [1, 3])
def test_a_scorer_is_a_reward(shape, n):
    images = noise(n, 3, 6, 5).requires_grad_()
    reward = ScorerReward(Scorer(shape))
    values = reward(images, prompt="a cat")
    assert_close(values, (images * WEIGHT).sum((1, 2, 3)))
    values.sum().backward()
    assert_close(images.grad, WEIGHT.expand_as(images))
    assert reward.scorer.calls[0][1] == ["a cat"] * n


def test_views_and_images_of_different_sizes():
    reward = ScorerReward(Scorer())
    views = noise(2, 3, 3, 6, 5)
    each = (views * WEIGHT).sum((2, 3, 4))
    assert_close(reward(views, prompt=["a cat", "a dog"]), each.mean(1))
    assert reward.scorer.calls[0][1] == ["a cat"] * 3 + ["a dog"] * 3
    assert_close(
        reward([list(views[0]), list(views[1, :1])], "a"), torch.stack([each[0].mean(), each[1, 0]])
    )


def test_what_is_refused():
    with pytest.raises(TypeError, match=r"expected an object with score\(pixels, prompts\)"):
        ScorerReward(Linear(WEIGHT))
    averaged = ScorerReward(Scorer("mean of the batch"))
    with pytest.raises(ValueError, match=r"returned shape \(\) for 2 images; expected a score an"):
        averaged(noise(2, 3, 6, 5), "a cat")
    with pytest.raises(ValueError, match="no placeholder place"):
        averaged(noise(2, 3, 6, 5), "a cat", place="Rome")
    with pytest.raises(ValueError, match="prompt has 3 items for 2 queries"):
        averaged(noise(2, 3, 6, 5), ["a"] * 3)
