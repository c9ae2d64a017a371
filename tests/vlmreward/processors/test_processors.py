"""Qwen's image processor against Hugging Face's: values, layout and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vlmreward import processors
from vlmreward.processors import affine_autograd as chunks
from vlmreward.processors import base, qwen2_vl

sides = st.integers(20, 1100)
HF = Qwen2VLImageProcessor()
CHECKPOINT = Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12845056)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def like(tensor, seed=9):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)


def hf_float(images, hf=HF):
    return hf(images, do_rescale=False, return_tensors="pt")


@given(sides, sides)
def test_float_equals_hf_values_layout_and_gradients(h, w):
    x = noise(1, 3, h, w).requires_grad_()
    ours, theirs = processors.from_hf(HF)(x), hf_float(x)
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])
    assert ours["image_grid_thw"].dtype == theirs["image_grid_thw"].dtype
    ours, theirs = ours["pixel_values"], theirs["pixel_values"]
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
    y = like(ours)
    (g,) = torch.autograd.grad(ours, x, y)
    (expected,) = torch.autograd.grad(theirs, x, y)
    assert (g - expected).norm() <= 1e-4 * expected.norm()


@given(sides, sides)
def test_float_is_closer_still_to_hf_when_hf_resizes_in_float64(h, w):
    """HF's float32 filter weights are the only difference of the two in float32."""
    x = noise(1, 3, h, w)
    ours = processors.from_hf(HF)(x)["pixel_values"]
    torch.testing.assert_close(ours, hf_float(x.double())["pixel_values"], atol=1e-5, rtol=0)


@given(sides, sides)
def test_uint8_equals_hf_on_8_bit_images(h, w):
    levels = (noise(1, 3, h, w) * 256).floor().to(torch.uint8)
    theirs = HF(levels, return_tensors="pt")["pixel_values"]
    ours = processors.from_hf(HF, pixel_mode="uint8")(levels.float() / 255)["pixel_values"]
    step = 1 / 255 / min(HF.image_std)
    difference = (ours - theirs).abs()
    assert (difference > 1e-5).float().mean() <= 1e-3
    assert difference.max() <= 1.01 * step


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_smart_resize_equals_hf(h, w):
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    limits = {"factor": 28, "min_pixels": 3136, "max_pixels": 1003520}
    if max(h, w) <= 200 * min(h, w):
        assert qwen2_vl.smart_resize(h, w, **limits) == smart_resize(h, w, **limits)


@pytest.mark.parametrize("pixel_mode", processors.PIXEL_MODES)
def test_batch_list_and_single_agree_and_keep_the_order(pixel_mode):
    proc = processors.from_hf(HF, pixel_mode=pixel_mode)
    batch = noise(3, 3, 70, 90)
    whole = proc(batch)
    singly = [proc(image[None]) for image in batch]
    for other in ({k: torch.cat([one[k] for one in singly]) for k in whole}, proc(list(batch))):
        assert torch.equal(whole["image_grid_thw"], other["image_grid_thw"])
        torch.testing.assert_close(whole["pixel_values"], other["pixel_values"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (2, 3), (28, 28), (3, 500)])
def test_tiny_and_long_images_equal_hf(size):
    x = noise(2, 3, *size)
    ours, theirs = processors.from_hf(HF)(x), hf_float(x)
    assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])
    torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"], atol=1e-3, rtol=0)


