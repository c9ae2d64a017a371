"""Checkpoints as they are published, but for small layers and random weights, against transformers.

Every switch, token id, image size and prompt is the published one; see
``tests/support/published/README.md``.
"""

import shutil

import published_models
import pytest
import torch
from margins import PROMPTS, QUESTION, levels, unit
from torchvision.transforms.functional import to_pil_image
from transformers import AutoProcessor

from vlmreward import YesNoReward

LIMIT = 1e-5
TENSORS_REFUSED = {"idefics", "idefics2"}
"""Model types whose processors take no tensors, so that no gradient comes through them."""
MANY_TOKENS = {"paligemma-3b-mix-448", "gemma-3-4b-it", "idefics2-8b", "Idefics3-8B-Llama3"}
MANY_TOKENS |= {"SmolVLM-Instruct", "SmolVLM2-500M-Video-Instruct"}
"""Checkpoints with so many tokens of an image that gradients are compared for one image alone."""


LONG = [(16, 160), (160, 20), (20, 160)]
COMPACT = [(40, 50), (64, 33), (50, 40)]
"""Sizes of images: of long ones the fewest tiles are made, of compact ones the fewest patches."""


class Case:
    """A folder, loaded by a user, and the same model asked by transformers alone."""

    def __init__(self, name, folder):
        self.name = name
        self.model = published_models.build(name, folder)
        self.kind = self.model.config.model_type
        self.sizes = LONG if self.kind in ("idefics3", "smolvlm") else COMPACT
        self.processor = AutoProcessor.from_pretrained(folder)
        self.reward = YesNoReward(
            folder, question=QUESTION, pixel_mode="uint8", dtype=torch.float64
        )

    def inputs(self, views, prompt):
        """Model inputs of a question, by the model's own processor."""
        question = QUESTION.format(prompt=prompt)
        if self.kind == "idefics":  # the prompt of the model card
            text = ["User:", *views, f"{question}<end_of_utterance>\nAssistant:"]
            return self.processor(text=[text], return_tensors="pt")
        if self.kind == "paligemma":
            text = "<image>" * len(views) + question
            inputs = self.processor(text=[text], images=[views], return_tensors="pt")
            inputs.pop("labels")
            return inputs
        content = [{"type": "image", "image": view} for view in views]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": [*content, {"type": "text", "text": question}]}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )

    def margin(self, inputs):
        """Log-odds by the whole model of transformers."""
        z = self.model(**inputs, use_cache=False, logits_to_keep=1).logits[0, -1]
        (yes,), (no,) = self.reward.answers.positive, self.reward.answers.negative
        return z[yes] - z[no]


@pytest.fixture(scope="module", params=published_models.NAMES)
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    yield Case(request.param, folder)
    shutil.rmtree(folder)  # some hundred megabytes of embeddings


@torch.no_grad()
def test_values(case):
    """Alone, and in a batch of different sizes, prompts and numbers of images."""
    queries = [levels(case.sizes[0]), levels(*case.sizes[1:], seed=1)]
    expected = torch.stack(
        [
            case.margin(case.inputs([to_pil_image(view) for view in views], prompt))
            for views, prompt in zip(queries, PROMPTS)
        ]
    )
    images = [[view.double() for view in views] for views in unit(queries)]
    values = case.reward(images, prompt=PROMPTS[:2])
    assert values.dtype == torch.float64
    torch.testing.assert_close(values, expected, atol=LIMIT, rtol=0)
    alone = case.reward(images[:1], prompt=PROMPTS[0])
    torch.testing.assert_close(alone, expected[:1], atol=LIMIT, rtol=0)
    assert (expected[0] - expected[1]).abs() > 0.01  # or the comparison would say nothing


def test_gradients(case, monkeypatch):
    """Those of transformers' own graph from the pixels on, or from what its processor makes."""
    processor = case.reward.backbone.image_processor
    monkeypatch.setattr(processor, "pixel_mode", "float")
    g = torch.Generator().manual_seed(3)
    views = 1 if case.name in MANY_TOKENS else 2
    x = torch.rand(views, 3, *case.sizes[0], generator=g, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(case.reward(x[None], prompt=PROMPTS[0]).sum(), x)
    if case.kind in TENSORS_REFUSED:
        pictures = [to_pil_image((view * 255).round().to(torch.uint8)) for view in x.detach()]
        inputs = case.inputs(pictures, PROMPTS[0])
        ours = processor(x[None] if processor.nested else x)["pixel_values"]
        made = ours.detach().view(inputs["pixel_values"].shape).requires_grad_()
        inputs["pixel_values"] = made
        (outer,) = torch.autograd.grad(case.margin(inputs), made)
        (expected,) = torch.autograd.grad(ours, x, outer.view(ours.shape))
    else:
        inputs = case.inputs([*(x * 255)], PROMPTS[0])
        (expected,) = torch.autograd.grad(case.margin(inputs), x)
    assert expected.abs().amax((1, 2, 3)).min() > 0
    assert (gradient - expected).norm() <= LIMIT * expected.norm()


def test_prompt(case):
    """The published template's text for a user's turn with two images."""
    known = published_models.facts(case.name).get("two_images_and_why")
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Why?"}]
    if known is None:
        assert not getattr(case.processor, "chat_template", None)
    else:
        turn = [{"role": "user", "content": content}]
        assert case.processor.apply_chat_template(turn, add_generation_prompt=True) == known
