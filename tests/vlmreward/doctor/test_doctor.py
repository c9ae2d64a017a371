"""Every family passes the examination; a planted fault is found, and by the right check."""

import copy
import dataclasses
import json

import pytest
import tiny_models
import torch
from transformers import Qwen2VLImageProcessor

from vlmreward import YesNoReward, doctor
from vlmreward.doctor.cost import forecast, measured_step
from vlmreward.doctor.float64 import Float64Throughout
from vlmreward.doctor.gradients import slopes
from vlmreward.doctor.nnls import fitted
from vlmreward.doctor.probe import Probe

PIXEL_MODES = {"processor, float", "processor, uint8", "flat images"}
WHOLE = {"whole reward"}  # compares everything, so whatever is wrong before it is wrong in it
BATCH = {"batch"}  # of mixed lengths, so padding is part of it


def by_status(found, status):
    return {finding.name for finding in found if finding.status == status}


def failed(reward, *, quick=True, **options):
    return by_status(doctor.run_checks(reward, quick=quick, **options), "FAIL")


@pytest.fixture
def reward(family_pair):
    """A reward of its own on the shared model of a family: faults are planted in it."""
    return lambda family, kind=YesNoReward, **options: kind(family_pair(family), **options)


# --- what is right passes


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_every_family_passes(family, family_folder):
    reward = YesNoReward(family_folder(family))
    found = doctor.run_checks(reward)
    assert [finding.name for finding in found] == [check.check_name for check in doctor.CHECKS]
    # random weights put no probability on Yes and No; with small sliding windows the end of a long
    # question is too many of them away from the images
    text = reward.backbone.vlm.config.get_text_config()
    short = (getattr(text, "sliding_window", None) or 4096) < 64
    expected = {"answer mass", "gradient"} if short else {"answer mass"}
    assert by_status(found, "WARN") == expected
    assert by_status(found, "OK") == {f.name for f in found} - expected


def test_a_trained_model_has_nothing_to_look_at():
    found = doctor.run_checks(YesNoReward("builtin/blocks"), prompt="a red sphere")
    assert by_status(found, "OK") == {finding.name for finding in found}
    (mass,) = [finding for finding in found if finding.name == "answer mass"]
    assert mass.metrics["on_answers"] > 0.99


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_pass(family_pair, dtype):
    model, processor = family_pair("qwen2_5_vl")
    reward = YesNoReward((copy.deepcopy(model), processor), dtype=dtype)
    assert not failed(reward, quick=False)


@pytest.mark.parametrize("pixel_mode", ["clamp", "uint8"])
def test_other_modes_pass(reward, pixel_mode):
    assert not failed(reward("idefics3", pixel_mode=pixel_mode), quick=False)


def test_a_pair_is_enough_and_quick_leaves_out_what_is_long(family_pair):
    found = doctor.run_checks(family_pair("llava"), quick=True)
    assert by_status(found, "FAIL") == set()
    left_out = {check.check_name for check in doctor.CHECKS} - {f.name for f in found}
    assert left_out == {"finite differences", "forecast"}


def test_other_words_and_a_prompt_without_fields(reward):
    words = ("yes", "no")
    mine = reward("qwen2_5_vl", question="Is it red? Answer yes or no.", answers=words)
    assert not failed(mine, answers=words)


def test_variants_of_an_answer_pass(reward):
    assert not failed(reward("llava", answers=(["Yes", " Yes", "yes"], [" No"])))


def test_left_padding_done_right_passes(reward):
    mine = reward("qwen2_5_vl")
    plant_layout(mine, left(read_at_end=True))
    assert not failed(mine)


def test_a_processor_without_a_counterpart(family_pair):
    class Changed(Qwen2VLImageProcessor):
        pass

    model, processor = family_pair("qwen2_5_vl")
    other = copy.copy(processor)
    other.image_processor = Changed(**processor.image_processor.to_dict())
    with pytest.warns(UserWarning, match="Changed has no counterpart"):
        found = doctor.run_checks((model, other))
    assert by_status(found, "FAIL") == set()
    assert by_status(found, "SKIP") == {"processor, uint8"}


