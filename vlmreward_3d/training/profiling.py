"""Time and memory of a run, from a few steps of each of its phases, measured before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.formatting import duration
from vlmreward_3d.guidance.base import Guidance, GuidanceOutput
from vlmreward_3d.guidance.weighting import WeightedGuidance
from vlmreward_3d.vlm3d import VLM3D

__all__ = ["ChunkTiming", "Phase", "best_chunk", "measure", "measure_chunks", "phases", "table"]


@dataclass(frozen=True)
class Phase:
    """A phase of a run, in which all steps have the same cost.

    Attributes:
        first: The first step.
        steps: Number of steps.
        views: Views rendered in a step.
        resolution: Height and width of the images in pixels.
        vlm: True if the VLM is evaluated.
        seconds: Mean time of a step over an interval of the VLM; None before the measurement.
        peak_memory: Peak memory of the GPU in bytes, weights included; None on a CPU.
    """

    first: int
    steps: int
    views: int
    resolution: int
    vlm: bool
    seconds: float | None = None
    peak_memory: int | None = None


def phases(config: VLM3DConfig) -> list[Phase]:
    """The phases of a configuration, in order."""
    camera, vlm = config.camera, config.vlm
    ends = [*camera.n_groups.jumps, *camera.resolution.jumps, *config.field.changes_at]
    if vlm is not None:
        ends.append(vlm.weighting.stop_at)
    # the first step whose progress is not below the end; rounding as in the run itself
    first = {next((i for i in range(config.steps) if i / config.steps >= at), 0) for at in ends}
    starts = sorted({0, *first})
    out = []
    for start, stop in zip(starts, [*starts[1:], config.steps]):
        progress = start / config.steps
        out.append(
            Phase(
                start,
                stop - start,
                int(camera.n_groups(progress)) * camera.views_per_group,
                int(camera.resolution(progress)),
                vlm is not None and progress < vlm.weighting.stop_at,
            )
        )
    return out


def measure(
    config: VLM3DConfig,
    guidances: Sequence[Guidance | WeightedGuidance],
    *,
    device: torch.device | str = "cpu",
    repeats: int = 3,
) -> list[Phase]:
    """Measure a few steps at the beginning of each phase, with a field in its initial state.

    A field with a shape has fewer rays to sample, so that the cost of later phases is over- and not
    underestimated. Nothing of the measured runs is kept.

    Args:
        config: The run's settings.
        guidances: The run's guidances.
        device: Device of the run.
        repeats: Measured steps for each step of the VLM's interval, after one unmeasured step.

    Returns:
        The phases with `seconds`, and on a GPU with `peak_memory`.
    """
    device = torch.device(device)
    measured = []
    for phase in phases(config):
        model = VLM3D(config, guidances, device=device)
        model.step_index = phase.first
        model.field.update_occupancy(model.generator)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        cycle = config.vlm.weighting.interval if phase.vlm and config.vlm is not None else 1
        count = min(phase.steps, repeats * cycle)
        if phase.steps > count:
            model.step()
        seconds = sum(_timed(model.step, device) for _ in range(count)) / count
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        measured.append(replace(phase, seconds=seconds, peak_memory=peak))
    return measured


class _NullGuidance:
    """A guidance without a gradient, to measure rendering alone."""

    name = "none"

    def __call__(
        self, images: Tensor, cameras: Cameras, progress: float, generator: torch.Generator
    ) -> GuidanceOutput:
        return GuidanceOutput(images.new_zeros(()), torch.zeros_like(images))


@dataclass(frozen=True)
class ChunkTiming:
    """Time and memory of rendering in chunks of rays.

    Attributes:
        rays: Rays in a chunk.
        seconds: Shortest time over some steps to render a step's views and differentiate them.
        peak_memory: Peak memory of the GPU in bytes beyond that in use before; None on a CPU.
    """

    rays: int
    seconds: float
    peak_memory: int | None


def measure_chunks(
    config: VLM3DConfig,
    *,
    device: torch.device | str = "cpu",
    smallest: int = 4096,
    repeats: int = 2,
) -> list[ChunkTiming]:
    """Measure the rendering of the phase with the most rays, with chunks of growing size.

    Args:
        config: The run's settings, with a field that is sampled along rays; its `rays_per_chunk`
            has no effect.
        device: Device of the run. On a GPU, the models that share its memory should be loaded.
        smallest: Number of rays of the first chunk size; each next one is four times as large.
        repeats: Number of measured steps per size.

    Returns:
        Timings in ascending order of the chunk size, up to all rays of a step or until the GPU's
        memory is exhausted.
    """
    device = torch.device(device)
    largest = max(phases(config), key=lambda phase: phase.views * phase.resolution**2)
    rays = largest.views * largest.resolution**2
    sizes = [smallest * 4**i for i in range(20) if smallest * 4**i < rays] + [rays]
    measured = []
    for size in sizes:
        chunked = config.replace({"field.rays.rays_per_chunk": size})
        model = VLM3D(chunked, [_NullGuidance()], device=device)
        model.step_index = largest.first
        model.field.update_occupancy(model.generator)
        try:
            model.step()
            before = _allocated(device)
            seconds = min(_timed(model.step, device) for _ in range(repeats))
        except torch.OutOfMemoryError:
            break
        peak = None
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device) - before
        measured.append(ChunkTiming(size, seconds, peak))
    return measured


def best_chunk(measured: Sequence[ChunkTiming]) -> ChunkTiming:
    """The smallest chunk that is at most 5 % slower than the fastest."""
    fastest = min(chunk.seconds for chunk in measured)
    return next(chunk for chunk in measured if chunk.seconds <= 1.05 * fastest)


def _allocated(device: torch.device) -> int:
    """Bytes in use on a GPU, where the peak is counted anew from here; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def table(measured: Sequence[Phase]) -> str:
    """The phases and their sum, as text."""
    head = f"{'steps':>15} {'views':>5} {'side':>4} {'VLM':>3} {'s/step':>8} {'total':>13} memory"
    lines = [head]
    total = 0.0
    for phase in measured:
        seconds = phase.seconds or 0.0
        total += seconds * phase.steps
        peak = "" if phase.peak_memory is None else f"{phase.peak_memory / 2**30:.1f} GiB"
        span = f"{phase.first} to {phase.first + phase.steps}"
        lines.append(
            f"{span:>15} {phase.views:>5} {phase.resolution:>4} {'yes' if phase.vlm else 'no':>3} "
            f"{seconds:>8.3f} {duration(seconds * phase.steps):>13} {peak}".rstrip()
        )
    lines.append(f"{'all':>15} {'':>23} {duration(total):>13}")
    return "\n".join(lines)
