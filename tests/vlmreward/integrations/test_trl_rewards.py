"""Rewards as the trainers of TRL call them.

Its calls are made here as its releases make them: the trainers of diffusion models need an older
transformers. Where TRL is installed, as by the extra "dev", the last test has its own GRPOTrainer
make them.
"""

import importlib.util
import inspect
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from reference_rewards import Linear, noise, pattern

from vlmreward.integrations import alignprop_reward, ddpo_reward, grpo_reward, trl_rewards

WEIGHT = pattern(3, 6, 5).float() / 10
LEVELS = torch.randint(256, (3, 3, 6, 5), generator=torch.Generator().manual_seed(0))
PICTURES = [Image.fromarray(x.movedim(0, -1).numpy().astype(np.uint8)) for x in LEVELS]
VALUES = (LEVELS / 255 * WEIGHT).sum((1, 2, 3)).tolist()


def calculate_rewards(functions, inputs, prompts, completions):
    """Rewards as GRPOTrainer (TRL 0.15 to 1.16) computes them from functions in `reward_funcs`."""
    keys = [key for key in inputs[0] if key not in ["prompt", "completion", "completion_ids"]]
    kwargs = {key: [example[key] for example in inputs] for key in keys}
    kwargs["trainer_state"] = SimpleNamespace(global_step=3)
    kwargs["log_extra"] = kwargs["log_metric"] = lambda name, value: None
    out = torch.zeros(len(prompts), len(functions))
    for i, function in enumerate(functions):
        assert not isinstance(function, torch.nn.Module)  # it would be taken for a classifier
        assert not inspect.iscoroutinefunction(function)
        assert isinstance(function.__name__, str)
        found = function(
            prompts=prompts, completions=completions, completion_ids=[[1]] * len(prompts), **kwargs
        )
        found = [torch.nan if x is None else x for x in found]
        assert len(found) == len(prompts)
        out[:, i] = torch.tensor(found, dtype=torch.float32)
    return out


def chat(text):
    return [{"role": "assistant", "content": text}]


def test_a_model_that_describes_the_images_of_its_dataset():
    toy = Linear(WEIGHT)
    function = grpo_reward(toy, images="image", name="faithful")
    assert function.__name__ == "faithful"
    inputs = [{"prompt": "Describe.", "image": picture} for picture in PICTURES]
    texts = ["a cat", "a dog", "a red cube"]
    for completions in (texts, [chat(text) for text in texts]):
        found = calculate_rewards([function], inputs, ["Describe."] * 3, completions)
        torch.testing.assert_close(found[:, 0], torch.tensor(VALUES), rtol=1e-4, atol=1e-4)
        assert toy.calls[-1][1] == texts
    blocks = [{"role": "assistant", "content": [{"type": "text", "text": "a cat"}]}]
    calculate_rewards([function], inputs[:1], ["Describe."], [blocks])
    assert toy.calls[-1][1] == ["a cat"]


def test_several_images_of_an_example_are_views_of_one_question():
    toy = Linear(WEIGHT)
    inputs = [{"images": PICTURES[:2]}, {"images": PICTURES[2:]}]
    found = calculate_rewards([grpo_reward(toy)], inputs, ["", ""], ["a", "b"])
    expected = torch.tensor([VALUES[0] + VALUES[1], VALUES[2]])
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-4, atol=1e-4)


def test_a_model_whose_text_becomes_an_image():
    toy = Linear(WEIGHT)

    def draw(texts, columns):
        assert columns["wish"] == ["a cat", "a dog"]
        return [torch.full((3, 6, 5), float(text)) for text in texts]

    function = grpo_reward(toy, images=draw, prompt="wish")
    inputs = [{"prompt": "Draw it.", "wish": wish} for wish in ("a cat", "a dog")]
    found = calculate_rewards([function], inputs, ["Draw it."] * 2, [chat("0.25"), chat("0.5")])
    torch.testing.assert_close(found[:, 0], WEIGHT.sum() * torch.tensor([0.25, 0.5]))
    assert toy.calls[0][1] == ["a cat", "a dog"]