def test_leaves_the_reward_as_it_was(family_pair):
    model, processor = family_pair("qwen2_5_vl")
    mine = YesNoReward((model, processor), pixel_mode="clamp")
    before, side = dict(vars(mine.backbone)), processor.tokenizer.padding_side
    attention = model.model.visual.config._attn_implementation
    doctor.run_checks(mine, quick=True)
    assert vars(mine.backbone)["image_processor"] is before["image_processor"]
    assert mine.backbone.image_processor.pixel_mode == "clamp"
    assert processor.tokenizer.padding_side == side
    assert not model.base_model._forward_pre_hooks
    assert model.model.visual.config._attn_implementation == attention != "sdpa"
    assert next(model.parameters()).dtype == torch.float32


# --- planted faults


def other_mean(reward):
    """ImageNet's mean and deviation in the place of the checkpoint's."""
    images = reward.backbone.image_processor
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images.constants = dataclasses.replace(
        images.constants,
        scale=tuple(1 / s for s in std),
        bias=tuple(-m / s for m, s in zip(mean, std)),
    )


@pytest.mark.parametrize("family", ["qwen2_5_vl", "paligemma", "idefics3"])
def test_wrong_mean(reward, family):
    mine = reward(family)
    other_mean(mine)
    assert failed(mine) == PIXEL_MODES | WHOLE


def test_another_size_is_named(reward):
    mine = reward("qwen2_vl")
    mine.backbone.image_processor.max_pixels //= 2
    found = {f.name: f for f in doctor.run_checks(mine, quick=True)}
    assert found["processor, float"].status == found["processor, uint8"].status == "FAIL"
    assert "224x224: pixel_values (36, 1176), HF's (100, 1176)" in found["processor, float"].message


def plant_layout(reward, change):
    """`change(layout, lengths)` behind the reward's own layouts."""
    family, assemble = reward.backbone.family, reward.backbone.family.collate

    def changed(rows, counts, device):
        layout = assemble(rows, counts, device)
        return change(layout, [len(row) for row in rows])

    family.collate = changed


def without(*keys):
    def change(layout, lengths):
        kept = {key: value for key, value in layout.inputs.items() if key not in keys}
        return dataclasses.replace(layout, inputs=kept)

    return change


def test_missing_token_types_of_qwen(reward):
    """Nothing else fails: the positions are passed."""
    mine = reward("qwen2_5_vl")
    plant_layout(mine, without("mm_token_type_ids"))
    assert failed(mine) == {"token types"}


SHOWN_BY = {
    # transformers drops the causal mask of its prefix too, as long as nothing is padded
    "paligemma": {"padding"} | BATCH,
    "paligemma2": WHOLE,
}
"""Further checks that fail. In two layers of small sliding windows there is none: no image token
that sees others reaches the end."""


@pytest.mark.parametrize("family", tiny_models.having("accepts_image_features"))
def test_missing_token_types(reward, family):
    mine = reward(family)
    plant_layout(mine, without("token_type_ids"))
    assert failed(mine) == {"token types"} | SHOWN_BY.get(family, set())


def test_positions_in_one_dimension(reward):
    mine = reward("qwen2_5_vl")
    plant_layout(mine, without("mm_token_type_ids", "position_ids"))
    assert failed(mine) == {"token types", "positions"} | WHOLE


class Detached(YesNoReward):
    """Sees the right pixels, and stops their gradient."""

    def forward(self, images, prompt=None, **placeholders):
        stopped = [[view.detach() for view in query] for query in images]
        return super().forward(stopped, prompt, **placeholders)


@pytest.mark.parametrize("family", ["qwen2_5_vl", *tiny_models.having("accepts_image_features")])
def test_detached_gradient(reward, family):
    """Checks that need a gradient are skipped."""
    found = doctor.run_checks(reward(family, Detached))
    assert by_status(found, "FAIL") == {"gradient"}
    assert by_status(found, "SKIP") == {"finite differences", "time and memory", "forecast"}


class FirstViewOnly(YesNoReward):
    """Stops the gradient of all views but a query's first."""

    def forward(self, images, prompt=None, **placeholders):
        stopped = [[v if i == 0 else v.detach() for i, v in enumerate(q)] for q in images]
        return super().forward(stopped, prompt, **placeholders)


def test_a_detached_view(reward):
    """A view without a gradient has wrong slopes, too."""
    found = {f.name: f for f in doctor.run_checks(reward("qwen2_5_vl", FirstViewOnly))}
    assert by_status(found.values(), "FAIL") == {"gradient", "finite differences"}
    assert "at 2 of 3 views" in found["gradient"].message


