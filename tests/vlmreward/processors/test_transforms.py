"""Rewards and image processors under torch.func, and derivatives in forward mode."""

import copy

import pytest
import tiny_models
import torch
from processor_families import FAMILIES
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from vlmreward import CompositeReward, YesNoReward, processors
from vlmreward.processors import base
from vlmreward.processors.quantized_resize import _quantized_operator
from vlmreward.processors.resize import _float_operator, resize

QUESTION = "Does this image show {prompt}?"
FEATURES = tiny_models.having("accepts_image_features")[-1]
NOT_MAPPED = {"idefics2", "idefics3", "smolvlm"}
"""Models that choose images by their values."""


@pytest.fixture(autouse=True)
def nothing_kept():
    """Each test makes what is kept anew, under its transform."""
    for kept in (base._kept, _float_operator, _quantized_operator):
        kept.cache_clear()


def noise(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 + 0.8 * torch.rand(shape, generator=generator, dtype=dtype)


def tensors(thing):
    """All tensors in dicts, lists, tuples and data classes."""
    if isinstance(thing, torch.Tensor):
        return [thing]
    if isinstance(thing, (dict, list, tuple)):
        parts = thing.values() if isinstance(thing, dict) else thing
    else:
        parts = getattr(thing, "__dict__", {}).values()
    return [tensor for part in parts for tensor in tensors(part)]


def kept(reward):
    return tensors([reward.backbone._rows.kept, reward.backbone._layouts.kept])


@pytest.fixture(scope="module", params=tiny_models.FAMILIES)
def family(request):
    return request.param


def test_gradients_under_transforms(family):
    reward = YesNoReward(tiny_models.build(family), question=QUESTION, validate=False)
    x = noise(3, 41, 52)
    # from an empty cache, so that the layout is made inside; the fused kernel has no forward mode
    with sdpa_kernel(SDPBackend.MATH):

        def value(x):
            return reward(x[None], prompt="a cat").sum()

        gradient = torch.func.grad(value)(x)
        direction = noise(3, 41, 52, seed=1)
        _, slope = torch.func.jvp(value, (x,), (direction,))
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(value(leaf), leaf)
        both = torch.stack([x, 1 - x])
        if family in NOT_MAPPED:
            with pytest.raises(RuntimeError, match="vmap"):
                torch.func.vmap(value)(both)
        else:
            each = torch.func.vmap(value)(both)
            torch.testing.assert_close(each, torch.stack([value(x), value(1 - x)]))
    assert (gradient - expected).norm() <= 1e-5 * expected.norm()
    torch.testing.assert_close(slope, (expected * direction).sum(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("transform", ["grad", "jacrev", "vmap"])
@pytest.mark.parametrize("kind", ["qwen2_5_vl", FEATURES, "idefics3"])
def test_what_is_kept_does_not_end_with_a_transform(kind, transform):
    reward = YesNoReward(tiny_models.build(kind), question=QUESTION, validate=False)
    asked = CompositeReward(
        [reward, reward.ask("Is there {prompt}?", answers=("a cat", "Nothing"))]
    )
    x = noise(2, 3, 41, 52) if transform == "vmap" else noise(3, 41, 52)
    try:
        getattr(torch.func, transform)(lambda x: asked(x[None], prompt="a cat").sum())(x)
    except RuntimeError:
        assert (kind, transform) == ("idefics3", "vmap")
    found = kept(reward)
    assert len(found) > 4
    assert not any(torch._C._functorch.is_functorch_wrapped_tensor(t) for t in found)
    assert not any(t.is_inference() or t.requires_grad for t in found)
    assert copy.deepcopy(found)
    other = copy.deepcopy(asked)
    y = noise(1, 3, 41, 52)
    torch.testing.assert_close(other(y, prompt="a cat"), asked(y, prompt="a cat"))


@pytest.mark.parametrize("pixel_mode", processors.PIXEL_MODES)
@pytest.mark.parametrize("kind", FAMILIES, ids=str)
def test_forward_mode_is_the_transpose_of_backward_mode(kind, pixel_mode):
    proc = processors.from_hf(kind.hf(**kind.tiny), pixel_mode=pixel_mode)
    x, direction = (noise(2, 3, 9, 6, seed=seed, dtype=torch.float64) for seed in (0, 1))

    def values(x):
        return proc(x, validate=False)["pixel_values"]

    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(values(forward_ad.make_dual(x, direction))).tangent
    leaf = x.clone().requires_grad_()
    out = values(leaf)
    y = noise(*out.shape, seed=2, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(out, leaf, y)
    assert tangent.abs().max() > 0
    torch.testing.assert_close((tangent * y).sum(), (gradient * direction).sum())
    _, same = torch.func.jvp(values, (x,), (direction,))
    torch.testing.assert_close(same, tangent)
    (same,) = torch.func.vjp(values, x)[1](y)
    torch.testing.assert_close(same, gradient)


@pytest.mark.parametrize("dim", [0, 2])
def test_resize_of_mapped_images(dim):
    x = noise(3, 9, 6, 4, dtype=torch.float64)
    mapped = torch.func.vmap(lambda x: resize(x, (5, 7)), in_dims=dim)(x)
    expected = torch.stack([resize(part, (5, 7)) for part in x.unbind(dim)])
    torch.testing.assert_close(mapped, expected)
