"""A family that has no code of its own here: Hugging Face's image processor, the common layout."""

import copy

import pytest
import tiny_models
import torch
from test_reward_families import PROMPT, TEXTS, hf_margin, levels, unit
from torchvision.transforms.functional import pil_to_tensor

from vlmreward import Checklist, YesNoReward


@pytest.fixture(scope="module")
def pair():
    return tiny_models.build("llava_next")


@pytest.fixture(scope="module")
def reward(pair):
    with pytest.warns(UserWarning, match="LlavaNextImageProcessor has no counterpart"):
        return YesNoReward((copy.deepcopy(pair[0]), pair[1]), prompt=PROMPT)


def same_sizes(pair, queries, texts, answers, monkeypatch):
    """By transformers alone, whose processor is given the levels as floats, as here."""
    processor = pair[1].image_processor
    taken = type(processor).__call__

    def levels_of(self, images, **options):
        flat = [picture for row in images for picture in row]
        return taken(self, [pil_to_tensor(picture).float() for picture in flat], **options)

    monkeypatch.setattr(type(processor), "__call__", levels_of)
    return hf_margin(pair, queries, texts, answers)


def test_margin_equals_that_of_transformers(pair, reward, monkeypatch):
    queries = [levels((40, 50)), levels((64, 33), (40, 50)), levels((30, 30))]
    values = reward(unit(queries), text=TEXTS).detach()
    alone = torch.cat([reward(unit([q]), text=t) for q, t in zip(queries, TEXTS)])
    expected = same_sizes(pair, queries, TEXTS, reward.answers, monkeypatch)
    assert expected.std() > 0.01
    torch.testing.assert_close(values, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(alone.detach(), expected, atol=1e-4, rtol=0)


def test_gradient_and_several_questions(reward):
    x = torch.rand(1, 2, 3, 40, 50, generator=torch.Generator().manual_seed(1), requires_grad=True)
    questions = Checklist([reward, reward.ask("Is there no {text}?")], combine="mean")
    (together,) = torch.autograd.grad(questions(x, text="a cat").sum(), x)
    each = sum(member(x, text="a cat") for member in questions.members.values()) / 2
    (expected,) = torch.autograd.grad(each.sum(), x)
    assert expected.abs().amax((2, 3, 4)).min() > 0
    torch.testing.assert_close(together, expected, atol=1e-6, rtol=1e-3)
