"""All image processors against both of Hugging Face's backends for 8-bit images."""

import pytest
import torch
from hypothesis import example, given
from processor_comparison import assert_layout, every, few, levels, sizes, unit
from processor_families import theirs

from vlmreward import processors


@every
@pytest.mark.parametrize("backend", ["torchvision", "pil"])
@few
@example([(107, 133)])  # an odd border of CLIP's, which HF's backends halve differently
@example([(385, 4)])
@given(sizes)
def test_uint8(family, backend, sizes):
    hf, images = family.hf(backend), levels(sizes)
    expected = theirs(hf, images)
    ours = processors.from_hf(hf, pixel_mode="uint8")(unit(images, torch.float32))
    assert_layout(ours, expected)
    difference = (ours["pixel_values"] - expected["pixel_values"]).abs()
    assert (difference > 1e-5).double().mean() <= 1e-4
    assert difference.max() <= 1.01 / 255 / min(hf.image_std)


@every
@few
@given(sizes)
def test_clamp_is_between(family, sizes):
    """Within half a step, from two roundings, of the 8-bit path that it stands for."""
    hf, images = family.hf(), levels(sizes)
    clamp, eight = (processors.from_hf(hf, pixel_mode=p)(unit(images)) for p in ("clamp", "uint8"))
    assert_layout(clamp, {k: v for k, v in eight.items() if k != "pixel_values"})
    difference = (clamp["pixel_values"] - eight["pixel_values"]).abs().max()
    assert difference <= 4 / 255 / min(hf.image_std)
