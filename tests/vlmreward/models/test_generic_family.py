"""Families that have no code of their own: Hugging Face's image processor, the common layout."""

import copy

import pytest
import tiny_models
import torch
from margins import PROMPTS, QUESTION, levels, unit

from vlmreward import CompositeReward, YesNoReward, doctor

pytestmark = pytest.mark.filterwarnings("ignore:.* has no counterpart in vlmreward")


@pytest.fixture(scope="module", params=tiny_models.GENERIC)
def pair(request):
    return tiny_models.build(request.param)


@pytest.fixture(scope="module")
def reward(pair):
    return YesNoReward((copy.deepcopy(pair[0]), pair[1]), question=QUESTION)


def chat(views, question):
    content = [{"type": "image", "image": view} for view in views]
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


def alone(pair, views, question, answers, **options):
    """Log-odds by transformers alone, whose processor gets the levels as floats, as here."""
    model, processor = pair
    inputs = processor.apply_chat_template(
        chat([view.float() for view in views], question),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        z = model(**inputs).logits[0, -1]
    return z[list(answers.positive)].logsumexp(0) - z[list(answers.negative)].logsumexp(0)


def test_one_has_no_counterpart():
    with pytest.warns(UserWarning, match="LlavaNextImageProcessor has no counterpart"):
        YesNoReward(tiny_models.build("llava_next"), question=QUESTION)


def test_margin_equals_that_of_transformers(pair, reward):
    queries = [levels((40, 50)), levels((64, 33), seed=1), levels((30, 30), seed=2)]
    pairs = [levels((64, 33), (40, 50)), levels((30, 90), (40, 40), seed=1)]
    for batch in (queries, pairs, queries[:1], queries[1:2], pairs[:1]):
        prompts = PROMPTS[: len(batch)]
        expected = torch.stack(
            [
                alone(pair, q, QUESTION.format(prompt=t), reward.answers)
                for q, t in zip(batch, prompts)
            ]
        )
        values = reward(unit(batch), prompt=prompts).detach()
        torch.testing.assert_close(values, expected, atol=1e-4, rtol=0)
        assert len(batch) == 1 or expected.std() > 0.01


def test_different_numbers_of_images(pair, reward):
    """Queries may differ in one batch if the model keeps them apart."""
    queries = [levels((40, 50)), levels((64, 33), (40, 50)), levels((30, 30))]
    if pair[0].config.model_type == "mllama":
        with pytest.raises(ValueError, match="queries have 1 and 2 images; expected the same num"):
            reward(unit(queries), prompt=PROMPTS)
        return
    values = reward(unit(queries), prompt=PROMPTS).detach()
    each = torch.cat([reward(unit([q]), prompt=t) for q, t in zip(queries, PROMPTS)])
    torch.testing.assert_close(values, each, atol=1e-4, rtol=0)


def test_gradient_and_several_questions(reward):
    x = torch.rand(1, 2, 3, 40, 50, generator=torch.Generator().manual_seed(1), requires_grad=True)
    questions = CompositeReward([reward, reward.ask("Is there no {prompt}?")], reduction="mean")
    (together,) = torch.autograd.grad(questions(x, prompt="a cat").sum(), x)
    each = sum(member(x, prompt="a cat") for member in questions.members.values()) / 2
    (expected,) = torch.autograd.grad(each.sum(), x)
    assert expected.abs().amax((2, 3, 4)).min() > 0
    torch.testing.assert_close(together, expected, atol=1e-6, rtol=1e-3)


def test_an_answer_of_several_tokens(pair, reward):
    """The mask of cross-attention goes on behind the question; by one token after the other."""
    long = reward.ask(QUESTION, answers=("a cat", "Nothing"))
    views, question = levels((40, 50), (64, 33)), QUESTION.format(prompt=PROMPTS[1])
    model, processor = pair
    inputs = processor.apply_chat_template(
        chat([view.float() for view in views], question),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    start, sums = inputs["input_ids"].shape[1], []
    for answer in long.answers.sequences:
        out = model.generate(
            **inputs,
            max_new_tokens=len(answer),
            min_new_tokens=len(answer),
            do_sample=False,
            prefix_allowed_tokens_fn=lambda _, ids, answer=answer: [answer[len(ids) - start]],
            output_logits=True,
            return_dict_in_generate=True,
        )
        each = [z[0].log_softmax(-1)[token] for z, token in zip(out.logits, answer)]
        sums.append(torch.stack(each).sum())
    value = long(unit([views]), prompt=PROMPTS[1]).detach()
    torch.testing.assert_close(value, (sums[0] - sums[1])[None], atol=1e-4, rtol=0)


def test_doctor_finds_nothing_wrong(reward):
    found = doctor.run_checks(reward, quick=True)
    assert [f for f in found if f.status == "FAIL"] == []


def test_what_cannot_be_batched_is_refused(monkeypatch):
    reward = YesNoReward(tiny_models.build("llava_next"), question=QUESTION)
    family = reward.backbone.family
    asked = family.call_processor

    def more(prompt, sizes):
        length = asked(prompt, sizes)["input_ids"].shape[1]
        return {**asked(prompt, sizes), "position_ids": torch.zeros(3, 1, length)}

    monkeypatch.setattr(family, "call_processor", more)
    with pytest.raises(TypeError, match="LlavaNextProcessor makes position_ids, which LlavaNextFo"):
        reward(torch.rand(1, 3, 40, 50), prompt="a cat")
