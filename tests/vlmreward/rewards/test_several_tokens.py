"""Answers of several tokens, scales, and how much probability lies on the answers."""

import copy
import math

import pytest
import tiny_models
import torch
from float64_models import float64_throughout
from margins import PROMPTS, QUESTION, levels, unit

from vlmreward import CompositeReward, RatingReward, SpellingVariants, YesNoReward
from vlmreward.doctor.reference import ask_transformers
from vlmreward.images.batch import ImageBatch

LONG = ("a cat", ["Nothing", "Yes"])


@pytest.fixture(scope="module", params=tiny_models.FAMILIES)
def pair(request):
    return tiny_models.build(request.param)


def forced(pair, view_lists, prompts, answers):
    """Log-probability of each answer by transformers' own generation, one token at a time."""
    model, processor = pair
    rows = []
    for views, prompt in zip(view_lists, prompts):
        row = []
        inputs = ask_transformers(model, processor, QUESTION.format(prompt=prompt), views).inputs
        start = inputs["input_ids"].shape[1]
        for answer in answers:

            def given(_, ids, answer=answer, start=start):
                return [answer[len(ids) - start]]

            out = model.generate(
                **inputs,
                max_new_tokens=len(answer),
                min_new_tokens=len(answer),
                do_sample=False,
                prefix_allowed_tokens_fn=given,
                output_logits=True,
                return_dict_in_generate=True,
            )
            assert out.sequences[0, -len(answer) :].tolist() == list(answer)
            each = [z[0].log_softmax(-1)[token] for z, token in zip(out.logits, answer)]
            row.append(torch.stack(each).sum())
        rows.append(torch.stack(row))
    return torch.stack(rows)


def test_log_probabilities_equal_forced_generation(pair):
    reward = YesNoReward((copy.deepcopy(pair[0]), pair[1]), question=QUESTION, answers=LONG)
    assert len({len(ids) for ids in reward.answers.sequences}) > 1
    reward.backbone.image_processor.pixel_mode = "uint8"
    queries = [[image] for image in levels((40, 50), (64, 33))]
    expected = forced(pair, queries, PROMPTS[:2], reward.answers.sequences)
    value = reward(unit(queries), prompt=PROMPTS[:2]).detach()
    torch.testing.assert_close(
        value, expected[:, 0] - expected[:, 1:].logsumexp(1), atol=1e-4, rtol=0
    )
    mass = reward.answer_mass(unit(queries), prompt=PROMPTS[:2])
    torch.testing.assert_close(mass.detach(), expected.exp().sum(1), atol=0, rtol=1e-3)


def test_gradient_of_several_tokens_equals_central_differences(pair, monkeypatch):
    model = float64_throughout(copy.deepcopy(pair[0]).double(), monkeypatch)
    reward = YesNoReward((model, pair[1]), question=QUESTION, answers=LONG)
    g = torch.Generator().manual_seed(5)
    x = torch.rand(1, 1, 3, 40, 50, generator=g, dtype=torch.float64).mul_(0.8).add_(0.1)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(reward(x, prompt="a cat").sum(), x)
    direction = torch.randn(x.shape, generator=g, dtype=torch.float64)
    with torch.no_grad():
        up, down = (reward(x + s * 1e-5 * direction, prompt="a cat") for s in (1, -1))
    slope = float((up - down).sum() / 2e-5)
    assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-4, abs=1e-7)


@pytest.fixture(scope="module")
def qwen():
    return tiny_models.build("qwen2_5_vl")


@pytest.fixture
def images(rng):
    return torch.rand(2, 3, 56, 56, generator=rng)


def test_single_tokens_agree_on_both_ways(qwen, images):
    reward = YesNoReward(qwen, question=QUESTION)
    asked = reward._asked(ImageBatch.of(images), {"prompt": "a cat"})
    flat, questions, sizes = asked.views, asked.questions, asked.sizes
    scores = reward.backbone.log_probabilities(flat, questions, sizes, reward.sequences)
    torch.testing.assert_close(reward.from_logits(scores), reward(images, prompt="a cat"))


