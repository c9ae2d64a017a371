"""Judges against their own formulas, by transformers alone, on tiny models."""

import copy
import pickle

import pytest
import tiny_models
import torch
from margins import levels, unit
from torch.testing import assert_close
from torchvision.transforms.functional import to_pil_image

from vlmreward import QuestionTemplate, YesNoReward
from vlmreward.models.chat_question import ChatQuestion
from vlmreward.rewards import AnswerProbabilityReward, judges

SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
PROMPTS = ["a red cube", "a blue sphere"]


@pytest.fixture(scope="module")
def pair():
    return tiny_models.build("qwen3_vl")


def inputs_of(pair, messages, views):
    text = pair[1].apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return pair[1](text=[text], images=[to_pil_image(x) for x in views], return_tensors="pt")


def rerank(pair, prompt, views, tokens, instruction):
    """`compute_scores` of Qwen3-VL-Reranker: a linear layer of the difference of two rows."""
    content = [
        {"type": "text", "text": "<Instruct>: " + instruction},
        {"type": "text", "text": "<Query>:"},
        {"type": "text", "text": prompt},
        {"type": "text", "text": "\n<Document>:"},
        *[{"type": "image"}] * len(views),
    ]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "content": content},
    ]
    inputs = inputs_of(pair, messages, views)
    weight = pair[0].get_output_embeddings().weight
    with torch.no_grad():
        last = pair[0].model(**inputs).last_hidden_state[0, -1]
        return torch.sigmoid(last @ (weight[tokens[0]] - weight[tokens[1]]))


@pytest.mark.parametrize("instruction", [judges.RERANKER_INSTRUCTION, "Find {all} images."])
def test_the_reranker(pair, instruction):
    reward = judges.qwen3_vl_reranker(
        (copy.deepcopy(pair[0]), pair[1]), pixel_mode="uint8", instruction=instruction
    )
    tokens = [*reward.answers.positive, *reward.answers.negative]
    assert [pair[1].tokenizer.get_vocab()[word] for word in ("yes", "no")] == tokens
    queries = [levels((40, 50)), levels((64, 40), (33, 60), seed=3)]
    expected = torch.stack(
        [rerank(pair, p, views, tokens, instruction) for p, views in zip(PROMPTS, queries)]
    )
    found = reward.probability(unit(queries), prompt=PROMPTS).detach()
    assert_close(found, expected, rtol=0, atol=1e-5)
    assert abs(float(expected[0] - expected[1])) > 1e-3
    images = torch.rand(1, 3, 40, 50, requires_grad=True)
    reward(images, prompt="a cat").sum().backward()
    assert float(images.grad.abs().sum()) > 0


@pytest.mark.parametrize("answer", ["Yes", 11])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava", "paligemma"])
def test_vqascore(family, answer):
    pair = tiny_models.build(family)
    reward = judges.vqascore((copy.deepcopy(pair[0]), pair[1]), pixel_mode="uint8", answer=answer)
    asked = 'Does this figure show "a red cube"? Please answer yes or no.'
    view = levels((40, 50))[0]
    if family == "paligemma":
        inputs = pair[1](
            text=["<image>" + asked], images=[[to_pil_image(view)]], return_tensors="pt"
        )
    else:
        content = [{"type": "image"}, {"type": "text", "text": asked}]
        inputs = inputs_of(pair, [{"role": "user", "content": content}], [view])
    inputs.pop("labels", None)
    with torch.no_grad():
        probabilities = pair[0](**inputs).logits[0, -1].softmax(-1)
    ((token,),) = reward.sequences
    found = reward.probability(unit([[view]]), prompt="a red cube")[0].detach()
    assert_close(found, probabilities[token], rtol=1e-4, atol=1e-5)
    assert_close(
        reward(unit([[view]]), prompt="a red cube"),
        reward.probability(unit([[view]]), prompt="a red cube").log(),
    )


def test_an_unlikely_answer_is_no_reason_to_warn(pair, recwarn):
    images = torch.rand(2, 3, 40, 50)
    reward = AnswerProbabilityReward(pair, question="Is it {prompt}?", answer=5)
    values = reward(images, prompt="a cat")
    assert bool((values < 0).all())
    assert not [w for w in recwarn if "of the probability" in str(w.message)]
    both = reward.ask("Is it {prompt}?", answer=[5, 6])
    other = reward.ask("Is it {prompt}?", answer=6)
    total = reward.probability(images, "a cat") + other.probability(images, "a cat")
    assert_close(both.probability(images, "a cat"), total)
    mixed = reward + YesNoReward(reward, question="Is it {prompt}?")
    alone = YesNoReward(reward, question="Is it {prompt}?")(images, prompt="a cat")
    assert_close(mixed(images, prompt="a cat"), values + alone)


def test_where_the_images_stand():
    template = QuestionTemplate("Look for {prompt} in {images}. Is it there?", system="Be strict.")
    assert template.placeholders == ("prompt",)
    asked = template.format(prompt="a cat")
    assert asked.parts == ("Look for a cat in ", ". Is it there?", "Be strict.")
    assert str(asked) == "Be strict.\n\nLook for a cat in [images]. Is it there?"
    assert repr(template).endswith("Is it there?', system='Be strict.')")
    assert template != QuestionTemplate(template.template)
    assert hash(template) != hash(QuestionTemplate(template.template))
    behind = QuestionTemplate("Is it {prompt}?", system="Be strict.").format(prompt="red")
    assert behind.parts == ("", "Is it red?", "Be strict.")
    assert type(QuestionTemplate("Is it {prompt}?").format(prompt="red")) is str
    for again in (copy.deepcopy(asked), pickle.loads(pickle.dumps(asked))):
        assert again == asked
        assert hash(again) == hash(asked)
    assert asked != str(asked)
    assert ChatQuestion("a", "b") != ChatQuestion("a[images]", "b")
    with pytest.raises(ValueError, match="more than once"):
        QuestionTemplate("{images} and {images}")
    for system in ("", 3):
        with pytest.raises(TypeError, match=r"system is .*; expected a text or None"):
            QuestionTemplate("Is it {prompt}?", system=system)
    with pytest.raises(ValueError, match="no placeholder images"):
        template.format(prompt="a cat", images="here")


def test_the_same_words_elsewhere_are_another_question(pair):
    images = torch.rand(1, 3, 40, 50)
    reward = YesNoReward(pair, question="Is it red?")
    before = reward.ask(QuestionTemplate("Is it red?{images}"))
    strict = reward.ask(QuestionTemplate("Is it red?", system="Be strict."))
    marked = reward.ask(QuestionTemplate("{images}Is it red?"))
    values = [float(each(images)) for each in (reward, before, strict)]
    assert len({round(value, 5) for value in values}) == 3
    assert_close(marked(images), reward(images))
    together = (before + strict)(images)
    assert_close(together, before(images) + strict(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["paligemma", "idefics"])
def test_models_without_a_chat_say_so(family):
    reward = YesNoReward(
        tiny_models.build(family), question=QuestionTemplate("Is it {prompt}?", system="Be strict.")
    )
    with pytest.raises(ValueError, match="no chat; expected text behind the images alone"):
        reward(torch.rand(1, 3, 28, 28), prompt="red")