def test_examples_without_an_image_or_an_answer_count_for_nothing():
    toy = Linear(WEIGHT)
    function = grpo_reward(toy, images="image")
    images = [PICTURES[0], None, PICTURES[2]]
    found = function(prompts=[""] * 3, completions=["a", "b", " "], image=images)
    assert found[1:] == [None, None]
    assert found[0] == pytest.approx(VALUES[0], rel=1e-4)
    assert function(prompts=[""], completions=[""], image=[None]) == [None]
    assert len(toy.calls) == 1


def test_rewards_are_plain_numbers_without_a_graph():
    class Trained(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(WEIGHT.clone())

        def forward(self, images, prompt=None):
            return torch.stack([(view * self.weight).sum() for (view,) in images])

    found = grpo_reward(Trained(), images="image")(
        prompts=[""], completions=["a"], image=PICTURES[:1]
    )
    assert [type(x) for x in found] == [float]


def test_what_does_not_go_together_is_refused():
    with pytest.raises(TypeError, match="expected a reward"):
        grpo_reward("reward")
    function = grpo_reward(Linear(WEIGHT), images="picture")
    with pytest.raises(ValueError, match="no column 'picture'; expected one of image: TRL drops"):
        function(prompts=[""], completions=["a"], image=PICTURES[:1], trainer_state=None)
    short = grpo_reward(Linear(WEIGHT), images=lambda texts, columns: PICTURES[:1])
    with pytest.raises(ValueError, match="1 images, 2 prompts and 2 completions"):
        short(prompts=["", ""], completions=["a", "b"])


@pytest.mark.parametrize("version", ["0.9.6", "0.22.2", "0.23.1"])
def test_trainers_of_diffusion_models(monkeypatch, version):
    monkeypatch.setattr(metadata, "version", lambda name: version)
    images = noise(2, 3, 6, 5).float().requires_grad_()
    prompts, notes = ("a cat", "a dog"), ({}, {})  # tuples, as TRL has them
    rewards, _ = alignprop_reward(Linear(WEIGHT))(images, prompts, notes)
    (10.0 - rewards.mean()).backward()
    torch.testing.assert_close(images.grad, (-WEIGHT / 2).expand_as(images))
    rewards, info = ddpo_reward(Linear(WEIGHT))(images, prompts, notes)
    torch.as_tensor(rewards, device="cpu").numpy()  # which refuses one with a graph
    assert info == {"prompt": ["a cat", "a dog"]}


@pytest.mark.parametrize("version", ["0.24.0", "0.29.1", "1.16.0"])
def test_releases_without_these_trainers_are_named(monkeypatch, version):
    monkeypatch.setattr(metadata, "version", lambda name: version)
    with pytest.raises(ImportError, match=rf"TRL {version} has no AlignPropTrainer, which was rem"):
        alignprop_reward(Linear(WEIGHT))
    with pytest.raises(ImportError, match=r"has no DDPOTrainer.*pip install .trl<0\.24"):
        ddpo_reward(Linear(WEIGHT))


def test_without_trl_they_say_so(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(trl_rewards.metadata, "version", missing)
    with pytest.raises(ImportError, match="TRL is not installed; expected one with DDPOTrainer"):
        ddpo_reward(Linear(WEIGHT))


if importlib.util.find_spec("trl"):

    def test_grpo_trainer_calls_it():
        from accelerate import Accelerator
        from trl import GRPOTrainer

        toy = Linear(WEIGHT)
        trainer = object.__new__(GRPOTrainer)
        trainer.accelerator = Accelerator(cpu=True)
        trainer.reward_funcs = [grpo_reward(toy, images="image")]
        trainer.reward_processing_classes = [None]
        trainer.reward_func_names = ["vlm_reward"]
        trainer.state = SimpleNamespace(global_step=0)
        trainer.environments = None
        trainer.args = SimpleNamespace(report_to=[])
        inputs = [{"prompt": "Describe.", "image": picture} for picture in PICTURES]
        found = trainer._calculate_rewards(
            inputs, ["Describe."] * 3, [chat("a cat")] * 3, [[1]] * 3
        )
        torch.testing.assert_close(found[:, 0].cpu(), torch.tensor(VALUES), rtol=1e-4, atol=1e-4)