def test_list_of_mixed_sizes_equals_hf():
    images = [noise(3, *size, seed=i) for i, size in enumerate([(70, 90), (30, 200), (70, 90)])]
    leaves = [image.requires_grad_() for image in images]
    ours, theirs = processors.from_hf(HF)(leaves), hf_float([i.detach() for i in images])
    assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])
    torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"], atol=1e-3, rtol=0)
    ours["pixel_values"][-1].sum().backward()
    assert [bool(image.grad is None or image.grad.abs().sum() == 0) for image in images] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"patch_size": 16, "merge_size": 2},
        {"patch_size": 8, "merge_size": 1, "temporal_patch_size": 3},
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.5]},
        {"resample": 2},
        {"do_normalize": False},
        {"min_pixels": 200 * 200, "max_pixels": 300 * 300},
        {"min_pixels": 16 * 16, "max_pixels": 60 * 60},
    ],
)
@pytest.mark.parametrize("pixel_mode", processors.PIXEL_MODES)
def test_every_constant_is_read_from_hf(options, pixel_mode):
    hf = Qwen2VLImageProcessor(**options)
    levels = (noise(2, 3, 100, 130) * 256).floor().to(torch.uint8)
    ours = processors.from_hf(hf, pixel_mode=pixel_mode)(levels.float() / 255)
    if pixel_mode == "uint8":
        theirs = hf(levels, return_tensors="pt")
    else:
        # without the rescale that HF fuses into its normalization, do_normalize=False is float32
        theirs = hf_float(levels.float() / 255, hf)
    assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])
    tolerance = {"float": 5e-4, "clamp": 0.8, "uint8": 1e-5}[pixel_mode]
    torch.testing.assert_close(
        ours["pixel_values"], theirs["pixel_values"].float(), atol=tolerance, rtol=0
    )


def test_without_resize_the_size_must_fit():
    hf = Qwen2VLImageProcessor(do_resize=False)
    x = noise(1, 3, 56, 84)
    torch.testing.assert_close(
        processors.from_hf(hf)(x)["pixel_values"], hf_float(x, hf)["pixel_values"]
    )
    with pytest.raises(ValueError, match=r"57x84.*do_resize=False.*multiples of 28"):
        processors.from_hf(hf)(noise(1, 3, 57, 84))


def test_pil_variant_and_whole_processors_are_accepted(pair):
    x = noise(1, 3, 50, 60)
    expected = processors.from_hf(HF)(x)["pixel_values"]
    ours = processors.from_hf(Qwen2VLImageProcessorPil())(x)["pixel_values"]
    assert torch.equal(ours, expected)
    processor = pair[1]
    assert torch.equal(
        processors.from_hf(processor)(x)["pixel_values"],
        processors.from_hf(processor.image_processor)(x)["pixel_values"],
    )


def test_larger_limits_of_the_published_checkpoints():
    x = noise(1, 3, 1300, 1200)
    ours = processors.from_hf(CHECKPOINT)(x)["image_grid_thw"].tolist()
    assert ours == hf_float(x, CHECKPOINT)["image_grid_thw"].tolist() == [[1, 92, 86]]


def test_gradcheck():
    hf = Qwen2VLImageProcessor(patch_size=2, min_pixels=16, max_pixels=144)
    proc = processors.from_hf(hf)
    x = noise(2, 3, 9, 6, dtype=torch.float64).requires_grad_()
    small = noise(1, 3, 5, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: proc(x)["pixel_values"], small)
    # along random directions: all second derivatives, one by one, take a minute
    assert torch.autograd.gradgradcheck(lambda x: proc(x)["pixel_values"], x, fast_mode=True)


@pytest.mark.parametrize("pixel_mode", processors.PIXEL_MODES)
def test_chunks_change_nothing(pixel_mode, monkeypatch):
    proc = processors.from_hf(HF, pixel_mode=pixel_mode)
    x = noise(5, 3, 61, 88, dtype=torch.float64).requires_grad_()
    results = []
    for chunk in (10**9, 2 * 3 * 61 * 88, 1):
        monkeypatch.setattr(chunks, "_CHUNK", chunk)
        values = proc(x)["pixel_values"]
        results.append((values, *torch.autograd.grad(values, x, like(values))))
    for values, gradient in results[1:]:
        torch.testing.assert_close(values, results[0][0])
        torch.testing.assert_close(gradient, results[0][1])


