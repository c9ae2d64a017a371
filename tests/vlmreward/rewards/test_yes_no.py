"""The reward against Hugging Face's own processor and full forward pass."""

import copy
import subprocess
import sys

import pytest
import tiny_models
import torch
from float64_models import float64_throughout

from vlmreward import QuestionTemplate, YesNoReward
from vlmreward.models.frozen_vlm import FrozenVLM

QUESTION = "Does this image show {prompt}? Answer Yes or No."
PROMPTS = ["a cat", "a red cube on top of a blue sphere", "no dog"]


@pytest.fixture(scope="module")
def reward(pair):
    model, processor = pair
    return YesNoReward((copy.deepcopy(model), processor), question=QUESTION)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def question(processor, text, images=1):
    content = [{"type": "image"}] * images + [{"type": "text", "text": text}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )


def hf_margin(pair, queries, questions, yes="Yes", no="No"):
    """logits[yes] - logits[no] by transformers alone: processor(text, images) and full logits."""
    model, processor = pair
    questions = [question(processor, q, len(views)) for views, q in zip(queries, questions)]
    inputs = processor(
        text=questions,
        images=[view for views in queries for view in views],
        padding=True,
        return_tensors="pt",
        do_rescale=False,
    )
    with torch.no_grad():
        logits = model(**inputs).logits
    mask = inputs["attention_mask"]
    last = mask.shape[1] - 1 - mask.flip(1).argmax(1)  # right for either padding side
    z = logits[torch.arange(len(last)), last]
    token = processor.tokenizer.convert_tokens_to_ids
    return z[:, token(yes)] - z[:, token(no)]


def questions(prompts):
    return [QUESTION.format(prompt=prompt) for prompt in prompts]


def close(ours, theirs, atol=1e-4):
    torch.testing.assert_close(ours.detach(), theirs, atol=atol, rtol=0)


def test_single_equals_hf(pair, reward):
    x = noise(1, 3, 70, 95)
    close(reward(x, prompt=PROMPTS[0]), hf_margin(pair, [x], questions(PROMPTS[:1])))


@pytest.mark.parametrize("side", ["left", "right"])
def test_batch_of_mixed_text_lengths_equals_hf(pair, side):
    model = copy.deepcopy(pair[0])
    _, processor = tiny_models.build(model.config.model_type)
    processor.tokenizer.padding_side = side
    x = noise(3, 3, 70, 95)
    expected = hf_margin((model, processor), [[i] for i in x], questions(PROMPTS))
    assert expected.std() > 0.01  # or the comparison would say nothing
    close(YesNoReward((model, processor), question=QUESTION)(x, prompt=PROMPTS), expected)


def test_views_equal_hf(pair, reward):
    x = noise(2, 4, 3, 60, 60)
    close(reward(x, prompt=PROMPTS[:2]), hf_margin(pair, list(x), questions(PROMPTS[:2])))


def test_lists_of_different_sizes_equal_hf(pair, reward):
    images = [noise(3, 60, 100), noise(3, 130, 57), noise(3, 60, 100, seed=1)]
    close(
        reward(images, prompt=PROMPTS),
        hf_margin(pair, [[i] for i in images], questions(PROMPTS)),
    )
    queries = [[images[0], images[1]], [images[2]]]
    close(reward(queries, prompt=PROMPTS[:2]), hf_margin(pair, queries, questions(PROMPTS[:2])))


