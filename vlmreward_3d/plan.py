"""What a run will take, from a few steps of each of its phases, measured before it begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.teachers import Denoiser, Reward
from vlmreward_3d.vlm3d import VLM3D

__all__ = ["Phase", "measure", "phases", "table"]


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
    denoiser: Denoiser,
    reward: Reward | None,
    *,
    device: torch.device | str = "cpu",
    repeats: int = 3,
) -> list[Phase]:
    """Run a few steps at the beginning of each phase, on a field as it is at the start.

    A field that has taken shape has fewer rays to sample, so that later phases are over- and not
    underestimated. Nothing of the measured runs is kept.

    Args:
        config: The run's settings.
        denoiser: Its teacher.
        reward: Its reward.
        device: Where it is to run.
        repeats: Measured steps for each step of a cycle of `vlm_every`; one more is run before.

    Returns:
        The phases with seconds, and on a GPU with peaks.
    """
    device = torch.device(device)
    measured = []
    for phase in phases(config):
        model = VLM3D(config, denoiser, reward, device=device)
        model.step_index = phase.first
        model.grid.update(model.field.bake().density, model.generator)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        cycle = config.vlm_every if phase.vlm else 1
        count = min(phase.steps, repeats * cycle)
        if phase.steps > count:
            model.step()
        begin = time.perf_counter()
        for _ in range(count):
            model.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = (time.perf_counter() - begin) / count
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        fixed = (phase.first, phase.steps, phase.views, phase.side, phase.vlm)
        measured.append(Phase(*fixed, seconds, peak))
    return measured


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