def test_mass_and_top_answers(qwen, images):
    every = YesNoReward(qwen, question=QUESTION, answers=(5, [i for i in range(405) if i != 5]))
    everything = torch.ones(2)
    torch.testing.assert_close(
        every.answer_mass(images, prompt="a cat"), everything, rtol=0, atol=1e-5
    )
    reward = every.ask(QUESTION)
    top = reward.top_answers(images, prompt=["a cat", "a dog"], k=405)
    assert [len(row) for row in top] == [405, 405]
    for row in top:
        shares = [answer.probability for answer in row]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1, abs=1e-5)
    mass = reward.answer_mass(images, prompt=["a cat", "a dog"]).tolist()
    for row, share in zip(top, mass):
        assert sum(a.probability for a in row if a.text in ("Yes", "No")) == pytest.approx(
            share, rel=1e-5
        )
    with pytest.raises(ValueError, match="k is 0; expected 1 to"):
        reward.top_answers(images, prompt="a cat", k=0)


def test_half_precision_does_not_round_the_normalizer(qwen, images):
    model = copy.deepcopy(qwen[0]).bfloat16()
    reward = YesNoReward((model, qwen[1]), question=QUESTION, answers=LONG)
    assert reward(images, prompt="a cat").dtype == torch.float32
    asked = reward._asked(ImageBatch.of(images), {"prompt": "a cat"})
    flat, questions, sizes = asked.views, asked.questions, asked.sizes
    layout = reward.backbone.layout(questions, sizes)
    everything = range(reward.backbone.vocabulary)
    logits = reward.backbone.answer_logits(flat, layout, None)
    torch.testing.assert_close(logits, reward.backbone.answer_logits(flat, layout, everything))
    assert (logits != logits.bfloat16()).any()


def test_a_scale_is_the_expected_value(qwen, images):
    reward = RatingReward(
        qwen, question="Rate {prompt}: bad, fair or good.", ratings={"1": -1, "2": 3}
    )
    assert reward.answers == ("1", "2")
    odds = YesNoReward(reward.backbone, question=reward.question, answers=("2", "1"))
    p = odds.probability(images, prompt="a cat")
    torch.testing.assert_close(reward(images, prompt="a cat"), 4 * p - 1)
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(reward(images, prompt="a cat").sum(), images)
    assert gradient.abs().max() > 0
    assert YesNoReward(reward).backbone is reward.backbone
    five = reward.ask("one-to-five", ratings={str(n): n for n in range(1, 6)})
    assert ((five(images, prompt="a cat") > 1) & (five(images, prompt="a cat") < 5)).all()
    assert five.ask("How {prompt} is it?").ratings == five.ratings


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ({"1": 1}, "two or more answers"),
        ({"1": 1, "2": math.inf}, "expected finite numbers"),
        ({"1": 1, "10": 2}, "'10' begins with the answer '1'"),
        ([1, 2], "expected a dict"),
    ],
)
def test_bad_scales(qwen, ratings, message):
    with pytest.raises(ValueError, match=message):
        RatingReward(qwen, ratings=ratings)


def test_any_answers_in_one_checklist(qwen, images):
    yes = YesNoReward(qwen, question=QUESTION, name="yes")
    both = CompositeReward(
        {
            "yes": yes,
            "words": yes.ask("Is it {prompt} or a {kind}?", answers=LONG),
            "variants": yes.ask(
                QUESTION, answers=(SpellingVariants("yes"), SpellingVariants("no"))
            ),
            "scale": RatingReward(yes.backbone),
        }
    )
    each = both.per_reward(images, prompt="a cat", kind=["dog", "bird"])
    for name, member in both.members.items():
        extra = {"kind": ["dog", "bird"]} if name == "words" else {}
        alone = member(images, prompt="a cat", **extra)
        torch.testing.assert_close(each[name], alone, atol=1e-5, rtol=1e-4)
