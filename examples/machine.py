"""The machine that measurements were made on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def hardware(device: torch.device) -> str:
    """The GPU, or the processor and how many threads work."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {torch.get_num_threads()} threads"
