"""The reward of every family against transformers' own processor and full forward pass."""

import copy

import pytest
import tiny_models
import torch
from test_reward import float64_throughout
from torchvision.transforms.functional import to_pil_image

from vlmreward import YesNoReward

PROMPT = "Does this image show {text}? Answer Yes or No."
TEXTS = ["a cat", "a red cube on top of a blue sphere", "no dog"]


@pytest.fixture(scope="module", params=tiny_models.FAMILIES)
def pair(request):
    return tiny_models.build(request.param)


@pytest.fixture(scope="module")
def reward(pair):
    return YesNoReward((copy.deepcopy(pair[0]), pair[1]), prompt=PROMPT, pixels="uint8")


def levels(*sizes, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, *size), generator=g, dtype=torch.uint8) for size in sizes]


def unit(queries):
    return [[view / 255 for view in views] for views in queries]


def hf_margin(pair, queries, texts, answers):
    """By transformers alone: processor(text, images) and all logits."""
    model, processor = pair
    questions = [PROMPT.format(text=text) for text in texts]
    pictures = [[to_pil_image(view) for view in views] for views in queries]
    kind = model.config.model_type
    if kind == "idefics":
        prompts = [["User:", *v, f"{q}\nAssistant:"] for v, q in zip(pictures, questions)]
        inputs = processor(text=prompts, padding="longest", return_tensors="pt")
    else:
        if kind == "paligemma":
            prompts = ["<image>" * len(v) + q for v, q in zip(pictures, questions)]
        else:
            prompts = [
                processor.apply_chat_template(
                    [
                        {
                            "role": "user",
                            "content": [
                                *[{"type": "image"}] * len(v),
                                {"type": "text", "text": q},
                            ],
                        }
                    ],
                    add_generation_prompt=True,
                )
                for v, q in zip(pictures, questions)
            ]
        images = [p for row in pictures for p in row] if kind.startswith("qwen") else pictures
        inputs = processor(text=prompts, images=images, padding=True, return_tensors="pt")
    inputs.pop("labels", None)
    with torch.no_grad():
        logits = model(**inputs).logits
    mask = inputs["attention_mask"]
    last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
    z = logits[torch.arange(len(last)), last]
    return z[:, answers.positive].logsumexp(1) - z[:, answers.negative].logsumexp(1)


def check(pair, reward, queries, texts):
    expected = hf_margin(pair, queries, texts, reward.answers)
    torch.testing.assert_close(
        reward(unit(queries), text=texts).detach(), expected, atol=1e-4, rtol=0
    )
    return expected


def test_single(pair, reward):
    check(pair, reward, [levels((40, 50))], TEXTS[:1])


def test_answer_depends_on_the_image(pair, reward):
    a, b = (reward(unit([levels((40, 50), seed=s)]), text="a cat") for s in (0, 1))
    assert (a - b).abs() > 1e-3


def test_batch_of_mixed_lengths_and_sizes(pair, reward):
    queries = [[image] for image in levels((40, 50), (64, 33), (40, 50))]
    expected = check(pair, reward, queries, TEXTS)
    assert expected.std() > 0.01  # or the comparison would say nothing
    alone = torch.cat([reward(unit([q]), text=t) for q, t in zip(queries, TEXTS)])
    torch.testing.assert_close(alone.detach(), expected, atol=1e-4, rtol=0)


def test_several_images(pair, reward):
    check(pair, reward, [levels((40, 50), (30, 60)), levels((33, 33))], TEXTS[:2])


def test_order_in_the_batch_does_not_matter(pair, reward):
    queries = unit([[image] for image in levels((40, 50), (64, 33), (30, 30))])
    forward = reward(queries, text=TEXTS)
    backward = reward(queries[::-1], text=TEXTS[::-1])
    torch.testing.assert_close(forward, backward.flip(0), atol=1e-5, rtol=0)


def test_a_saved_folder_gives_the_same(pair, reward, tmp_path):
    pair[0].save_pretrained(tmp_path)
    pair[1].save_pretrained(tmp_path)
    loaded = YesNoReward(tmp_path, prompt=PROMPT, pixels="uint8")
    queries = unit([levels((40, 50)), levels((33, 60))])
    torch.testing.assert_close(loaded(queries, text="a cat"), reward(queries, text="a cat"))


def test_pixel_gradients_equal_central_differences(pair, monkeypatch):
    model = float64_throughout(copy.deepcopy(pair[0]).double(), monkeypatch)
    reward = YesNoReward((model, pair[1]), prompt=PROMPT)
    g = torch.Generator().manual_seed(5)
    x = torch.rand(1, 2, 3, 40, 50, generator=g, dtype=torch.float64).mul_(0.8).add_(0.1)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(reward(x, text="a cat").sum(), x)
    assert gradient.abs().max() > 0
    for _ in range(2):
        direction = torch.randn(x.shape, generator=g, dtype=torch.float64)
        step = 1e-5 * direction
        with torch.no_grad():
            up, down = (reward(x + s, text="a cat") for s in (step, -step))
        slope = float((up - down).sum() / 2e-5)
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-4, abs=1e-7)
