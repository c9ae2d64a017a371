"""Images and checks for the tests that compare all image processors with Hugging Face's."""

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from processor_families import FAMILIES

__all__ = ["assert_layout", "every", "few", "levels", "sizes", "unit"]

every = pytest.mark.parametrize("family", FAMILIES, ids=str)
# long and thin images too, as far as every family takes them
sides = st.integers(4, 420)
sizes = st.lists(st.tuples(sides, sides), min_size=1, max_size=2)
few = settings(max_examples=5, deadline=None)


def levels(sizes, seed=0, dtype=torch.uint8):
    """Random images (3, H, W) of some sizes, in levels from 0 to 255."""
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, *size), generator=g).to(dtype) for size in sizes]


def unit(images, dtype=torch.float64):
    """The same images in [0, 1]."""
    return [image.to(dtype) / 255 for image in images]


def assert_layout(ours, expected):
    """Same keys, shapes, dtypes and everything that is not a pixel."""
    assert set(expected) <= set(ours)
    for key, value in expected.items():
        if not torch.is_tensor(value):
            assert torch.equal(torch.as_tensor(ours[key]), torch.as_tensor(value)), key
        elif value.is_floating_point():
            assert ours[key].shape == value.shape
        else:
            assert ours[key].dtype == value.dtype
            assert torch.equal(ours[key], value), key
