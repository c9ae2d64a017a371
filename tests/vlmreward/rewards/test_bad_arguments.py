"""Arguments of other types and values: one line with what was received and expected."""

import pytest
import torch

from vlmreward import CompositeReward, QuestionTemplate, RatingReward, SpellingVariants, YesNoReward
from vlmreward.models.frozen_vlm import FrozenVLM

IMAGES = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def reward():
    return YesNoReward("builtin/blocks", device="cpu")


@pytest.fixture
def _nothing_is_loaded(monkeypatch):
    def loaded(*_):
        raise AssertionError("loaded a model before the arguments were looked at")

    monkeypatch.setattr("vlmreward.models.model_pair.load", loaded)


@pytest.mark.usefixtures("_nothing_is_loaded")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": (1, 2)}, TypeError, "model of the pair is a int; expected a vision-language"),
        ({"model": (torch.nn.Linear(1, 1), 2)}, TypeError, "model of the pair is a Linear; exp"),
        ({"model": (1, 2, 3)}, TypeError, "model is a tuple; expected a model id"),
        ({"model": None}, TypeError, "model is a NoneType; expected"),
        ({"model_kwargs": "x"}, TypeError, "model_kwargs is a str; expected a dict"),
        ({"model_kwargs": [1]}, TypeError, "model_kwargs is a list; expected a dict"),
        ({"question": 3}, TypeError, "question is a int; expected a QuestionTemplate, a question"),
        ({"question": None}, TypeError, "question is a NoneType; expected"),
        ({"question": ""}, ValueError, "question template '' is empty; expected a question"),
        ({"question": " \n"}, ValueError, "is empty; expected a question"),
        (
            {"question": "paper/Z"},
            ValueError,
            "no question is named 'paper/Z'; .*yes-no.*paper/sel",
        ),
        ({"question": "yesno"}, ValueError, "no question is named 'yesno'; expected one of yes-no"),
        ({"question": "{prompt"}, ValueError, "malformed"),
        ({"answers": None}, TypeError, "answers is a NoneType; expected a pair like"),
        ({"answers": 3}, TypeError, "answers is a int; expected a pair"),
        ({"answers": "Yes"}, ValueError, "answers is 'Yes'; expected a pair"),
        ({"answers": ("Yes",)}, ValueError, "expected a pair"),
        ({"device": "gpu"}, ValueError, "device is 'gpu'; expected 'cpu', 'cuda'"),
        ({"device": ""}, ValueError, "device is ''; expected 'cpu'"),
        ({"device": "meta"}, ValueError, "device is 'meta', which holds no values; expected"),
        ({"device": "cuda:99"}, ValueError, "'cuda:99', which is not on this machine"),
        ({"device": 1.5}, TypeError, "device is a float; expected a torch.device or a name"),
        ({"device": True}, TypeError, "device is a bool; expected"),
        ({"dtype": "float32"}, TypeError, "dtype is 'float32', a str; expected a torch.dtype"),
        ({"dtype": torch.int8}, ValueError, "dtype is torch.int8; expected a floating one"),
        ({"pixel_mode": "double"}, ValueError, "pixel_mode is 'double'; expected one of"),
        ({"pixel_mode": None}, ValueError, "pixel_mode is None; expected one of"),
        ({"per_view": "max"}, ValueError, "per_view is 'max'; expected one of"),
        ({"name": 3}, TypeError, "name is 3, a int; expected a str"),
        ({"validate": "no"}, TypeError, "validate is 'no', a str; expected a bool"),
        ({"checkpoint": 1}, TypeError, "checkpoint is 1, a int; expected a bool"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_arguments_are_looked_at_before_a_model_is_loaded(options, error, message):
    with pytest.raises(error, match=message) as caught:
        YesNoReward(**{"model": "builtin/blocks", **options})
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("_nothing_is_loaded")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ratings": 3}, ValueError, "ratings is 3; expected a dict"),
        ({"ratings": {"a": 1}}, ValueError, "expected a dict of two or more"),
        ({"ratings": {"a": "x", "b": 1}}, TypeError, r"values \['x', 1\]; expected numbers"),
        ({"ratings": {"a": None, "b": 1}}, TypeError, "expected numbers"),
        ({"ratings": {"a": float("nan"), "b": 1}}, ValueError, "expected finite numbers"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_scales_are_looked_at_before_a_model_is_loaded(options, error, message):
    with pytest.raises(error, match=message):
        RatingReward("builtin/blocks", **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r(IMAGES, ""), ValueError, "prompt is ''; expected what to ask about"),
        (lambda r: r(IMAGES, " \t"), ValueError, r"prompt is ' \\t'; expected what"),
        (lambda r: r(IMAGES, [""]), ValueError, "prompt is ''; expected what"),
        (lambda r: r(IMAGES, b"a"), TypeError, "prompt is a bytes; expected a str"),
        (lambda r: r(IMAGES), ValueError, "lacks a value for prompt"),
        (lambda r: r.ask("Is it?")(IMAGES, "a cube"), ValueError, "has no placeholder prompt"),
        (lambda r: r.ask(3), TypeError, "question is a int"),
        (lambda r: r.ask("paper/Z"), ValueError, "no question is named"),
        (lambda r: r.ask("yes-no", answers=(True, False)), TypeError, "answer is True; expected"),
        (lambda r: r.ask("yes-no", answers=(1.5, "No")), TypeError, "answer is 1.5; expected"),
        (lambda r: r.ask("yes-no", answers=("", "No")), ValueError, "answer '' is empty"),
        (lambda r: r.ask("yes-no", answers=([], "No")), ValueError, "no variants; expected"),
        (lambda r: SpellingVariants(3), TypeError, "word is a int; expected a str"),
        (lambda r: r.top_answers(IMAGES, "a", k="3"), TypeError, "k is a str; expected an int"),
        (lambda r: r.top_answers(IMAGES, "a", k=0), ValueError, "k is 0; expected 1 to 704"),
        (lambda r: CompositeReward(r, ["paper/Z"]), ValueError, "no question is named"),
        (lambda r: CompositeReward(3), TypeError, "rewards is a int"),
        (
            lambda r: CompositeReward([r], reduction=[]),
            ValueError,
            r"reduction is \[\]; expected one of",
        ),
        (
            lambda r: CompositeReward([r], temperature="x"),
            ValueError,
            "temperature is 'x'; expected",
        ),
        (lambda r: CompositeReward([r], temperature=float("inf")), ValueError, "expected a finite"),
        (
            lambda r: CompositeReward([r], weights=5),
            TypeError,
            "weights is 5; expected a list of num",
        ),
        (lambda r: CompositeReward([r], weights=["x"]), TypeError, "expected a list of numbers"),
        (lambda r: QuestionTemplate(3), TypeError, "question template is a int; expected a str"),
        (lambda r: FrozenVLM("builtin/nothing"), OSError, "no such model is built in; expected 'b"),
        (
            lambda r: YesNoReward("builtin/blocks", device="cpu", model_kwargs={"speed": 3}),
            ValueError,
            "model_kwargs has 'speed', which the model does not take; expected arguments of from",
        ),
    ],
)
def test_calls_are_refused_in_one_line(reward, call, error, message):
    with pytest.raises(error, match=message) as caught:
        call(reward)
    assert "\n" not in str(caught.value)


def test_a_single_word_can_be_a_question(reward):
    assert reward.ask(QuestionTemplate("Cube?"))(IMAGES).shape == (1,)
    assert reward.ask("{prompt}?")(IMAGES, "cube").shape == (1,)
    assert reward.ask("立方体?").question.template == "立方体?"
