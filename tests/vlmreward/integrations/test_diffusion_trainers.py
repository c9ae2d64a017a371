"""Rewards as trainers of diffusion models call them."""

import numpy as np
import pytest
import torch
from PIL import Image
from reference_rewards import Linear, noise, pattern

from vlmreward.integrations.diffusion_trainers import as_images, trainer_reward

PROMPTS = ("a cat", "a dog")


def images():
    return noise(2, 3, 6, 5)


def test_the_shape_that_trainers_expect():
    """rewards, info = reward_function(images, prompts, prompt_metadata)."""
    toy = Linear(pattern(3, 6, 5))
    rewards, info = trainer_reward(toy)(images(), PROMPTS, ({}, {}))
    assert rewards.shape == (2,)
    torch.testing.assert_close(rewards, toy(images()))
    assert info == {"prompt": ["a cat", "a dog"]}
    assert toy.calls[0][1] == ["a cat", "a dog"]


def test_the_gradient_reaches_the_images():
    x = images().requires_grad_()
    weight = pattern(3, 6, 5)
    rewards, _ = trainer_reward(Linear(weight))(x, PROMPTS)
    (10.0 - rewards.mean()).backward()  # the loss of AlignProp
    torch.testing.assert_close(x.grad, (-weight / 2).expand_as(x))


def test_the_question_may_come_from_the_metadata():
    toy = Linear(pattern(3, 6, 5))
    function = trainer_reward(toy, make_prompt=lambda prompt, note: f"{prompt} in {note['place']}")
    _, info = function(images(), PROMPTS, ({"place": "Rome"}, {"place": "Bonn"}))
    assert info["prompt"] == ["a cat in Rome", "a dog in Bonn"]


@pytest.mark.parametrize("kind", ["pil", "np", "np 8 bit", "pt 8 bit"])
def test_every_output_type_of_a_pipeline(kind):
    levels = torch.randint(256, (2, 3, 6, 5), generator=torch.Generator().manual_seed(0))
    arrays = levels.movedim(1, -1).numpy()
    given = {
        "pil": [Image.fromarray(a.astype(np.uint8)) for a in arrays],
        "np": arrays.astype(np.float32) / 255,
        "np 8 bit": arrays.astype(np.uint8),
        "pt 8 bit": levels.to(torch.uint8),
    }[kind]
    expected = levels.float() / 255
    found = as_images(given)
    torch.testing.assert_close(torch.stack(list(found)), expected)
    rewards, _ = trainer_reward(Linear(pattern(3, 6, 5).float()))(given, PROMPTS)
    torch.testing.assert_close(rewards, Linear(pattern(3, 6, 5).float())(expected))


def test_pictures_of_different_sizes_and_modes():
    pictures = [Image.new("L", (4, 3), 51), Image.new("RGBA", (2, 5), (255, 0, 0, 255))]
    gray, red = as_images(pictures)
    assert gray.shape == (3, 3, 4)
    torch.testing.assert_close(gray, torch.full((3, 3, 4), 0.2))
    assert red.shape == (3, 5, 2)
    assert red[:, 0, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize("given", ["picture.png", [], [torch.zeros(3, 4, 4)], None])
def test_other_things_are_refused(given):
    with pytest.raises(TypeError, match="expected a tensor"):
        as_images(given)


@pytest.mark.parametrize(
    ("prompts", "metadata", "said"),
    [
        ("a cat", None, "2 images, one str"),
        (("a cat",), None, "1 prompts"),
        (PROMPTS, ({},), "1 metadata"),
    ],
)
def test_numbers_that_differ_are_refused(prompts, metadata, said):
    with pytest.raises(ValueError, match=said):
        trainer_reward(Linear(pattern(3, 6, 5)))(images(), prompts, metadata)