def test_8_bit_path_equals_hf_on_8_bit_images(pair):
    levels = (noise(2, 3, 100, 83) * 256).floor().to(torch.uint8)
    model, processor = copy.deepcopy(pair[0]), pair[1]
    ours = YesNoReward((model, processor), question=QUESTION, pixel_mode="uint8")
    inputs = processor(
        text=[question(processor, q) for q in questions(PROMPTS[:2])],
        images=list(levels),
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        logits = pair[0](**inputs).logits
    last = inputs["attention_mask"].sum(1) - 1
    z = logits[torch.arange(2), last]
    (yes,), (no,) = ours.answers.positive, ours.answers.negative
    close(ours(levels.float() / 255, prompt=PROMPTS[:2]), z[:, yes] - z[:, no])


def test_pixel_gradients_equal_central_differences(pair, monkeypatch):
    model = float64_throughout(copy.deepcopy(pair[0]).double(), monkeypatch)
    reward = YesNoReward((model, pair[1]), question=QUESTION)
    x = noise(1, 2, 3, 50, 61, dtype=torch.float64).mul_(0.8).add_(0.1).requires_grad_()
    r = reward(x, prompt="a cat")
    assert r.dtype == torch.float64
    r.sum().backward()
    h = 1e-6

    def difference(v):
        with torch.no_grad():
            ends = [reward(x + sign * h * v, prompt="a cat") for sign in (1, -1)]
        return (ends[0] - ends[1]) / (2 * h)

    generator = torch.Generator().manual_seed(5)
    for _ in range(4):
        v = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        torch.testing.assert_close((x.grad * v).sum()[None], difference(v), rtol=1e-6, atol=1e-8)
    for pixel in ((0, 0, 0, 0, 0), (0, 1, 2, 20, 30)):
        e = torch.zeros_like(x)
        e[pixel] = 1
        torch.testing.assert_close(x.grad[pixel][None], difference(e), rtol=1e-5, atol=1e-9)


def test_one_value_a_query_whatever_the_others(reward):
    """Not one scalar for a batch, and not every prompt against the first image."""
    x = noise(3, 3, 64, 80)
    together = reward(x, prompt=PROMPTS)
    assert together.shape == (3,)
    alone = torch.cat([reward(x[i : i + 1], prompt=PROMPTS[i]) for i in range(3)])
    close(together, alone.detach(), atol=1e-5)
    order = [2, 0, 1]
    close(reward(x[order], prompt=[PROMPTS[i] for i in order]), together[order].detach(), atol=1e-5)
    assert together.unique().numel() == 3


def test_gradients_stay_in_their_query(reward):
    x = noise(3, 2, 3, 64, 64).requires_grad_()
    reward(x, prompt=PROMPTS)[1].backward()
    reached = x.grad.abs().sum((2, 3, 4)) > 0
    assert reached.tolist() == [[False, False], [True, True], [False, False]]


def test_every_view_counts_and_two_views_are_not_a_video(pair, reward):
    x = noise(1, 2, 3, 64, 64)
    r = reward(x, prompt="a cat")
    for view in range(2):
        changed = x.clone()
        changed[0, view] = 1 - changed[0, view]
        assert (reward(changed, prompt="a cat") - r).abs() > 1e-3
    layout = reward.backbone.layout(questions(["a cat"]), [[(64, 64)] * 2])
    image = pair[1].image_token_id
    assert layout.image_grid_thw.tolist() == [[1, 4, 4]] * 2
    assert (layout.inputs["input_ids"] == image).sum() == 8


def test_positions_are_three_dimensional(reward):
    """Without token types transformers would silently count along the sequence."""
    layout = reward.backbone.layout(questions(["a cat"]), [[(64, 64)]])
    assert layout.inputs["mm_token_type_ids"].sum() == 4
    time, height, width = layout.inputs["position_ids"][:, 0]
    assert not torch.equal(height, width)
    assert not torch.equal(time, torch.arange(len(time)))


@pytest.mark.parametrize("mode", ["float", "clamp", "uint8"])
def test_gradients_arrive_in_every_mode(pair, mode):
    reward = YesNoReward((copy.deepcopy(pair[0]), pair[1]), pixel_mode=mode)
    x = (0.25 + 0.5 * noise(2, 3, 64, 70)).requires_grad_()
    reward(x, prompt="a cat").sum().backward()
    assert (x.grad.flatten(1).norm(dim=1) > 1e-3).all()


def test_layouts_are_asked_once(reward, monkeypatch):
    asked = []
    ask = FrozenVLM._encode

    def counting(self, prompt, sizes):
        asked.append(prompt)
        return ask(self, prompt, sizes)

    monkeypatch.setattr(FrozenVLM, "_encode", counting)
    x = noise(2, 3, 58, 71)
    for prompt in (["a new cat", "a new dog"], ["a new dog", "a new cat"], "a new cat"):
        reward(x, prompt=prompt)
    assert len(asked) == 2
    reward(noise(2, 3, 58, 72), prompt="a new cat")
    assert len(asked) == 3


def test_works_under_inference_mode_and_then_with_gradients(reward):
    x = noise(1, 3, 59, 73)
    with torch.inference_mode():
        before = reward(x, prompt="a late cat")
    x.requires_grad_()
    after = reward(x, prompt="a late cat")
    after.sum().backward()
    close(after, before.clone())
    assert x.grad.abs().sum() > 0


def test_frozen_in_eval_mode_and_gradients_only_at_the_pixels(reward):
    reward.train()
    assert not any(module.training for module in reward.backbone.modules())
    x = noise(1, 3, 64, 64).requires_grad_()
    before = x.detach().clone()
    reward(x, prompt="a cat").sum().backward()
    assert torch.equal(x, before)
    assert all(p.grad is None and not p.requires_grad for p in reward.parameters())


def test_an_outer_autocast_changes_nothing(reward):
    x = noise(1, 3, 64, 64)
    expected = reward(x, prompt="a cat")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = reward(x, prompt="a cat")
    assert got.dtype == torch.float32
    close(got, expected.detach(), atol=1e-6)


def test_half_precision_model_gives_a_float32_margin(pair):
    reward = YesNoReward((copy.deepcopy(pair[0]), pair[1]), dtype=torch.bfloat16)
    x = noise(2, 3, 64, 64).to(torch.bfloat16).requires_grad_()
    r = reward(x, prompt=PROMPTS[:2])
    assert r.dtype == torch.float32
    # bfloat16 logits of this size would all be multiples of 2**-8
    assert (r.detach() * 256).frac().abs().max() > 0
    r.sum().backward()
    assert x.grad.dtype == torch.bfloat16
    assert x.grad.isfinite().all()


def test_probability_and_answers(reward):
    x = noise(2, 3, 64, 64)
    r = reward(x, prompt=PROMPTS[:2])
    close(reward.probability(x, prompt=PROMPTS[:2]), r.detach().sigmoid(), atol=1e-6)
    assert reward.answers.positive_tokens == ("Yes",)
    assert reward.answers.negative_tokens == ("No",)


def test_other_answers_and_variants(pair):
    model = copy.deepcopy(pair[0])
    x = noise(1, 3, 64, 64)
    lower = YesNoReward((model, pair[1]), question=QUESTION, answers=("yes", "no"))
    close(
        lower(x, prompt="a cat"),
        hf_margin(pair, [x], questions(["a cat"]), yes="yes", no="no"),
    )
    several = YesNoReward(
        (model, pair[1]), question=QUESTION, answers=(["Yes", "yes"], ["No", "no"])
    )
    ids = several.answers.ids
    layout = several.backbone.layout(questions(["a cat"]), [[(64, 64)]])
    z = several.backbone.answer_logits(x, layout, ids)[0].exp()
    close(several(x, prompt="a cat")[0], ((z[0] + z[1]) / (z[2] + z[3])).log(), atol=1e-5)
    with pytest.raises(ValueError, match="'No way' begins with the answer 'No'"):
        YesNoReward((model, pair[1]), answers=("No way", "No"))


def test_softcapped_logits_are_respected(pair):
    model = copy.deepcopy(pair[0])
    reward = YesNoReward((model, pair[1]), question=QUESTION)
    x = noise(1, 3, 64, 64)
    layout = reward.backbone.layout(questions(["a cat"]), [[(64, 64)]])
    z = reward.backbone.answer_logits(x, layout, reward.answers.ids)[0]
    model.config.get_text_config().final_logit_softcapping = 0.5
    capped = 0.5 * torch.tanh(z / 0.5)
    close(reward(x, prompt="a cat")[0], capped[0] - capped[1], atol=1e-5)


def test_loads_from_a_folder(pair, folder):
    reward = YesNoReward(folder, question=QuestionTemplate(QUESTION), device="cpu")
    assert next(reward.parameters()).dtype == torch.float32
    x = noise(2, 3, 64, 70)
    close(reward(x, prompt=PROMPTS[:2]), hf_margin(pair, [[i] for i in x], questions(PROMPTS[:2])))
    again = YesNoReward(str(folder), question=QUESTION, dtype=torch.float64, device="cpu")
    close(again(x, prompt=PROMPTS[:2]).float(), reward(x, prompt=PROMPTS[:2]).detach())


def test_prompts_by_name_with_and_without_fields(pair):
    model = copy.deepcopy(pair[0])
    x = noise(1, 2, 3, 64, 64)
    named = YesNoReward((model, pair[1]), question="paper/selected")
    template = QuestionTemplate.named("paper/selected")
    close(
        named(x, prompt="a cat"),
        hf_margin(pair, list(x), [template.format(prompt="a cat")]),
    )
    bare = YesNoReward((model, pair[1]), question="Yes or No?")
    close(bare(x), hf_margin(pair, list(x), ["Yes or No?"]))
    two = YesNoReward((model, pair[1]), question="{prompt} in {style}?")
    close(
        two(x, prompt="cat", style=["blue"]),
        hf_margin(pair, list(x), ["cat in blue?"]),
    )


@pytest.mark.parametrize(
    ("images", "placeholders", "error", "message"),
    [
        (
            noise(2, 3, 60, 60),
            {"prompt": ["a"] * 3},
            ValueError,
            "prompt has 3 items for 2 queries",
        ),
        (
            noise(1, 2, 3, 60, 60),
            {"prompt": ["a"] * 2},
            ValueError,
            "prompt has 2 items for 1 queries",
        ),
        (noise(2, 3, 60, 60), {}, ValueError, "lacks a value for prompt"),
        (noise(1, 3, 60, 60), {"prompt": "a", "b": "c"}, ValueError, "no placeholder b"),
        (noise(1, 3, 60, 60), {"prompt": 3}, TypeError, "prompt is a int"),
        (noise(1, 3, 60, 60), {"prompt": [3]}, TypeError, "prompt is a int"),
        (noise(1, 3, 60, 60), {"prompt": "<|image_pad|>"}, ValueError, "image_pad.*markup"),
        (noise(1, 3, 60, 60), {"prompt": "a<|im_end|>"}, ValueError, "im_end.*markup"),
        (noise(1, 3, 60, 60) * 255, {"prompt": "a"}, ValueError, "divide|/ 255"),
        (noise(3, 60, 60), {"prompt": "a"}, ValueError, r"image\[None\]"),
        ([], {"prompt": "a"}, ValueError, "empty list"),
        (noise(1, 3, 2, 402), {"prompt": "a"}, ValueError, "aspect ratio"),
    ],
)
def test_bad_calls_are_refused_in_one_line(reward, images, placeholders, error, message):
    with pytest.raises(error, match=message) as caught:
        reward(images, **placeholders)
    assert "\n" not in str(caught.value)


def test_unknown_models_are_refused_in_one_line(pair, tmp_path):
    for name in ("nobody/no-such-model", str(tmp_path / "nothing"), str(tmp_path)):
        with pytest.raises(OSError, match=r"cannot load.*expected.*check") as caught:
            YesNoReward(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match="model is a int; expected"):
        YesNoReward(3)


def test_without_network_the_hub_is_asked_once(monkeypatch):
    """transformers alone would try again for minutes, file by file."""
    from vlmreward.models import loading

    asked = []

    class Hub:
        def model_info(self, name, timeout):
            asked.append(name)
            raise ConnectionError("no network")

    monkeypatch.setattr(loading, "HfApi", Hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(OSError, match=r"cannot load 'nobody/no-such-model'.*network"):
        YesNoReward("nobody/no-such-model")
    assert asked == ["nobody/no-such-model"]


def test_missing_built_in_weights_say_so(monkeypatch):
    from vlmreward_3d.blocks import weights

    monkeypatch.setattr(weights, "VLM", weights.VLM / "no" / "such" / "folder")
    with pytest.raises(OSError, match=r"not installed; expected a model in .*no/such/folder"):
        YesNoReward("builtin/blocks")


def test_a_processor_changed_behind_our_back_is_noticed(pair):
    _, processor = tiny_models.build(pair[0].config.model_type)
    reward = YesNoReward((copy.deepcopy(pair[0]), processor), question=QUESTION)
    processor.image_processor.size["longest_edge"] = 56 * 56
    with pytest.raises(RuntimeError, match="grids differ"):
        reward(noise(1, 3, 100, 100), prompt="a cat")


def test_a_processor_with_pils_backend_will_do(pair):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    processor = copy.copy(pair[1])
    processor.image_processor = Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=19600)
    x = noise(2, 3, 60, 77)
    ours = YesNoReward((copy.deepcopy(pair[0]), processor), question=QUESTION)(x, prompt="a cat")
    close(ours, hf_margin(pair, [[i] for i in x], questions(["a cat"] * 2)))


def test_can_be_copied(reward):
    x = noise(1, 3, 64, 64)
    close(copy.deepcopy(reward)(x, prompt="a cat"), reward(x, prompt="a cat").detach(), atol=1e-6)


def test_images_elsewhere_come_back_there(reward):
    assert reward(noise(1, 3, 64, 64), prompt="a").device == torch.device("cpu")


def test_importing_needs_no_network_and_no_3d_packages():
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise OSError('network')\n"
        "socket.socket.connect = refuse; socket.create_connection = refuse\n"
        "socket.getaddrinfo = refuse\n"
        "import vlmreward\n"
        "bad = {'diffusers', 'nerfacc', 'vlmreward_3d', 'trimesh'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
