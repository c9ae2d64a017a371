"""The resize against PIL, torch, its own adjoint and finite differences."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from vlmreward.processors import quantized_resize
from vlmreward.processors import resize as resize_module
from vlmreward.processors._resize_weights import FILTERS, weight_matrix
from vlmreward.processors.quantized_resize import resize_uint8
from vlmreward.processors.resize import resize

PIL_FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}
sides = st.integers(1, 700)
filters = st.sampled_from(sorted(FILTERS))


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@given(sides, sides, sides, sides, filters)
def test_equals_pil_in_float_mode(h, w, height, width, name):
    x = noise(h, w)
    pil = Image.fromarray(x.numpy()).resize((width, height), PIL_FILTERS[name])
    assert pil.mode == "F"
    torch.testing.assert_close(
        resize(x, (height, width), name), torch.from_numpy(np.array(pil)), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("name", sorted(FILTERS))
@pytest.mark.parametrize(("n_in", "n_out"), [(37, 90), (90, 37), (5, 1), (1, 5), (64, 64)])
def test_matrix_is_the_map(name, n_in, n_out):
    a = weight_matrix(n_in, n_out, name)
    torch.testing.assert_close(a.sum(1), torch.ones(n_out, dtype=torch.float64))
    columns = resize(torch.eye(n_in, dtype=torch.float64)[:, None], (1, n_out), name)[:, 0].T
    torch.testing.assert_close(columns, a, atol=1e-14, rtol=0)


@given(sides, sides, st.integers(1, 300), st.integers(1, 300), filters)
def test_backward_is_the_adjoint(h, w, height, width, name):
    x = noise(2, h, w, dtype=torch.float64).requires_grad_()
    y = noise(2, height, width, seed=1, dtype=torch.float64)
    out = resize(x, (height, width), name)
    (pulled,) = torch.autograd.grad(out, x, y)
    assert ((out * y).sum() - (x * pulled).sum()).abs() <= 1e-10 * max(1.0, float(y.numel()))


@pytest.mark.parametrize("name", sorted(FILTERS))
@pytest.mark.parametrize("size", [(9, 4), (3, 12)])
def test_gradcheck(name, size):
    x = noise(1, 2, 6, 7, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: resize(x, size, name), x)
    assert torch.autograd.gradgradcheck(lambda x: resize(x, size, name), x)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_equals_torch_in_float64_values_and_gradients(name):
    x = noise(2, 3, 130, 71, dtype=torch.float64).requires_grad_()
    ours = resize(x, (56, 168), name)
    theirs = F.interpolate(x, (56, 168), mode=name, antialias=True)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    y = torch.randn(ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        torch.autograd.grad(ours, x, y)[0],
        torch.autograd.grad(theirs, x, y)[0],
        atol=1e-12,
        rtol=0,
    )


# torch's 8-bit kernel itself fails on some images one pixel wide
wide = st.integers(2, 700)


@given(wide, wide, wide, wide, st.sampled_from(["bilinear", "bicubic"]), st.booleans())
def test_uint8_equals_torchs_kernel(h, w, height, width, name, harsh):
    levels = (noise(1, 3, h, w) * 256).floor().to(torch.uint8)
    if harsh:  # black and white: overshoot everywhere, also in the intermediate image
        levels = (levels > 127).to(torch.uint8) * 255
    reference = F.interpolate(levels, (height, width), mode=name, antialias=True)
    ours = resize_uint8(levels.float() / 255, (height, width), name) * 255
    assert torch.equal(ours.round().to(torch.uint8), reference)
    torch.testing.assert_close(ours, ours.round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(97, 200), (31, 64), (140, 28)])
def test_uint8_is_within_one_step_of_pil(size):
    """At sizes for which PIL, too, does the width first; newer ones take the cheaper order."""
    levels = (noise(97, 64) * 256).floor().to(torch.uint8)
    pil = Image.fromarray(levels.numpy()).resize(size[::-1], Image.BICUBIC)
    ours = resize_uint8(levels.float() / 255, size) * 255
    difference = (ours - torch.from_numpy(np.array(pil)).float()).abs()
    assert difference.max() <= 1.001
    assert difference.mean() < 0.01


def test_uint8_gradient_is_that_of_the_float_map():
    x = (2 * noise(2, 40, 30, dtype=torch.float64) - 0.5).requires_grad_()
    y = noise(2, 56, 28, seed=1, dtype=torch.float64)
    (straight,) = torch.autograd.grad(resize_uint8(x, (56, 28)), x, y)
    (linear,) = torch.autograd.grad(resize(x, (56, 28)), x, y)
    torch.testing.assert_close(straight, linear, atol=1e-12, rtol=0)


def test_clamp_saturates_and_stops_the_gradient_there():
    x = (noise(1, 3, 40, 40) > 0.5).float().requires_grad_()
    free, clamped = resize(x, (70, 70)), resize(x, (70, 70), clamp=True)
    assert free.min() < -0.01
    assert free.max() > 1.01
    assert clamped.min() >= 0
    assert clamped.max() <= 1
    over = 1.2 * noise(1, 3, 40, 40) - 0.1
    torch.testing.assert_close(
        resize(over, (70, 30), clamp=True), resize(over.clamp(0, 1), (70, 30), clamp=True)
    )
    assert not torch.allclose(resize(over, (70, 30)), resize(over.clamp(0, 1), (70, 30)))
    white = torch.ones(1, 3, 40, 40).mul(1.5).requires_grad_()
    resize(white, (70, 70), clamp=True).sum().backward()
    assert white.grad.abs().max() == 0


def test_clamp_stays_close_to_uint8():
    x = (noise(1, 3, 90, 60) * 255).round() / 255
    difference = (resize(x, (56, 140), clamp=True) - resize_uint8(x, (56, 140))).abs() * 255
    assert difference.max() < 2


def test_gradients_repeat_bitwise():
    x = noise(2, 3, 300, 200).requires_grad_()
    y = noise(2, 3, 112, 252, seed=1)
    first, second = (torch.autograd.grad(resize(x, (112, 252)), x, y)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("function", [resize, resize_uint8])
def test_never_changes_its_input(function):
    for x in (noise(1, 3, 28, 28), noise(1, 3, 30, 45), noise(3, 30, 45, 1).movedim(-1, 0)):
        before = x.clone()
        function(x, (28, 28)).add_(1) if x.shape[-2:] != (28, 28) else function(x, (28, 28))
        assert torch.equal(x, before)


@pytest.mark.parametrize("function", [resize, resize_uint8])
def test_works_for_gradients_after_inference_mode(function):
    resize_module._float_operator.cache_clear()
    quantized_resize._quantized_operator.cache_clear()
    with torch.inference_mode():
        function(noise(1, 3, 33, 44), (28, 56))
    x = noise(1, 3, 33, 44).requires_grad_()
    function(x, (28, 56)).sum().backward()
    assert x.grad.abs().sum() > 0


def test_autocast_changes_nothing():
    x = noise(1, 3, 100, 90).requires_grad_()
    expected = resize(x, (56, 56))
    (gradient,) = torch.autograd.grad(expected.square().sum(), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = resize(x, (56, 56))
        (g,) = torch.autograd.grad(out.square().sum(), x)
    assert torch.equal(out, expected)
    assert torch.equal(g, gradient)


def test_reduced_matmul_precision_is_set_aside_and_restored(monkeypatch):
    settings = torch.backends.mkldnn.matmul
    before, seen = settings.fp32_precision, []

    def spy(*args, **kwargs):
        seen.append(settings.fp32_precision)
        return mm(*args, **kwargs)

    mm = torch.mm
    monkeypatch.setattr(torch, "mm", spy)
    try:
        settings.fp32_precision = "bf16"
        resize(noise(1, 3, 40, 40), (28, 28))
        assert settings.fp32_precision == "bf16"
    finally:
        settings.fp32_precision = before
    assert set(seen) == {"ieee"}


def test_what_is_kept_is_fit_for_autograd():
    resize_module._float_operator.cache_clear()
    quantized_resize._quantized_operator.cache_clear()
    with torch.inference_mode():
        operators = (
            resize_module._float_operator(9, 5, "bicubic", torch.float32, torch.device("cpu")),
            quantized_resize._quantized_operator(
                9, 5, "bicubic", torch.device("cpu"), "torchvision"
            ).high,
        )
    assert not any(band.matrix.is_inference() for o in operators for band in o.bands)


def dense(operator):
    parts = [
        torch.nn.functional.pad(b.matrix, (b.in_from, operator.n_in - b.in_to))
        for b in operator.bands
    ]
    return torch.cat(parts).to(torch.int64)


@given(st.integers(2, 3000), st.integers(2, 300), st.sampled_from(quantized_resize.BACKENDS))
@example(3000, 2, "pil")  # so many weights that float64 is needed
@example(300, 200, "pil")
@example(200, 300, "torchvision")
def test_8_bit_sums_are_those_of_integers(n_in, n_out, backend):
    fixed = quantized_resize._quantized_operator(
        n_in, n_out, "bicubic", torch.device("cpu"), backend
    )
    levels = torch.cat([(noise(3, n_in) * 256).floor(), torch.full((1, n_in), 255.0)])
    whole = dense(fixed.high)
    if fixed.low is not None:
        whole = 256 * whole + dense(fixed.low)
    assert (whole.sum(dim=1) - 2**fixed.bits).abs().max() <= n_in  # a half for every weight
    total = levels.to(torch.int64) @ whole.T
    exact = ((total + 2 ** (fixed.bits - 1)) >> fixed.bits).clamp(0, 255)
    assert torch.equal(fixed.apply(levels, -1).to(torch.int64), exact)


def test_8_bit_weights_come_in_three_forms():
    def form(n_in, n_out, backend):
        fixed = quantized_resize._quantized_operator(
            n_in, n_out, "bicubic", torch.device("cpu"), backend
        )
        return fixed.high.dtype, fixed.low is None

    assert form(200, 300, "torchvision") == (torch.float32, True)
    assert form(300, 200, "pil") == (torch.float32, False)
    assert form(3000, 2, "pil") == (torch.float64, True)


def test_caches_are_bounded():
    for cache in (resize_module._float_operator, quantized_resize._quantized_operator):
        assert cache.cache_info().maxsize is not None


def test_unknown_filter_is_refused():
    with pytest.raises(ValueError, match=r"box.*bicubic"):
        resize(noise(4, 4), (2, 2), "box")
    with pytest.raises(ValueError, match="at least 1"):
        resize(noise(4, 4), (0, 2))
