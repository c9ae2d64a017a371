"""Defects of image processing in transformers 5, each shown there and absent here."""

import copy

import pytest
import torch
from processor_families import FAMILIES, theirs
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    CLIPImageProcessor,
    Idefics2Config,
    Idefics2ImageProcessor,
    Idefics2Model,
    Idefics2Processor,
    Idefics3Config,
    Idefics3ImageProcessor,
    Idefics3Model,
    IdeficsImageProcessor,
    Qwen2VLImageProcessor,
    SiglipImageProcessor,
    SmolVLMImageProcessor,
)

from vlmreward import processors

every = pytest.mark.parametrize("family", FAMILIES, ids=str)


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@every
def test_unit_range_is_not_divided_twice(family):
    hf, x = family.hf(), noise(1, 3, 60, 80)
    levels = (x * 255).round().to(torch.uint8)
    right = theirs(hf, list(levels))["pixel_values"]
    twice = hf([x[0]], return_tensors="pt")
    twice = twice if torch.is_tensor(twice) else twice["pixel_values"]
    assert (twice - right).abs().max() > 1
    ours = processors.from_hf(hf, pixel_mode="uint8")(x)["pixel_values"]
    torch.testing.assert_close(ours, right, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("hf", "at_least"), [(Qwen2VLImageProcessor(), 0.3), (Idefics3ImageProcessor(), 0.3)]
)
def test_overshoot_is_cut_off_where_8_bits_cut_it_off(hf, at_least):
    x = (noise(1, 3, 300, 300) > 0.5).float()
    right = hf((x * 255).to(torch.uint8), return_tensors="pt")["pixel_values"]
    floats = hf(x, do_rescale=False, return_tensors="pt")["pixel_values"]
    assert (floats - right).abs().max() > at_least
    # without the roundings, of the pass in between and of the result
    clamp = processors.from_hf(hf, pixel_mode="clamp")(x)["pixel_values"]
    assert (clamp - right).abs().max() < 4 / 255 / min(hf.image_std)
    exact = processors.from_hf(hf, pixel_mode="uint8")(x)["pixel_values"]
    torch.testing.assert_close(exact, right, atol=1e-5, rtol=0)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_is_computed_in_full(family, dtype):
    hf, x = family.hf(), noise(1, 3, 50, 64).to(dtype).requires_grad_()
    proc = processors.from_hf(hf)
    values = proc(x)["pixel_values"]
    assert values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = proc(x.detach().double())["pixel_values"]
    torch.testing.assert_close(values.double(), exact, atol=2e-5, rtol=0)
    values.square().mean().backward()
    assert x.grad.dtype == dtype
    assert x.grad.abs().sum() > 0


@every
@pytest.mark.parametrize("pixel_mode", processors.PIXEL_MODES)
def test_gradients_after_inference_mode(family, pixel_mode):
    proc = processors.from_hf(family.hf(), pixel_mode=pixel_mode)
    with torch.inference_mode():
        proc(noise(1, 3, 61, 47))
    x = noise(1, 3, 61, 47).requires_grad_()
    proc(x)["pixel_values"].sum().backward()
    assert x.grad.abs().sum() > 0
    with torch.inference_mode():
        assert not proc(x)["pixel_values"].requires_grad


VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "pad_token_id": 0,
}


def idefics2():
    config = Idefics2Config(
        vision_config={**VISION, "image_size": 64},
        text_config=TEXT,
        perceiver_config={
            "hidden_size": 32,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 2,
        },
    )
    return Idefics2Model(config), Idefics2ImageProcessor(
        size={"shortest_edge": 32, "longest_edge": 64}
    )


def idefics3():
    config = Idefics3Config(
        vision_config={**VISION, "image_size": 32}, text_config=TEXT, scale_factor=2
    )
    side = {"longest_edge": 32}
    return Idefics3Model(config), Idefics3ImageProcessor(size=side, max_image_size=side)


