"""Checks that the image processor's output equals that of transformers' own."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmreward.doctor.probe import Probe, noise
from vlmreward.doctor.reference import HFObject, Inputs
from vlmreward.doctor.result import CheckResult, check, failed, pass_or_fail, skipped
from vlmreward.processors import ImageProcessor
from vlmreward.processors.base import read_constants

__all__ = ["flat_images", "processor_float", "processor_uint8"]

SIZES = ((224, 224), (97, 61), (240, 320), (64, 200))
"""Heights and widths of the images that go through both processors."""

_CONSTANTS = (
    "the constants, the resize or the layout differ from the checkpoint's: was the model's "
    "processor changed after loading? build the reward anew; if not, processors.from_hf is wrong "
    "for this model"
)


def _theirs(hf: HFObject, images: list[Tensor], options: Inputs) -> Inputs:
    """HF's output for images of any dtype, with values in levels from 0 to 255."""
    if getattr(hf, "backend", None) == "pil":
        made = hf([image.permute(1, 2, 0).numpy() for image in images], return_tensors="pt")
    else:
        made = hf(images, return_tensors="pt", **options)
    return {"pixel_values": made} if isinstance(made, Tensor) else dict(made)


def _differing(ours: Inputs, theirs: Inputs) -> list[str]:
    """Differences in keys, shapes, grids and masks."""
    different = [f"no {key}" for key in theirs if key not in ours]
    for key in [key for key in theirs if key in ours]:
        a, b = torch.as_tensor(ours[key]), torch.as_tensor(theirs[key])
        if a.shape != b.shape:
            different.append(f"{key} {tuple(a.shape)}, HF's {tuple(b.shape)}")
        elif not b.is_floating_point() and not torch.equal(a, b.to(a.dtype)):
            different.append(f"{key} of other values")
    return different


def _both(
    subject: Probe, ours: ImageProcessor, dtype: torch.dtype, hf_dtype: torch.dtype
) -> tuple[Tensor, list[str]]:
    """Absolute differences of all values, and differences of the layout in words."""
    differences, layout = [], []
    for seed, size in enumerate(SIZES):
        levels = [noise(size, seed)]
        options = getattr(ours, "options", {})
        theirs = _theirs(subject.hf, [image.to(hf_dtype) for image in levels], options)
        made = ours([image.to(dtype) / 255 for image in levels])
        if different := _differing(made, theirs):
            layout.append(f"{size[0]}x{size[1]}: {', '.join(different)}")
        else:
            difference = made["pixel_values"].double() - theirs["pixel_values"].double()
            differences.append(difference.abs().flatten())
    return torch.cat(differences) if differences else torch.zeros(0), layout


def _wrong_layout(layout: list[str]) -> CheckResult:
    return failed("; ".join(layout), "keys, shapes, grids and masks of HF's", _CONSTANTS)


@check("processor, float")
def processor_float(subject: Probe) -> CheckResult:
    """Float images, double and single precision, against HF's torchvision backend in double."""
    if getattr(subject.hf, "backend", None) == "pil":
        return skipped("the processor's backend is PIL, which has no float path")
    ours = subject.in_mode("float")
    double, layout = _both(subject, ours, torch.float64, torch.float64)
    if layout:
        return _wrong_layout(layout)
    single, _ = _both(subject, ours, torch.float32, torch.float64)
    lanczos = getattr(getattr(ours, "constants", None), "filter", "") == "lanczos"
    limits = (2e-5, 2e-4 if lanczos else 1e-4)
    worst = (float(double.max()), float(single.max()))
    return pass_or_fail(
        all(w <= limit for w, limit in zip(worst, limits)),
        f"off by {worst[0]:.1e} in float64, {worst[1]:.1e} in float32",
        f"{limits[0]:.0e}, {limits[1]:.0e}",
        _CONSTANTS,
        float64=worst[0],
        float32=worst[1],
    )


@check("processor, uint8")
def processor_uint8(subject: Probe) -> CheckResult:
    """8-bit images against HF's own backend: equal but for single steps of rounding."""
    if not subject.has_modes:
        return skipped("HF's own processor is used, without an 8-bit mode")
    difference, layout = _both(subject, subject.in_mode("uint8"), torch.float32, torch.uint8)
    if layout:
        return _wrong_layout(layout)
    share, worst = float((difference > 1e-5).double().mean()), float(difference.max())
    step = 1.01 * max(read_constants(subject.hf).scale) / 255
    return pass_or_fail(
        share <= 1e-4 and worst <= step,
        f"{share:.1e} of the values differ, by at most {worst:.1e}",
        f"1e-04, one level ({step:.1e})",
        _CONSTANTS,
        share=share,
        worst=worst,
    )


@check("flat images")
def flat_images(subject: Probe) -> CheckResult:
    """Mid-gray and black give ``level * scale + bias`` everywhere, and a finite reward."""
    try:
        constants = read_constants(subject.hf)
    except AttributeError as error:
        return skipped(f"the image processor does not tell its constants ({error})")
    worst, rewards = 0.0, []
    images = subject.in_mode("float")  # 0.5 itself, which 8 bits do not have
    for level in (0.5, 0.0):
        image = torch.full((3, 64, 64), level)
        made = images([image])
        values = made["pixel_values"].flatten().double()
        expected = [level * s + b for s, b in zip(constants.scale, constants.bias)]
        padding = [0.0] if "pixel_attention_mask" in made else []
        away = torch.stack([(values - e).abs() for e in [*expected, *padding]])
        # every value is one of the expected ones, and each of these occurs
        off = max(float(away.amin(0).max()), float(away[: len(expected)].amin(1).max()))
        worst = max(worst, off if off == off else float("inf"))
        with torch.no_grad():
            rewards.append(float(subject.ask([[image]], [subject.samples[0].prompt])))
    finite = all(abs(r) < float("inf") for r in rewards)
    return pass_or_fail(
        worst <= 1e-5 and finite,
        f"off by {worst:.1e}; reward of gray {rewards[0]:+.2f}, of black {rewards[1]:+.2f}",
        "1e-05 from level * scale + bias; finite",
        _CONSTANTS if finite else "the model overflows: use another dtype (bfloat16, not float16)",
        worst=worst,
        gray=rewards[0],
        black=rewards[1],
    )
