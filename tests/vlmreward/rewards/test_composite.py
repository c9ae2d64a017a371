"""The algebra of rewards."""

import itertools
import math

import pytest
import tiny_models
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_rewards import Linear, noise, pattern

from vlmreward import CompositeReward, YesNoReward, wrappers
from vlmreward.rewards.reductions import REDUCTIONS


@pytest.fixture(scope="module")
def reward():
    return YesNoReward(tiny_models.build("qwen2_5_vl"), name="content")


@pytest.fixture(scope="module")
def images():
    return noise(2, 2, 3, 30, 40, dtype=torch.float32)


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_arithmetic(reward, images):
    other = reward.ask("Is it {color}?", name="color")
    a, b = reward(images, prompt="a cat"), other(images, color="red")
    placeholders = {"prompt": "a cat", "color": "red"}
    close((reward + other)(images, **placeholders), a + b)
    close((reward + 0.5 * other)(images, **placeholders), a + 0.5 * b)
    close((reward - other / 4)(images, **placeholders), a - b / 4)
    close((-(reward * 2))(images, prompt="a cat"), -2 * a)
    close(sum([reward, other, reward])(images, **placeholders), 2 * a + b)
    close((2 * (reward - 3 * other))(images, **placeholders), 2 * a - 6 * b)
    total = reward + 0.5 * other
    assert list(total.members) == ["content", "color"]
    assert total.weights == (1.0, 0.5)
    values = total.per_reward(images, **placeholders)
    assert list(values) == ["content", "color"]
    close(values["color"], b)


def test_what_is_not_a_reward_is_refused_by_arithmetic(reward):
    for wrong in (
        lambda: reward + 1,
        lambda: reward * reward,
        lambda: 1 - reward,
        lambda: reward / "2",
    ):
        with pytest.raises(TypeError, match="unsupported operand"):
            wrong()


def test_one_line_for_the_criteria_of_the_paper(reward, images):
    both = CompositeReward(reward, ["paper/content", "paper/geometry"], reduction="and")
    each = both.per_reward(images, prompt="a cat")
    assert list(each) == ["paper/content", "paper/geometry"]
    close(each["paper/geometry"], reward.ask("paper/geometry")(images))
    p = torch.stack(list(each.values())).double().sigmoid().prod(0)
    close(both(images, prompt="a cat"), torch.logit(p).float())


def test_rewards_of_other_kinds_and_models(reward, images):
    second = YesNoReward(tiny_models.build("paligemma"), question="Is it {prompt}?")
    linear = Linear(pattern(3, 30, 40).float())
    mixed = CompositeReward(
        {"vlm": reward, "other": second, "linear": linear, "aug": wrappers.GradientBlur(reward)},
        reduction="sum",
        weights={"vlm": 1, "other": 2, "linear": 3, "aug": 4},
    )
    a, b = reward(images, prompt="a cat"), second(images, prompt="a cat")
    close(mixed(images, prompt="a cat"), 5 * a + 2 * b + 3 * linear(images))


def test_checklists_nest_and_ask_once(reward, images, monkeypatch):
    calls = []
    original = type(reward.backbone).answer_logits
    monkeypatch.setattr(
        type(reward.backbone),
        "answer_logits",
        lambda self, *args, **kwargs: calls.append(1) or original(self, *args, **kwargs),
    )
    other = reward.ask("Is it red?")
    inner = CompositeReward([reward, other], reduction="min")
    outer = CompositeReward({"inner": inner, "again": other})
    value = outer(images, prompt="a cat")
    assert len(calls) == 1
    a, b = reward(images, prompt="a cat"), other(images)
    close(value, (torch.minimum(a, b) + b) / 2)


numbers = st.lists(st.floats(-30, 30), min_size=1, max_size=5)


def reduced(name, values, weights=None, temperature=1.0):
    members = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in values]
    weights = weights or [1.0] * len(values)
    out = REDUCTIONS[name](members, weights, temperature)
    return out.item(), [g.item() for g in torch.autograd.grad(out, members)]


