"""Several questions in one look against the same questions one by one, for every family."""

import copy
import inspect

import pytest
import tiny_models
import torch

from vlmreward import CompositeReward, YesNoReward
from vlmreward.models._acceleration.patch_embedding import PatchProjection

QUESTIONS = [
    "Does this image show {prompt}? Answer Yes or No.",
    "Does this image show no {prompt}? Answer Yes or No.",
    "Is it sharp?",
    "Is {prompt} in front of {other}, or is it behind? Answer No or Yes.",
]


@pytest.fixture(scope="module", params=tiny_models.FAMILIES)
def family(request):
    model, processor = tiny_models.build(request.param)
    return YesNoReward((model.double(), processor), question=QUESTIONS[0])


def looks_ahead(model):
    """True if image tokens look at each other: such models are told which tokens those are."""
    return "token_type_ids" in inspect.signature(model.forward).parameters


def views(*sizes, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.rand(3, *size, generator=g, dtype=torch.float64) for size in sizes]


def both(rewards, images, weights, **placeholders):
    """Values and gradients together and one by one."""
    out = []
    for together in (True, False):
        leaves = [[v.clone().requires_grad_() for v in query] for query in images]
        if together:
            values = list(CompositeReward(rewards).per_reward(leaves, **placeholders).values())
        else:
            values = [
                r(leaves, **{k: v for k, v in placeholders.items() if k in r.placeholders})
                for r in rewards
            ]
        values = torch.stack(values)
        flat = [v for query in leaves for v in query]
        out.append((values.detach(), torch.autograd.grad((values * weights).sum(), flat)))
    return out


def test_as_one_by_one(family):
    reward = family
    rewards = [reward.ask(question) for question in QUESTIONS]
    images = [views((40, 50), (33, 30)), views((40, 50), seed=1), views((30, 40), (60, 30), seed=2)]
    placeholders = {"prompt": ["a cat", "a small red cube", "dogs"], "other": "the house"}
    weights = torch.randn(4, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (values, grads), (expected, expected_grads) = both(rewards, images, weights, **placeholders)
    assert expected.std(dim=0).min() > 1e-2  # or the comparison would say nothing
    # IDEFICS and others compute their rotary positions in float32
    torch.testing.assert_close(values, expected, atol=2e-6, rtol=0)
    for grad, right in zip(grads, expected_grads):
        assert (grad - right).norm() <= 2e-6 * right.norm()


def test_images_are_encoded_once(family):
    """The first layer of the vision tower counts the images that pass it."""
    reward = family
    conv = next(
        m
        for m in reward.backbone.vlm.modules()
        if isinstance(m, (torch.nn.Conv2d, torch.nn.Conv3d, PatchProjection))
    )
    seen = []
    hook = conv.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[0]))
    images = [views((40, 50), (40, 50))]
    reward(images, prompt="a cat")
    CompositeReward([reward.ask(question) for question in QUESTIONS[:3]])(images, prompt="a cat")
    hook.remove()
    assert seen[0] == seen[1]


def test_sequence_is_shared(family):
    reward = family
    rewards = [question.format(prompt="a cat", other="it") for question in QUESTIONS]
    layout = reward.backbone.packed_layout([rewards], [[(40, 50)]])
    assert (layout is not None) == (not looks_ahead(reward.backbone.vlm))
    if layout is None:
        assert reward.backbone.family.accepts_image_features == looks_ahead(reward.backbone.vlm)
        return
    alone = [reward.backbone.layout([p], [[(40, 50)]]).inputs["input_ids"] for p in rewards]
    same = min(a.shape[1] for a in alone)
    first = torch.stack([a[0, :same] for a in alone])
    shared = int((first == first[0]).all(0).long().cumprod(0).sum())
    assert layout.inputs["input_ids"].shape[1] == shared + sum(a.shape[1] - shared for a in alone)


def test_one_question_twice(family):
    reward = family
    images = [views((40, 50))]
    values = CompositeReward([reward.ask(QUESTIONS[2]), reward.ask(QUESTIONS[2])]).per_reward(
        images
    )
    assert list(values) == [QUESTIONS[2], f"{QUESTIONS[2]} (2)"]
    first, second = values.values()
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)
    torch.testing.assert_close(first, reward.ask(QUESTIONS[2])(images), atol=2e-6, rtol=0)


def test_a_model_that_is_moved_to_another_dtype_is_asked_anew():
    """The masks of what is shared have the dtype of the model."""
    reward = YesNoReward(tiny_models.build("llava"), question=QUESTIONS[0])
    several = reward.ask(QUESTIONS[0], answers=("a cat", "Nothing"))
    asked = CompositeReward([reward, reward.ask(QUESTIONS[1]), several])
    images = [views((40, 50))]
    single = [[view.float() for view in query] for query in images]
    before = asked.per_reward(single, prompt="a cat")
    asked.to(torch.float64)
    for name, value in asked.per_reward(images, prompt="a cat").items():
        torch.testing.assert_close(value.float(), before[name], atol=1e-4, rtol=0)


def test_a_sliding_window_is_not_crossed():
    model, processor = tiny_models.build("idefics2")
    reward = YesNoReward((copy.deepcopy(model), processor), question=QUESTIONS[0])
    questions = [QUESTIONS[0].format(prompt=prompt) for prompt in ("a cat", "a dog")]
    assert reward.backbone.packed_layout([questions], [[(40, 50)]]) is not None
    model.config.text_config.sliding_window = 8
    reward = YesNoReward((model, processor), question=QUESTIONS[0])
    assert reward.backbone.packed_layout([questions], [[(40, 50)]]) is None