def test_gradients_repeat_bitwise():
    proc = processors.from_hf(HF)
    x = noise(8, 3, 200, 260).requires_grad_()
    y = like(proc(x)["pixel_values"])
    first, second = (torch.autograd.grad(proc(x)["pixel_values"], x, y)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_is_affine_and_its_backward_the_adjoint():
    proc = processors.from_hf(HF)

    def f(images):
        return proc(images)["pixel_values"]

    a, b = noise(1, 3, 60, 80, dtype=torch.float64), noise(1, 3, 60, 80, seed=1).double()
    torch.testing.assert_close(f(0.3 * a + 0.7 * b), 0.3 * f(a) + 0.7 * f(b))
    a.requires_grad_()
    y = like(f(a))
    (pulled,) = torch.autograd.grad(f(a), a, y)
    zero = f(torch.zeros_like(a))
    torch.testing.assert_close(((f(a) - zero) * y).sum(), (a * pulled).sum())


@pytest.mark.parametrize("pixel_mode", processors.PIXEL_MODES)
@pytest.mark.parametrize(
    ("dtype", "out"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_dtypes(dtype, out, pixel_mode):
    x = noise(1, 3, 64, 64).to(dtype).requires_grad_()
    values = processors.from_hf(HF, pixel_mode=pixel_mode)(x)["pixel_values"]
    assert values.dtype == out
    values.square().mean().backward()
    assert x.grad.dtype == dtype
    assert x.grad.abs().sum() > 0
    exact = processors.from_hf(HF, pixel_mode=pixel_mode)(x.detach().double())["pixel_values"]
    torch.testing.assert_close(values.double(), exact, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pixel_mode", processors.PIXEL_MODES)
def test_never_changes_its_input(pixel_mode):
    proc = processors.from_hf(HF, pixel_mode=pixel_mode)
    for size in ((56, 56), (57, 80)):
        x = noise(2, 3, *size) * 1.01 - 0.005
        before = x.clone()
        proc(x)["pixel_values"].mul_(2)
        assert torch.equal(x, before)


@pytest.mark.parametrize("pixel_mode", processors.PIXEL_MODES)
def test_gradients_after_inference_mode(pixel_mode):
    base._kept.cache_clear()
    proc = processors.from_hf(HF, pixel_mode=pixel_mode)
    with torch.inference_mode():
        proc(noise(1, 3, 61, 47))
    x = noise(1, 3, 61, 47).requires_grad_()
    proc(x)["pixel_values"].sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("pixel_mode", ["clamp", "uint8"])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_uniform_images_stay_uniform(pixel_mode, value):
    x = torch.full((1, 3, 100, 75), value)
    out = processors.from_hf(HF, pixel_mode=pixel_mode)(x)["pixel_values"]
    mean, std = torch.tensor(HF.image_mean), torch.tensor(HF.image_std)
    level = round(value * 255) / 255 if pixel_mode == "uint8" else value
    expected = ((level - mean) / std).repeat_interleave(2 * 14 * 14).expand_as(out)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def test_is_per_image_not_stretched_to_its_range():
    """A dim image must not be brightened, nor depend on its neighbors in the batch."""
    proc = processors.from_hf(HF)
    dim, bright = 0.1 * noise(1, 3, 56, 56), noise(1, 3, 56, 56, seed=1)
    both = proc(torch.cat([dim, bright]))["pixel_values"]
    torch.testing.assert_close(both[:16], proc(dim)["pixel_values"], atol=1e-5, rtol=0)
    assert both[:16].mean() < both[16:].mean() - 1


def test_unknown_arguments_are_refused():
    with pytest.raises(ValueError, match=r"uint9.*float.*clamp.*uint8"):
        processors.from_hf(HF, pixel_mode="uint9")
    with pytest.raises(ValueError, match=r"numpy.*torchvision.*pil"):
        processors.from_hf(HF, pixel_mode="uint8", backend="numpy")
    with pytest.raises(TypeError, match=r"dict.*image processor"):
        processors.from_hf({})
    with pytest.raises(ValueError, match="PIL filter 0"):
        processors.from_hf(Qwen2VLImageProcessor(resample=0))