class Doubled(YesNoReward):
    """Right values, twice the gradient."""

    def forward(self, images, prompt=None, **placeholders):
        value = super().forward(images, prompt, **placeholders)
        return value + (value - value.detach())


def test_a_wrong_gradient(reward):
    assert failed(reward("llava", Doubled), quick=False) == {"finite differences"}


def take(reward, positive, negative):
    tokens = [reward.backbone.tokenize(word) for word in (positive, negative)]
    assert [len(ids) for ids in tokens] == [1, 1]
    reward.answers = dataclasses.replace(
        reward.answers, positive=tuple(tokens[0]), negative=tuple(tokens[1])
    )


@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        ("No", "Yes"),
        ("Yes", " Answer"),
        # as a tokenizer looks them up that puts a space before the first word of a prompt
        (" Yes", " No"),
    ],
    ids=["swapped", "another word", "without the prompt"],
)
def test_wrong_answer_tokens(reward, positive, negative):
    mine = reward("qwen2_5_vl")
    take(mine, positive, negative)
    assert failed(mine) == {"answer tokens"}


def left(read_at_end):
    """Padding on the left, and the answer read at the end or where it was."""

    def change(layout, lengths):
        inputs, width = dict(layout.inputs), max(lengths)
        for key in ("input_ids", "mm_token_type_ids", "position_ids"):
            if key in inputs:
                dim = 1 if key == "position_ids" else 0
                rows = inputs[key].unbind(dim)
                rolled = [row.roll(width - n, -1) for row, n in zip(rows, lengths)]
                inputs[key] = torch.stack(rolled, dim)
        if not read_at_end:
            return dataclasses.replace(layout, inputs=inputs)
        mask = [torch.arange(width) >= width - n for n in lengths]
        inputs["attention_mask"] = torch.stack(mask).long()
        last = torch.full_like(layout.last_token_index, width - 1)
        return dataclasses.replace(layout, inputs=inputs, last_token_index=last)

    return change


def read_at_the_end_of_right_padding(layout, lengths):
    return dataclasses.replace(
        layout, last_token_index=torch.full_like(layout.last_token_index, max(lengths) - 1)
    )


@pytest.mark.parametrize("family", ["qwen2_5_vl", "idefics3"])
@pytest.mark.parametrize(
    "change", [left(read_at_end=False), read_at_the_end_of_right_padding], ids=["left", "right"]
)
def test_padding_mixed_up(reward, family, change):
    mine = reward(family)
    plant_layout(mine, change)
    found = {f.name: f for f in doctor.run_checks(mine, quick=True)}
    assert by_status(found.values(), "FAIL") == {"padding"} | BATCH
    assert "query 0 is read at token" in found["padding"].message


def test_padding_mixed_up_under_a_prompt_without_fields(reward):
    mine = reward("qwen2_5_vl", question="Is it red? Answer Yes or No.")
    plant_layout(mine, read_at_the_end_of_right_padding)
    assert failed(mine) == {"padding"} | BATCH


class NotANumber(YesNoReward):
    def forward(self, images, prompt=None, **placeholders):
        return super().forward(images, prompt, **placeholders) * float("nan")


def test_nan_is_not_small(reward):
    expected = {"flat images", "padding", "gradient", "finite differences"} | WHOLE | BATCH
    assert failed(reward("llava", NotANumber), quick=False) == expected


class FirstImage(YesNoReward):
    """Asks every prompt about the images of the first query."""

    def forward(self, images, prompt=None, **placeholders):
        return super().forward([images[0]] * len(images), prompt, **placeholders)


def test_every_text_against_the_first_image(reward):
    """The gradient is right: these values do not depend on the other images."""
    found = doctor.run_checks(reward("qwen2_5_vl", FirstImage))
    assert by_status(found, "FAIL") == BATCH
    assert by_status(found, "WARN") == {"answer mass", "gradient"}


def test_another_prompt(reward):
    mine = reward("llava")
    asked = mine.backbone.family.call_processor
    mine.backbone.family.call_processor = lambda prompt, sizes: asked(f"Hello. {prompt}", sizes)
    found = doctor.run_checks(mine)
    assert by_status(found, "FAIL") == {"prompt"} | WHOLE
    assert by_status(found, "SKIP") == {"token types", "positions"}


