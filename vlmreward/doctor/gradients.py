"""Checks that the gradient reaches every view and equals finite differences of the reward."""

from __future__ import annotations

import copy
import itertools

import psutil
import torch
from torch import Tensor, nn

from vlmreward.doctor.float64 import Float64Throughout
from vlmreward.doctor.probe import Probe
from vlmreward.doctor.result import FAIL, WARN, CheckResult, check, failed, pass_or_fail, skipped

__all__ = ["finite_differences", "gradient", "slopes"]

_DETACHED = (
    "something between the pixels and the answer leaves the graph: look for .detach(), .data, "
    "numpy, PIL, torch.no_grad() or inference_mode"
)


def _inside(views: tuple[Tensor, ...], dtype: torch.dtype) -> list[Tensor]:
    """Views in [0.1, 0.9], as leaves: steps in both directions stay inside of [0, 1]."""
    return [(0.1 + 0.8 * view.to(dtype) / 255).requires_grad_() for view in views]


@check("gradient")
def gradient(subject: Probe) -> CheckResult:
    """Gradient finite and not zero at every view of every query of a mixed batch."""
    samples = subject.mixed[:2]
    views = [_inside(sample.views, torch.float32) for sample in samples]
    flat = [view for row in views for view in row]
    rewards = subject.ask(views, [sample.prompt for sample in samples])
    if not rewards.requires_grad:
        return failed("the reward has no graph", "at every view", _DETACHED)
    gradients = torch.autograd.grad(rewards.sum(), flat, allow_unused=True)
    norms = [0.0 if g is None else float(g.double().norm()) for g in gradients]
    arrives = sum(norm > 0 for norm in norms)
    measured = (
        f"arrives at {arrives} of {len(norms)} views, norms {min(norms):.1e} to {max(norms):.1e}"
    )
    status, advice = FAIL, _DETACHED
    finite = all(norm < float("inf") for norm in norms)
    silent = [i for i, norm in enumerate(norms) if norm == 0]
    if not finite:
        advice = "it overflows: use another dtype (bfloat16, not float16)"
    elif arrives and silent and not any(_matters(subject, views, i) for i in silent):
        status = WARN
        measured += "; the answer does not depend on the others"
        advice = (
            "no fault of the gradient: from the end of the prompt this model does not see all "
            "images (sliding windows, or attention to the last image only); ask about fewer views, "
            "in shorter prompts"
        )
    return pass_or_fail(
        finite and not silent,
        measured,
        "finite, not 0 at any view",
        advice,
        otherwise=status,
        norms=norms,
    )


def _matters(subject: Probe, views: list[list[Tensor]], which: int) -> bool:
    """True if the negative of a view, the ``which``-th of all, changes an answer."""
    prompts = [sample.prompt for sample in subject.samples[: len(views)]]
    counter = itertools.count()
    changed = [[1 - v if next(counter) == which else v for v in row] for row in views]
    with torch.no_grad():
        return not torch.equal(subject.ask(changed, prompts), subject.ask(views, prompts))


@check("finite differences")
def finite_differences(subject: Probe) -> CheckResult:
    """Directional derivatives against central differences, in float64 if a copy fits."""
    dtype = _precision(subject)
    if dtype is None:
        return skipped("not enough memory for a copy of the model in float32")
    try:
        shared = {id(subject.processor): subject.processor}
        reward = copy.deepcopy(subject.reward, shared).to(dtype)
    except (TypeError, ValueError, NotImplementedError) as error:  # quantized models
        return skipped(f"no copy in {dtype} can be made: {error}")
    reward.backbone.image_processor = subject.in_mode("float")
    return slopes(reward, subject)


def _precision(subject: Probe) -> torch.dtype | None:
    """The highest precision in which a copy of the model fits into memory, or None."""
    parameters = list(subject.vlm.parameters())
    count = sum(p.numel() for p in parameters)
    now = sum(p.numel() * p.element_size() for p in parameters)
    free = _free_memory(subject.vlm.device)
    for dtype in (torch.float64, torch.float32):
        # the copy in its old precision, in the new one, and as much again to work with
        if now + 2 * count * dtype.itemsize <= free:
            return dtype
    return None


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def slopes(reward: nn.Module, subject: Probe) -> CheckResult:
    """Directional derivatives and finite differences, along the gradient and a random direction.

    The steps are small in float64, and in float32 large enough for the difference of two rewards to
    stand out of their rounding; hence the limits.
    """
    dtype = next(reward.parameters()).dtype
    double = dtype == torch.float64
    step, limit = (1e-5, 1e-4) if double else (3e-4, 2e-2)
    sample = subject.samples[1]
    views = _inside(sample.views, dtype)
    placeholders = dict.fromkeys(subject.reward.question.placeholders, sample.prompt)
    generator = torch.Generator().manual_seed(0)

    with Float64Throughout(double):
        value = reward([views], **placeholders)
        if not value.requires_grad:
            return skipped("there is no gradient to compare with: see 'gradient'")
        gradients = torch.autograd.grad(value.sum(), views, allow_unused=True)
        gradients = tuple(torch.zeros_like(v) if g is None else g for g, v in zip(gradients, views))
        largest = max(float(g.abs().max()) for g in gradients)
        length = sum(float(g.square().sum()) for g in gradients) ** 0.5
        along = [g / largest if largest else g for g in gradients]
        random = [torch.randn(v.shape, generator=generator, dtype=dtype) for v in views]
        many = sum(v.numel() for v in views) ** 0.5
        errors = []
        for direction in (along, random):
            with torch.no_grad():
                ends = [
                    reward([[v + s * step * d for v, d in zip(views, direction)]], **placeholders)
                    for s in (1, -1)
                ]
            slope = float((ends[0] - ends[1]).double().sum()) / (2 * step)
            expected = sum(float((g * d).sum()) for g, d in zip(gradients, direction))
            size = sum(float(d.square().sum()) for d in direction) ** 0.5
            # a random direction can be level: no less than what is usual for one of its length
            scale = max(abs(expected), length * size / many)
            errors.append(abs(slope - expected) / scale if scale else float(slope != 0))
    good = all(error <= limit for error in errors)  # False for NaN too
    worst = max(errors)
    return pass_or_fail(
        good,
        f"off by {worst:.1e} of the slope, in {str(dtype).removeprefix('torch.')}",
        f"{limit:.0e}",
        "the gradient is not that of the reward: a straight-through or detached part, or an "
        "operation with a wrong backward",
        worst=worst,
        precision=str(dtype).removeprefix("torch."),
    )
