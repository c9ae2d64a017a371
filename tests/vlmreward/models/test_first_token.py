"""The first token: there once, whether the chat template writes it or the tokenizer adds it."""

import pytest
import tiny_models
import torch
from margins import PROMPTS, QUESTION, levels, unit
from tokenizers.processors import TemplateProcessing
from torchvision.transforms.functional import to_pil_image

from vlmreward import YesNoReward, doctor

QUERIES = [levels((40, 50), (30, 60)), levels((33, 33), seed=1)]


def pair_with(family, *, written, added):
    """A pair whose template writes the first token, whose tokenizer adds it, or both."""
    model, processor = tiny_models.build(family)
    tokens = processor.tokenizer
    tokens.bos_token = "<|endoftext|>"
    if added:
        tokens.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{tokens.bos_token} $A",
            special_tokens=[(tokens.bos_token, tokens.bos_token_id)],
        )
    if written:
        processor.chat_template = "{{ bos_token }}" + processor.chat_template
    return model, processor


def by_transformers(processor, views, question):
    """The documented way, in one call."""
    content = [{"type": "image", "image": to_pil_image(view)} for view in views]
    return processor.apply_chat_template(
        [{"role": "user", "content": [*content, {"type": "text", "text": question}]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


@pytest.fixture(params=tiny_models.CHAT)
def family(request):
    return request.param


@pytest.fixture(params=["written", "added", "both"])
def pair(family, request):
    return pair_with(family, written=request.param != "added", added=request.param != "written")


def test_tokens_types_and_margin_are_those_of_transformers(pair):
    model, processor = pair
    reward = YesNoReward(pair, question=QUESTION, pixel_mode="uint8")
    first = processor.tokenizer.bos_token_id
    for views, prompt in zip(QUERIES, PROMPTS):
        question = QUESTION.format(prompt=prompt)
        expected = by_transformers(processor, views, question)
        layout = reward.backbone.layout([question], [[tuple(v.shape[-2:]) for v in views]])
        ids = layout.inputs["input_ids"]
        assert torch.equal(ids, expected["input_ids"])
        assert ids[0, 0] == first
        assert ids[0, 1] != first
        for key in layout.inputs.keys() & expected.keys():
            assert torch.equal(layout.inputs[key], expected[key]), key
        with torch.no_grad():
            z = model(**expected).logits[0, -1]
        (yes,), (no,) = reward.answers.positive, reward.answers.negative
        value = reward(unit([views]), prompt=prompt).detach()
        torch.testing.assert_close(value, (z[yes] - z[no])[None], atol=1e-4, rtol=0)


def test_positions_begin_at_the_one_that_is_there():
    pair = pair_with("qwen2_5_vl", written=True, added=True)
    reward = YesNoReward(pair, question=QUESTION)
    layout = reward.backbone.layout([PROMPTS[0]], [[(40, 50)]])
    expected = by_transformers(pair[1], levels((40, 50)), PROMPTS[0])
    positions, _ = pair[0].model.get_rope_index(
        expected["input_ids"],
        mm_token_type_ids=expected["mm_token_type_ids"],
        image_grid_thw=expected["image_grid_thw"],
    )
    assert torch.equal(layout.inputs["position_ids"], positions)


def test_answers_are_looked_up_where_they_were(family):
    plain = YesNoReward(tiny_models.build(family), question=QUESTION).answers
    for written, added in ((True, False), (False, True), (True, True)):
        pair = pair_with(family, written=written, added=added)
        assert YesNoReward(pair, question=QUESTION).answers == plain


@pytest.mark.parametrize("family", ["llava", tiny_models.having("accepts_image_features")[-1]])
def test_doctor_agrees_and_sees_a_second_one(family):
    pair = pair_with(family, written=True, added=True)
    reward = YesNoReward(pair, question=QUESTION)
    found = {f.name: f for f in doctor.run_checks(reward, quick=True)}
    assert [f for f in found.values() if f.status == "FAIL"] == []
    family, tokens = reward.backbone.family, pair[1].tokenizer

    def twice(prompt, sizes):
        made = dict(type(family).call_processor(family, prompt, sizes))
        length = made["input_ids"].shape
        for key, value in made.items():
            if isinstance(value, torch.Tensor) and value.shape == length:
                more = tokens.bos_token_id if key == "input_ids" else value[0, 0]
                made[key] = torch.cat([torch.full_like(value[:, :1], more), value], dim=1)
        return made

    family.call_processor = twice
    planted = YesNoReward(reward.backbone, question=f"{QUESTION} ")
    found = {f.name: f for f in doctor.run_checks(planted, quick=True)}
    assert found["prompt"].status == "FAIL"
    assert "input_ids" in found["prompt"].message