def test_an_error_is_a_finding_and_the_others_go_on(reward):
    mine = reward("llava")

    def broken(pixels, layout):
        raise RuntimeError("no such key\nin the model")

    mine.backbone.family.image_inputs = broken
    found = {f.name: f for f in doctor.run_checks(mine, quick=True)}
    assert found["processor, float"].status == "OK"
    assert found["batch"].status == "FAIL"
    assert found["batch"].message == "RuntimeError: no such key"


# --- the parts


def test_refuses_questions_that_transformers_cannot_be_asked(reward):
    mine = reward("llava")
    for other in (mine.ask("Is it {prompt}?", answers=("a cat", "a dog")), per_view(mine)):
        with pytest.raises(ValueError, match="expected answers of one token and all views"):
            doctor.run_checks(other)


def per_view(reward):
    return YesNoReward(reward, per_view="mean")


def test_refuses_what_is_no_reward():
    with pytest.raises(TypeError, match=r"function; expected a YesNoReward.*examine the one"):
        doctor.run_checks(lambda images: images.sum())


@pytest.mark.parametrize("kind", [YesNoReward, Doubled])
def test_slopes_in_single_precision(reward, kind):
    mine = reward("qwen2_vl", kind)
    finding = slopes(mine, Probe(mine, prompt="a cat", words=("Yes", "No")))
    assert finding.metrics["precision"] == "float32"
    assert finding.status == ("OK" if kind is YesNoReward else "FAIL")


def test_without_memory_for_a_copy(reward, monkeypatch):
    monkeypatch.setattr("vlmreward.doctor.gradients._free_memory", lambda device: 1000)
    found = {f.name: f for f in doctor.run_checks(reward("llava"))}
    assert found["finite differences"].status == "SKIP"
    assert "not enough memory for a copy" in found["finite differences"].message


def test_double_precision_throughout():
    x = torch.randn(3, dtype=torch.float64)
    with Float64Throughout():
        results = [
            x.float(),
            x.to(torch.float32),
            x.to(dtype=torch.float32),
            torch.softmax(x, -1, dtype=torch.float32),
            torch.nn.functional.softmax(x, dim=-1, dtype=torch.float32),
            torch.arange(3, dtype=torch.float32),
        ]
    assert {result.dtype for result in results} == {torch.float64}
    assert torch.equal(results[0], x)
    assert x.float().dtype == torch.float32


def test_fit_of_costs():
    features = [(1, 2), (2, 1), (3, 5), (4, 4), (7, 1)]
    exact, off = fitted(features, [0.5 + 2 * a + 3 * b for a, b in features])
    assert exact((10, 20)) == pytest.approx(80.5)
    assert off < 1e-9
    # a plain fit would let the cost fall with the second feature
    bounded, off = fitted(features, [0.5 + 2 * a - 0.05 * b for a, b in features])
    assert bounded((3, 1000)) >= bounded((3, 5))
    assert 0 < off < 0.2


def test_forecast_of_memory(reward):
    """Twice as many views as were measured, and measured now."""
    mine = reward("qwen2_5_vl")
    subject = Probe(mine, prompt="a cat", words=("Yes", "No"))
    expected = forecast(subject).metrics["forecast"]["8x256"]["bytes"]
    # matrix products copy a little more of one view than of each of several
    assert measured_step(subject, 8, 256).bytes == pytest.approx(expected, rel=0.05)


def test_findings_as_text_and_json(reward):
    mine = reward("llava")
    take(mine, "No", "Yes")
    found = doctor.run_checks(mine)
    (wrong,) = [f for f in found if f.status == "FAIL"]
    first, *rest = doctor.line(wrong).splitlines()
    assert first.startswith("FAIL  answer tokens")
    assert "'No'" in first
    assert rest[0].strip().startswith("-> pass answers=")
    assert doctor.summary(found).startswith("13 of 15 checks passed, 1 failed, 1 to be looked at")
    (table,) = [f for f in found if f.name == "forecast"]
    assert len(doctor.line(table).splitlines()) == 6
    assert json.loads(json.dumps([f.as_dict() for f in found]))[0]["name"] == found[0].name