@given(numbers)
def test_and_is_the_log_odds_of_the_product(values):
    value, _ = reduced("and", values)
    # exactly, from the closed form of the odds against it: prod (1 + e^-m) - 1
    against = math.fsum(
        math.exp(-math.fsum(subset))
        for r in range(1, len(values) + 1)
        for subset in itertools.combinations(values, r)
    )
    assert value == pytest.approx(-math.log(against), rel=1e-12, abs=1e-12)


def test_and_stays_finite_where_the_model_is_sure():
    value, grads = reduced("and", [300.0, 300.0])
    assert value == pytest.approx(300 - math.log(2))
    assert grads == pytest.approx([0.5, 0.5])
    value, grads = reduced("and", [-300.0, 300.0])
    assert value == pytest.approx(-300)
    assert grads == pytest.approx([1, 0])


@given(numbers, st.floats(0.05, 20))
def test_softmin_lies_between_min_and_mean(values, temperature):
    value, grads = reduced("softmin", values, temperature=temperature)
    assert min(values) - 1e-9 <= value <= sum(values) / len(values) + 1e-9
    assert sum(grads) == pytest.approx(1)


def test_limits_of_softmin():
    values = [1.0, 2.0, 4.0]
    assert reduced("softmin", values, temperature=1e-3)[0] == pytest.approx(1, abs=2e-3)
    assert reduced("softmin", values, [1, 1, 2], 1e6)[0] == pytest.approx(11 / 4, abs=1e-5)


def test_mean_min_and_sum():
    assert reduced("mean", [1.0, 4.0], [1.0, 2.0]) == (3.0, pytest.approx([1 / 3, 2 / 3]))
    assert reduced("sum", [1.0, 4.0], [1.0, -2.0]) == (-7.0, [1.0, -2.0])
    assert reduced("min", [4.0, 1.0, 2.0]) == (1.0, [0.0, 1.0, 0.0])


def test_gradient_reaches_the_pixels(reward, images):
    total = reward + 0.5 * reward.ask("Is it red?")
    x = images.clone().requires_grad_()
    (grad,) = torch.autograd.grad(total(x, prompt="a cat").sum(), x)
    y = images.clone().requires_grad_()
    alone = reward(y, prompt="a cat").sum() + 0.5 * reward.ask("Is it red?")(y).sum()
    (expected,) = torch.autograd.grad(alone, y)
    assert (grad - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"reduction": "max"}, ValueError, "expected one of"),
        ({"temperature": 0}, ValueError, "above 0"),
        ({"weights": [1, 2]}, ValueError, "2 weights; expected 1"),
        ({"weights": {"x": 1}}, ValueError, r"for \['x'\]; expected \['content'\]"),
        ({"weights": [-1]}, ValueError, "above 0 with reduction='mean'"),
        ({"weights": [math.nan], "reduction": "sum"}, ValueError, "finite"),
        ({"weights": [1], "reduction": "and"}, ValueError, "leave them out"),
        ({"questions": "Is it {prompt}?"}, TypeError, "a list of questions"),
        ({"questions": []}, ValueError, "questions is empty"),
    ],
)
def test_bad_arguments(reward, arguments, error, message):
    rewards = reward if "questions" in arguments else [reward]
    with pytest.raises(error, match=message):
        CompositeReward(rewards, **arguments)


def test_bad_members(reward):
    with pytest.raises(TypeError, match="'int' is a int; expected a reward"):
        CompositeReward([3])
    with pytest.raises(ValueError, match="rewards is empty"):
        CompositeReward([])
    with pytest.raises(TypeError, match="one YesNoReward, as questions are given"):
        CompositeReward([reward], ["Is it?"])


def test_fields(reward, images):
    both = CompositeReward(reward, ["Is it {prompt}?", "Is it {color}?"])
    with pytest.raises(
        ValueError,
        match=r"no question has a placeholder size; expected placeholders: prompt, color",
    ):
        both(images, prompt="a", color="b", size="c")
    with pytest.raises(ValueError, match="lacks a value for color"):
        both(images, prompt="a")
    with pytest.raises(ValueError, match="prompt has 3 items for 2 queries"):
        both(images, prompt=["a", "b", "c"], color="b")


def test_device_and_dtype_belong_to_the_model(reward):
    with pytest.raises(ValueError, match="another reward's model"):
        YesNoReward(reward.backbone, dtype=torch.float64)
