"""Qwen's video processors against Hugging Face's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2VLVideoProcessor, Qwen3VLVideoProcessor

from vlmreward import processors

SIZE = {"shortest_edge": 3136, "longest_edge": 60000}
every = pytest.mark.parametrize("kind", [Qwen2VLVideoProcessor, Qwen3VLVideoProcessor])
side = st.integers(20, 200)


def video(frames, h, w, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 3, h, w), generator=g)


def theirs(hf, videos):
    return hf(videos, return_tensors="pt", do_sample_frames=False)


@every
@settings(max_examples=20, deadline=None)
@given(st.integers(2, 7), side, side, st.booleans())
def test_equals_hf(kind, frames, h, w, cap):
    hf = kind(size=SIZE, cap_pixels_per_frame=cap, max_video_tokens=40)
    videos = [video(frames, h, w), video(frames + 1, w, h, seed=1)]
    for pixel_mode, dtype in (("float", torch.float64), ("uint8", torch.uint8)):
        expected = theirs(hf, [v.to(dtype) for v in videos])
        ours = processors.from_hf(hf, pixel_mode=pixel_mode)([v.double() / 255 for v in videos])
        assert ours.keys() == expected.keys()
        assert torch.equal(ours["video_grid_thw"], expected["video_grid_thw"])
        difference = ours["pixel_values_videos"] - expected["pixel_values_videos"]
        assert difference.abs().max() <= 2e-5


@every
def test_a_repeated_last_frame_gets_both_gradients(kind):
    hf = kind(size=SIZE, cap_pixels_per_frame=False)
    x = video(3, 56, 56).double()
    leaf = x.clone().requires_grad_()
    expected = theirs(hf, [leaf])["pixel_values_videos"]
    y = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (wanted,) = torch.autograd.grad(expected, leaf, y)
    ours = (x / 255).requires_grad_()
    (got,) = torch.autograd.grad(
        processors.from_hf(hf)(ours[None])["pixel_values_videos"], ours, y.double()
    )
    torch.testing.assert_close(got / 255, wanted, atol=1e-8, rtol=1e-5)


def test_without_resize_the_size_must_fit():
    hf = Qwen2VLVideoProcessor(do_resize=False, cap_pixels_per_frame=False)
    x = video(2, 56, 84)
    expected = theirs(hf, [x.to(torch.uint8)])["pixel_values_videos"]
    ours = processors.from_hf(hf)(x[None] / 255)["pixel_values_videos"]
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=0)
    with pytest.raises(ValueError, match=r"57x84.*do_resize=False.*multiples of 28"):
        processors.from_hf(hf)(torch.rand(1, 2, 3, 57, 84))


def test_one_frame_is_too_short_for_qwen3():
    with pytest.raises(ValueError, match="1 frames; expected at least 2"):
        processors.from_hf(Qwen3VLVideoProcessor())(torch.rand(1, 1, 3, 64, 64))