@pytest.mark.parametrize("make", [idefics2, idefics3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gray_image_is_not_taken_for_padding(make, dtype):
    model, hf = make()
    model = model.to(dtype).eval()

    def features(inputs):
        inputs = {k: inputs[k] for k in ("pixel_values", "pixel_attention_mask")}
        inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
        return torch.cat(list(model.get_image_features(**inputs, return_dict=True).pooler_output))

    images = torch.stack([torch.full((3, 32, 32), 0.5), noise(3, 32, 32)])
    ours = features(processors.from_hf(hf)(images))
    lighter = features(processors.from_hf(hf)(images + 1e-4))
    assert ours.shape == lighter.shape
    torch.testing.assert_close(ours, lighter, atol=0.05, rtol=0.05)
    gone = hf(list(images), do_rescale=False, return_tensors="pt")
    assert len(features(gone)) < len(ours)


@pytest.mark.parametrize("kind", [Idefics2ImageProcessor, SmolVLMImageProcessor])
def test_padding_stays_zero(kind):
    out = processors.from_hf(kind())([[noise(3, 30, 40)], [noise(3, 40, 30), noise(3, 30, 40)]])
    n = out["pixel_values"].shape[1] // 2
    assert (out["pixel_values"][0, n:] == 0).all()
    assert (out["pixel_attention_mask"][0, n:] == 0).all()
    assert (out["pixel_values"][1, n:] != 0).any()


def test_tensors_are_taken_where_hf_refuses_them(pair):
    """In its call with text Idefics2's processor looks for URLs and PIL images only."""
    # a copy, because its special tokens take the place of the others
    hf = Idefics2Processor(Idefics2ImageProcessor(), copy.deepcopy(pair[1].tokenizer))
    x = noise(1, 3, 40, 40).requires_grad_()
    with pytest.raises(TypeError, match="Incorrect format used for image"):
        hf(text="<image>", images=x)
    processors.from_hf(hf)(x)["pixel_values"].sum().backward()
    assert x.grad.abs().sum() > 0


def test_lanczos_on_every_device():
    """HF takes bicubic on CUDA; which filter is asked for here does not depend on the device."""
    asked = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.vlmreward.resize.default:
                asked.append(args[3])
            return func(*args, **(kwargs or {}))

    x = torch.empty(1, 3, 40, 50, device="meta")
    with Recorder():
        processors.from_hf(SmolVLMImageProcessor()).process(x)
    assert asked == ["lanczos"] * 3


def test_idefics_images_keep_their_device_and_graph():
    x = torch.empty(2, 3, 40, 40, device="meta", requires_grad=True)
    values = processors.from_hf(IdeficsImageProcessor()).process(x)["pixel_values"]
    assert values.device == x.device
    assert values.requires_grad


@pytest.mark.parametrize("pixel_mode", processors.PIXEL_MODES)
@pytest.mark.parametrize(
    "hf",
    [
        Qwen2VLImageProcessor(),
        SiglipImageProcessor(),
        CLIPImageProcessor(),
        Idefics2ImageProcessor(size={"shortest_edge": 32, "longest_edge": 64}),
        Idefics3ImageProcessor(size={"longest_edge": 96}, max_image_size={"longest_edge": 32}),
    ],
    ids=lambda hf: type(hf).__name__,
)
def test_compiles_into_one_graph(hf, pixel_mode):
    proc = processors.from_hf(hf, pixel_mode=pixel_mode)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: proc(x)["pixel_values"], fullgraph=True, backend="aot_eager")
    x = noise(2, 3, 70, 90).requires_grad_()
    values, expected = compiled(x), proc(x)["pixel_values"]
    torch.testing.assert_close(values, expected, atol=1e-6, rtol=1e-6)
    y = torch.randn_like(expected)
    torch.testing.assert_close(*(torch.autograd.grad(v, x, y)[0] for v in (values, expected)))
