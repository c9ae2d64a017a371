"""Quantized models, models placed by device_map, and questions about each view."""

import copy
import sys

import pytest
import torch
import transformers as hf
from margins import QUESTION, hf_margin, levels, unit

from vlmreward import CompositeReward, RatingReward, YesNoReward


@pytest.fixture(params=["qwen2_5_vl", "idefics3"])
def folder(request, family_folder):
    return family_folder(request.param)


linux = pytest.mark.skipif(sys.platform != "linux", reason="bitsandbytes is installed on Linux")


@linux
def test_quantized_models_pass_through(folder):
    config = hf.BitsAndBytesConfig(load_in_8bit=True)
    reward = YesNoReward(
        folder,
        question=QUESTION,
        pixel_mode="uint8",
        device="cpu",
        dtype=torch.float32,
        model_kwargs={"quantization_config": config},
    )
    vlm = reward.backbone.vlm
    assert "bitsandbytes" in str({type(m).__module__ for m in vlm.modules()})
    own = hf.AutoModelForImageTextToText.from_pretrained(
        folder, quantization_config=config, dtype=torch.float32
    )
    queries = [levels((40, 50))]
    expected = hf_margin((own, reward.backbone.processor), queries, ["a cat"], reward.answers)
    # activations are rounded to 8 bits too, so that a last digit can move by a step
    torch.testing.assert_close(
        reward(unit(queries), prompt="a cat").detach(), expected, atol=0.05, rtol=0
    )
    x = (queries[0][0] / 255)[None].requires_grad_()
    (gradient,) = torch.autograd.grad(reward(x, prompt="a cat").sum(), x)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    with pytest.raises(ValueError, match="quantized or spread over devices; expected neither"):
        YesNoReward((own, reward.backbone.processor), dtype=torch.bfloat16)


@linux
def test_gradient_through_four_bits(folder):
    config = hf.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    options = {"device": "cpu", "dtype": torch.float32}
    reward = YesNoReward(folder, model_kwargs={"quantization_config": config}, **options)
    g = torch.Generator().manual_seed(0)
    x = (0.1 + 0.8 * torch.rand(1, 3, 40, 50, generator=g)).requires_grad_()
    value = reward(x, prompt="a cat")
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert (value - YesNoReward(folder, **options)(x, prompt="a cat")).abs() > 1e-3
    step = 1e-3 * gradient / gradient.abs().max()
    # with a graph, because bitsandbytes has another kernel without, not for layers this small
    up, down = (
        float(reward((x + s).detach().requires_grad_(), prompt="a cat").detach())
        for s in (step, -step)
    )
    assert up - down == pytest.approx(2 * float((gradient * step).sum()), rel=0.01)


def test_a_device_map_passes_through(folder):
    queries = unit([levels((40, 50))])
    placed = YesNoReward(folder, dtype=torch.float32, model_kwargs={"device_map": {"": "cpu"}})
    plain = YesNoReward(folder, device="cpu")
    torch.testing.assert_close(placed(queries, prompt="a cat"), plain(queries, prompt="a cat"))


def test_parts_on_disk(family_folder, tmp_path):
    """Hooks that bring each part where it is computed, as between several GPUs."""
    folder = family_folder("qwen2_5_vl")
    layout = {
        "model.visual": "cpu",
        "model.language_model": "cpu",
        "lm_head": "disk",
    }
    placed = YesNoReward(
        folder,
        dtype=torch.float32,
        model_kwargs={"device_map": layout, "offload_folder": str(tmp_path)},
    )
    queries = unit([levels((40, 50))])
    plain = YesNoReward(folder, device="cpu")
    torch.testing.assert_close(placed(queries, prompt="a cat"), plain(queries, prompt="a cat"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cpu", "model_kwargs": {"device_map": "auto"}}, "both given; expected one"),
        ({"model_kwargs": {"dtype": "auto"}}, "expected it as the argument dtype="),
    ],
)
def test_options_that_do_not_go_together(folder, options, message):
    with pytest.raises(ValueError, match=message):
        YesNoReward(folder, **options)


def test_options_for_a_loaded_model(family_pair):
    with pytest.raises(ValueError, match="for a model that is loaded"):
        YesNoReward(family_pair("llava"), model_kwargs={"revision": "main"})
    reward = YesNoReward(family_pair("llava"))
    with pytest.raises(ValueError, match="model_kwargs or pixel_mode is given for another"):
        YesNoReward(reward.backbone, model_kwargs={"revision": "main"})


@pytest.mark.parametrize("family", ["idefics", "qwen2_5_vl", "paligemma"])
def test_a_question_about_each_view(family, family_pair):
    pair = family_pair(family)
    together = YesNoReward((copy.deepcopy(pair[0]), pair[1]), question=QUESTION)
    mean, total = (
        YesNoReward(together.backbone, question=QUESTION, per_view=how) for how in ("mean", "sum")
    )
    queries = unit([levels((40, 50), (30, 60)), levels((33, 33))])
    each = [
        torch.cat([together([[view]], prompt=prompt) for view in views])
        for views, prompt in zip(queries, ["a cat", "a dog"])
    ]
    prompts = ["a cat", "a dog"]
    for reward, over in ((mean, torch.mean), (total, torch.sum)):
        expected = torch.stack([over(values) for values in each])
        torch.testing.assert_close(reward(queries, prompt=prompts), expected, atol=1e-5, rtol=0)
    assert (mean(queries, prompt=prompts) - together(queries, prompt=prompts)).abs()[0] > 1e-3
    torch.testing.assert_close(
        mean.answer_mass(queries, prompt=prompts)[1:],
        together.answer_mass(queries[1:], prompt="a dog"),
    )
    assert len(mean.top_answers(queries, prompt=prompts, k=2)) == 3
    assert mean.ask("A {prompt}?").per_view == "mean"
    both = CompositeReward({"together": together, "mean": mean, "total": total})
    found = both.per_reward(queries, prompt=prompts)
    torch.testing.assert_close(found["mean"], mean(queries, prompt=prompts))
    torch.testing.assert_close(found["together"], together(queries, prompt=prompts))


def test_per_view_of_a_scale_and_what_is_refused(family_pair):
    pair = family_pair("llava")
    queries = unit([levels((40, 50), (30, 60))])
    rating = RatingReward(pair, per_view="mean")
    each = rating([[view] for view in queries[0]], prompt="a cat")
    torch.testing.assert_close(rating(queries, prompt="a cat"), each.mean()[None])
    with pytest.raises(ValueError, match=r"per_view is 'max'; expected one of \(None, 'mean'"):
        YesNoReward(pair, per_view="max")
