"""Bad images: each refused with what was received, what is expected and what to do."""

import pytest
import torch

from vlmreward import processors
from vlmreward.images.channels import gray_to_rgb, rgba_to_rgb
from vlmreward.images.validation import (
    RANGE_TOLERANCE,
    check_images,
    check_values,
    flatten_views,
)

GOOD = torch.full((2, 3, 8, 9), 0.5)


def spoiled(value):
    images = GOOD.clone()
    images[1, 2, 3, 4] = value
    return images


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (spoiled(255.0), ValueError, r"0.5 to 255; expected \[0, 1\]: .*/ 255"),
        (spoiled(-1.0), ValueError, r"-1 to 0.5; expected \[0, 1\]: .*\(images \+ 1\) / 2"),
        (spoiled(-2.2), ValueError, r"-2.2 to 0.5; expected \[0, 1\]: .*normalization"),
        (spoiled(float("nan")), ValueError, "NaN.*expected finite.*upstream"),
        (spoiled(float("inf")), ValueError, "infinite.*expected finite.*upstream"),
        ((GOOD * 255).to(torch.uint8), TypeError, "torch.uint8; expected a floating.*/ 255"),
        (GOOD > 0, TypeError, "torch.bool; expected a floating"),
        (GOOD.numpy(), TypeError, "ndarray; expected a torch.Tensor.*from_numpy"),
        (GOOD[0], ValueError, r"\(3, 8, 9\); expected \(B, 3, H, W\).*image\[None\]"),
        (GOOD.movedim(1, -1), ValueError, r"\(2, 8, 9, 3\); expected.*movedim"),
        (GOOD[:, :1], ValueError, r"\(2, 1, 8, 9\); expected.*gray_to_rgb"),
        (torch.ones(2, 4, 8, 9), ValueError, r"\(2, 4, 8, 9\); expected.*rgba_to_rgb"),
        (torch.ones(2, 5, 8, 9), ValueError, r"\(2, 5, 8, 9\); expected.*RGB"),
        (GOOD[:0], ValueError, r"\(0, 3, 8, 9\).*empty.*at least one"),
        (GOOD[..., :0], ValueError, "empty"),
        ([], ValueError, "empty list; expected at least one"),
        ([GOOD[0], GOOD], ValueError, r"images\[1\] has shape.*expected \(3, H, W\)"),
        ([GOOD[0], None], TypeError, r"images\[1\] is a NoneType"),
        ("cat.png", TypeError, "str; expected a torch.Tensor"),
        (torch.ones(1, 3, 2, 402), ValueError, "2x402, an aspect ratio of 201; expected at most"),
    ],
)
def test_bad_images_are_refused_in_one_line(images, error, message):
    with pytest.raises(error, match=message) as caught:
        check_images(images)
    assert "\n" not in str(caught.value)


def test_every_image_of_a_list_is_looked_at():
    for bad in (float("nan"), 3.0, -3.0):
        for place in range(3):
            images = [GOOD[0].clone() for _ in range(3)]
            images[place][0, 0, 0] = bad
            with pytest.raises(ValueError, match="expected"):
                check_values(images)


def test_good_images_pass():
    check_images(GOOD)
    check_images(list(GOOD))
    check_images(torch.ones(1, 3, 2, 400))
    check_images(GOOD.half())
    check_images(spoiled(1 + RANGE_TOLERANCE))
    check_images(spoiled(-RANGE_TOLERANCE))
    one, two = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    check_images(spoiled(one.nextafter(two).float()))


def test_the_slack_is_small():
    with pytest.raises(ValueError, match="expected"):
        check_images(spoiled(1 + 2 * RANGE_TOLERANCE))


def test_values_are_looked_at_only_on_request():
    check_images(spoiled(7.0), values=False)
    with pytest.raises(ValueError, match=r"\(3, 8, 9\)"):
        check_images(GOOD[0], values=False)


def test_processors_check_and_can_leave_it():
    from transformers import Qwen2VLImageProcessor

    proc = processors.from_hf(Qwen2VLImageProcessor())
    with pytest.raises(ValueError, match="expected"):
        proc(spoiled(7.0))
    assert proc(spoiled(7.0), validate=False)["pixel_values"].isfinite().all()


def test_views_are_flattened_in_order():
    batch = torch.rand(2, 3, 3, 8, 9)
    flat, counts = flatten_views(batch)
    assert counts == [3, 3]
    assert torch.equal(flat[4], batch[1, 1])
    flat, counts = flatten_views([[batch[0, 0], batch[0, 1, :, :5]], [batch[1, 2]]])
    assert counts == [2, 1]
    assert [tuple(image.shape) for image in flat] == [(3, 8, 9), (3, 5, 9), (3, 8, 9)]
    flat, counts = flatten_views([batch[0], batch[1, :2]])
    assert counts == [3, 2]
    flat, counts = flatten_views(list(batch[0]))
    assert counts == [1, 1, 1]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([[GOOD[0]], []], r"images\[1\] is an empty list; expected at least one view"),
        ([[GOOD[0], GOOD]], r"images\[0\]\[1\] has shape"),
        (torch.ones(1, 2, 3, 4, 8, 9), "expected"),
        (torch.ones(0, 2, 3, 8, 9), "empty"),
        (torch.ones(2, 0, 3, 8, 9), "empty"),
        ([GOOD[0], spoiled(9.0)[1]], "9; expected"),
    ],
)
def test_bad_queries_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        flatten_views(images)


def test_gray_and_rgba_have_helpers_of_their_own():
    gray = torch.rand(2, 1, 4, 5)
    assert torch.equal(gray_to_rgb(gray), gray.repeat(1, 3, 1, 1))
    rgba = torch.rand(2, 4, 4, 5, dtype=torch.float64).requires_grad_()
    color = torch.rand(3, 1, 1, dtype=torch.float64)
    out = rgba_to_rgb(rgba, color)
    for c in range(3):
        expected = rgba[:, c] * rgba[:, 3] + color[c] * (1 - rgba[:, 3])
        torch.testing.assert_close(out[:, c], expected)
    assert torch.autograd.gradcheck(lambda x: rgba_to_rgb(x, color), rgba)
    assert torch.equal(rgba_to_rgb(torch.zeros(1, 4, 2, 2)), torch.ones(1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 5\); expected RGBA"):
        rgba_to_rgb(torch.rand(2, 3, 4, 5))
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 5\); expected \(..., 1, H, W\)"):
        gray_to_rgb(torch.rand(2, 3, 4, 5))
