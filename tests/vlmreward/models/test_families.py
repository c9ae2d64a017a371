"""All image processors against Hugging Face's: values of floats, layout and gradients."""

import pytest
import torch
from hypothesis import assume, given
from processor_comparison import assert_layout, every, few, levels, sizes, unit
from processor_families import FAMILIES, theirs

from vlmreward import processors


def hf_is_right(family, sizes):
    """HF's float path goes wrong where an image becomes one pixel wide on the way to its tiles.

    Its transpose and the 8-bit path of the same image are right, and equal to ours.
    """
    return not (family.lanczos and any(height > 40 * width for height, width in sizes))


def like(tensor, seed=9):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)


@every
@few
@given(sizes)
def test_float(family, sizes):
    assume(hf_is_right(family, sizes))
    hf, images = family.hf(), levels(sizes)
    expected = theirs(hf, [i.double() for i in images])
    ours = processors.from_hf(hf)(unit(images))
    assert ours.keys() == expected.keys()
    assert_layout(ours, expected)
    # HF resizes in the images' dtype and normalizes in float32
    difference = (ours["pixel_values"] - expected["pixel_values"]).abs().max()
    assert difference <= 2e-5


@every
@few
@given(sizes)
def test_float_in_single_precision(family, sizes):
    """Against HF in float64: its float32 filter weights alone are off by up to 7e-4 in places."""
    assume(hf_is_right(family, sizes))
    hf, images = family.hf(), levels(sizes)
    exact = theirs(hf, [i.double() for i in images])["pixel_values"]
    ours = processors.from_hf(hf)(unit(images, torch.float32))
    assert_layout(ours, theirs(hf, [i.float() for i in images]))
    assert ours["pixel_values"].dtype == torch.float32
    assert (ours["pixel_values"] - exact).abs().max() <= (2e-4 if family.lanczos else 1e-4)


@every
@few
@given(sizes)
def test_gradients_equal_autograd_through_hf(family, sizes):
    assume(hf_is_right(family, sizes))
    hf = family.hf()
    leaves = [i.double().requires_grad_() for i in levels(sizes)]
    expected = theirs(hf, leaves)["pixel_values"]
    y = like(expected)
    expected = torch.autograd.grad(expected, leaves, y)
    ours = processors.from_hf(hf)([leaf / 255 for leaf in leaves])["pixel_values"]
    for got, wanted in zip(torch.autograd.grad(ours, leaves, y.double()), expected):
        assert (got - wanted).norm() <= 1e-5 * wanted.norm()


# those that differ with the small options
SMALL = {(f.name, repr(sorted({**f.options, **f.tiny}.items()))): f for f in FAMILIES}.values()


@pytest.mark.parametrize("family", SMALL, ids=str)
def test_gradcheck(family):
    hf = family.hf(**family.tiny)
    proc = processors.from_hf(hf)
    g = torch.Generator().manual_seed(3)
    x = torch.rand(2, 3, 9, 6, generator=g, dtype=torch.float64).requires_grad_()
    # along random directions: all derivatives, one by one, take minutes
    assert torch.autograd.gradcheck(lambda x: proc(x)["pixel_values"], x, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: proc(x)["pixel_values"], x, fast_mode=True)


@every
@pytest.mark.parametrize("pixel_mode", processors.PIXEL_MODES)
def test_a_batch_is_its_images(family, pixel_mode):
    proc = processors.from_hf(family.hf(), pixel_mode=pixel_mode)
    batch = torch.stack(unit(levels([(70, 90)] * 3), torch.float32))
    whole, listed = proc(batch), proc(list(batch))
    assert_layout(whole, {k: v for k, v in listed.items() if k != "pixel_values"})
    torch.testing.assert_close(whole["pixel_values"], listed["pixel_values"], atol=1e-5, rtol=0)


@every
def test_says_what_its_gradient_is(family):
    for pixel_mode in processors.PIXEL_MODES:
        assert (
            processors.from_hf(family.hf(), pixel_mode=pixel_mode).gradient
            == (processors.GRADIENTS[pixel_mode])
        )


@every
@pytest.mark.parametrize("asked", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_values_of_the_dtype_that_is_asked_for(family, asked):
    proc = processors.from_hf(family.hf())
    x = torch.stack(unit(levels([(40, 50)]), torch.bfloat16)).requires_grad_()
    ours, plain = proc(x, dtype=asked), proc(x)
    assert ours["pixel_values"].dtype == asked
    assert torch.equal(ours["pixel_values"], plain["pixel_values"].to(asked))
    assert_layout(ours, {k: v for k, v in plain.items() if k != "pixel_values"})
    ours["pixel_values"].float().square().mean().backward()
    assert x.grad.dtype == torch.bfloat16
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.nested], ids=str)
def test_without_padding(family):
    """No mask; images of different sizes or in different numbers make no batch, as with HF."""
    hf = family.hf(do_pad=False)
    images = levels([(50, 50), (50, 50)])
    for backend in ("torchvision", "pil"):
        expected = theirs(family.hf(backend, do_pad=False), images)
        ours = processors.from_hf(hf, pixel_mode="uint8", backend=backend)(unit(images))
        assert ours.keys() == expected.keys()
        assert "pixel_attention_mask" not in ours
        assert_layout(ours, expected)
        assert (ours["pixel_values"] - expected["pixel_values"]).abs().max() <= 1e-5
    nested = [unit(levels([(50, 50)])), unit(levels([(50, 50), (50, 90)]))]
    with pytest.raises(ValueError, match="has do_pad=False; expected one number and one size"):
        processors.from_hf(hf)(nested)


def test_refuses_a_dtype_that_is_not_floating():
    proc = processors.from_hf(FAMILIES[0].hf())
    with pytest.raises(TypeError, match=r"torch\.uint8; expected a floating dtype"):
        proc(torch.rand(1, 3, 30, 30), dtype=torch.uint8)
