"""Measured time and memory of a step, and a forecast for other view counts and image sizes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from vlmreward.doctor.nnls import fitted
from vlmreward.doctor.probe import Probe
from vlmreward.doctor.result import OK, CheckResult, check, skipped
from vlmreward.utils.saved_tensors import counted_bytes

__all__ = ["Point", "forecast", "measured_step", "time_and_memory"]

MEASURED = ((1, 256), (2, 256), (4, 256), (1, 512), (2, 512))
"""Number of views and side in pixels of the steps that are measured."""
VIEWS, SIDES = (1, 2, 4, 8), (256, 512, 1024)
"""Rows and columns of the forecast."""

_RUNS, _ENOUGH = 5, 1.0
"""Largest number of runs of a step, and seconds after which two runs are enough."""


@dataclass(frozen=True)
class Point:
    """Measurement of one step, forward and backward, on one query.

    Attributes:
        tokens: number of tokens of the prompt, images included.
        seconds: shortest time of several runs, the one that other processes disturbed least.
        bytes: on a GPU, peak memory above that before the step; elsewhere the size of the tensors
            saved for the backward pass.
    """

    tokens: int
    seconds: float
    bytes: int


def measured_step(subject: Probe, views: int, side: int) -> Point:
    """Time of a step on one query of ``views`` square images, repeated until it can be timed."""
    prompt = subject.samples[0].prompt
    device = subject.backbone.device
    cuda = device.type == "cuda"
    x = torch.rand(1, views, 3, side, side, generator=torch.Generator().manual_seed(0))
    x = x.to(device).requires_grad_()
    placeholders = dict.fromkeys(subject.reward.question.placeholders, prompt)
    layout = subject.backbone.layout([subject.question(prompt)], [[(side, side)] * views])
    seconds: list[float] = []
    size = 0
    while len(seconds) < 2 or (len(seconds) < _RUNS and sum(seconds) < _ENOUGH):
        if cuda:
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            held = torch.cuda.memory_allocated(device)
        start = time.perf_counter()
        if cuda:
            subject.reward(x, **placeholders).sum().backward()
            torch.cuda.synchronize(device)
        else:
            with counted_bytes(subject.vlm) as kept:
                value = subject.reward(x, **placeholders).sum()
            value.backward()
        seconds.append(time.perf_counter() - start)
        size = torch.cuda.max_memory_allocated(device) - held if cuda else sum(kept.values())
        x.grad = None
    return Point(int(layout.last_token_index[0]) + 1, min(seconds), size)


def _differentiable(subject: Probe) -> bool:
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    return bool(subject.ask([[x[0]]], [subject.samples[0].prompt]).requires_grad)


@check("time and memory")
def time_and_memory(subject: Probe) -> CheckResult:
    """One step, forward and backward, on one view."""
    if not _differentiable(subject):
        return skipped("there is no backward pass: see 'gradient'")
    point = measured_step(subject, *MEASURED[0])
    weights = sum(p.numel() * p.element_size() for p in subject.vlm.parameters())
    what = "peak" if subject.backbone.device.type == "cuda" else "kept for the backward pass"
    return CheckResult(
        "",
        OK,
        f"{point.seconds:.2f} s, {_size(point.bytes)} {what}, besides {_size(weights)} of weights "
        f"(1 view, 256x256, {point.tokens} tokens)",
        metrics={"seconds": point.seconds, "bytes": point.bytes, "weights": weights},
    )


@check("forecast")
def forecast(subject: Probe) -> CheckResult:
    """Time and memory by number of views and size, from a few measured steps."""
    if not _differentiable(subject):
        return skipped("there is no backward pass: see 'gradient'")
    points = [measured_step(subject, views, side) for views, side in MEASURED]
    features = [_work(subject, views, side) for views, side in MEASURED]
    seconds, off = fitted(features, [p.seconds for p in points])
    sizes, size_off = fitted(features, [float(p.bytes) for p in points])
    rows, figures = [], {}
    for views in VIEWS:
        cells = []
        for side in SIDES:
            at = _work(subject, views, side)
            cell = (seconds(at), sizes(at))
            cells.append(f"{cell[0]:8.2f} s {_size(cell[1]):>9}")
            figures[f"{views}x{side}"] = {"seconds": cell[0], "bytes": cell[1]}
        rows.append(f"{views:>5} |" + " |".join(cells))
    head = "views |" + " |".join(f"{f'{s}x{s}':>20}" for s in SIDES)
    return CheckResult(
        "",
        OK,
        f"a forecast, from {len(points)} measured steps, which its fit misses by up to {off:.0%} "
        f"(time) and {size_off:.0%} (memory)",
        details=(head, *rows),
        metrics={"forecast": figures, "fit_off": [off, size_off]},
    )


def _work(subject: Probe, views: int, side: int) -> tuple[float, float]:
    """The quantities that a step's cost grows with: image tokens, and pixels in millions."""
    question = subject.question(subject.samples[0].prompt)

    def length(n: int) -> int:
        return (
            int(subject.backbone.layout([question], [[(side, side)] * n]).last_token_index[0]) + 1
        )

    # every view adds as many
    return float(views * (length(2) - length(1))), views * side * side / 1e6


def _size(count: float) -> str:
    return f"{count / 2**30:.2f} GB" if count >= 2**30 else f"{count / 2**20:.1f} MB"
