"""What a run will take, from a few steps of each of its phases, measured before it begins."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.guidance.base import Guidance, GuidanceOutput
from vlmreward_3d.guidance.weighting import WeightedGuidance
from vlmreward_3d.vlm3d import VLM3D

__all__ = ["Chunk", "Phase", "best_chunk", "measure", "measure_chunks", "phases", "table"]


@dataclass(frozen=True)
class Phase:
    """Steps that cost the same.

    Attributes:
        first: The first step.
        steps: How many they are.
        views: Rendered at a step.
        side: Of the images in pixels.
        vlm: Whether the VLM is asked.
        seconds: Of a step, on average over the steps between two questions to the VLM; None before
            it is measured.
        peak: Bytes on the GPU at most, weights included; None on a CPU.
    """

    first: int
    steps: int
    views: int
    side: int
    vlm: bool
    seconds: float | None = None
    peak: int | None = None


def phases(config: VLM3DConfig) -> list[Phase]:
    """The phases of a configuration, in order."""
    ends = [at for at, _ in (*config.rings_later, *config.resolution_later)]
    ends += [config.shading_from, config.vlm_until]
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
                config.rings_at(progress) * config.views_per_ring,
                config.resolution_at(progress),
                config.vlm is not None and progress < config.vlm_until,
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
    """Run a few steps at the beginning of each phase, on a field as it is at the start.

    A field that has taken shape has fewer rays to sample, so that later phases are over- and not
    underestimated. Nothing of the measured runs is kept.

    Args:
        config: The run's settings.
        guidances: Its guidances.
        device: Where it is to run.
        repeats: Measured steps for each step of a cycle of `vlm_every`; one more is run before.

    Returns:
        The phases with seconds, and on a GPU with peaks.
    """
    device = torch.device(device)
    measured = []
    for phase in phases(config):
        model = VLM3D(config, guidances, device=device)
        model.step_index = phase.first
        model.field.update_occupancy(model.generator)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        cycle = config.vlm_every if phase.vlm else 1
        count = min(phase.steps, repeats * cycle)
        if phase.steps > count:
            model.step()
        seconds = sum(_timed(model.step, device) for _ in range(count)) / count
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        fixed = (phase.first, phase.steps, phase.views, phase.side, phase.vlm)
        measured.append(Phase(*fixed, seconds, peak))
    return measured


class _NoGuidance:
    """A guidance without a gradient, to measure rendering alone."""

    name = "none"

    def __call__(
        self, images: Tensor, cameras: Cameras, progress: float, generator: torch.Generator
    ) -> GuidanceOutput:
        return GuidanceOutput(images.new_zeros(()), torch.zeros_like(images))


@dataclass(frozen=True)
class Chunk:
    """What rendering takes with so many rays at a time.

    Attributes:
        rays: At a time.
        seconds: Of rendering and its way back at a step; the least of some.
        peak: Bytes on the GPU beyond what is there without it; None on a CPU.
    """

    rays: int
    seconds: float
    peak: int | None


def measure_chunks(
    config: VLM3DConfig,
    *,
    device: torch.device | str = "cpu",
    smallest: int = 4096,
    repeats: int = 2,
) -> list[Chunk]:
    """Render the phase with the most rays, with more and more of them at a time.

    Args:
        config: The run's settings; its `rays_per_chunk` is not looked at.
        device: Where it is to run; on a GPU with the models loaded that it is to share.
        smallest: The first number of rays; each next is four times as many.
        repeats: Measured steps.

    Returns:
        Ascending, up to all rays of a step or the GPU's memory.
    """
    device = torch.device(device)
    largest = max(phases(config), key=lambda phase: phase.views * phase.side**2)
    rays = largest.views * largest.side**2
    sizes = [smallest * 4**i for i in range(20) if smallest * 4**i < rays] + [rays]
    measured = []
    for size in sizes:
        chunked = dataclasses.replace(config, rays_per_chunk=size)
        model = VLM3D(chunked, [_NoGuidance()], device=device)
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
        measured.append(Chunk(size, seconds, peak))
    return measured


def best_chunk(measured: Sequence[Chunk]) -> Chunk:
    """The smallest that is at most 5 % slower than the fastest."""
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
    lines = [f"{'steps':>15} {'views':>5} {'side':>4} {'VLM':>3} {'s/step':>8} {'total':>9} memory"]
    total = 0.0
    for phase in measured:
        seconds = phase.seconds or 0.0
        total += seconds * phase.steps
        peak = "" if phase.peak is None else f"{phase.peak / 2**30:.1f} GiB"
        span = f"{phase.first} to {phase.first + phase.steps}"
        lines.append(
            f"{span:>15} {phase.views:>5} {phase.side:>4} {'yes' if phase.vlm else 'no':>3} "
            f"{seconds:>8.3f} {_duration(seconds * phase.steps):>9} {peak}".rstrip()
        )
    lines.append(f"{'all':>15} {'':>23} {_duration(total):>9}")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
