"""The assets of an experiment: a run of ``examples/text_to_3d.py`` for each, and their pictures."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import imageio.v3 as iio
import numpy as np
import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from vlmreward.cli.arguments import slug

EXAMPLE = Path(__file__).parents[1] / "text_to_3d.py"
RESOURCES = "resources.json"
"""File of an asset's CPU time and memory, in the folder of its run."""


class Asset(NamedTuple):
    """One asset of an experiment."""

    arm: str
    prompt: str
    seed: int

    def folder(self, out: Path) -> Path:
        """The folder of its run."""
        return out / slug(self.arm) / f"{slug(self.prompt)}-{self.seed}"


def finished(folder: Path) -> bool:
    """True if the run in the folder has ended with an asset."""
    state = folder / "state.json"
    return state.exists() and bool(json.loads(state.read_text(encoding="utf-8"))["finished"])


def make(
    asset: Asset, folder: Path, flags: Sequence[str], *, steps: int | None, threads: int
) -> str | None:
    """Run the example, or go on with it; the error where it failed."""
    if finished(folder):
        return None
    command = [sys.executable, str(EXAMPLE), asset.prompt, "--out", str(folder), *flags]
    command += ["--seed", str(asset.seed), "--threads", str(threads)]
    if steps:
        command += ["--steps", str(steps)]
    if (folder / "checkpoint.safetensors").exists():
        command.append("--resume")
    folder.mkdir(parents=True, exist_ok=True)
    before = resources(folder)
    seconds, memory = 0.0, before.get("memory", 0.0)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):  # it has ended in the meantime
                seconds = sum(process.cpu_times()[:2])
                memory = max(memory, process.memory_info().rss / 2**20)
            time.sleep(0.2)
        said.seek(0)
        words = said.read()
    used = {"CPU seconds": before.get("CPU seconds", 0.0) + seconds, "memory": memory}
    (folder / RESOURCES).write_text(json.dumps(used), encoding="utf-8")
    return words.strip().splitlines()[-1] if process.returncode else None


def resources(folder: Path) -> dict[str, float]:
    """CPU seconds of the runs of an asset together, and their peak memory in MiB, if recorded."""
    path = folder / RESOURCES
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def load(path: Path) -> dict[Asset, dict[str, float | str]]:
    """The measurements in a file, which need not exist."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {Asset(x.pop("arm"), x.pop("prompt"), x.pop("seed")): x for x in lines}


def append(path: Path, asset: Asset, values: Mapping[str, float | str]) -> None:
    """Add a line to a file of measurements, without those that are missing (NaN)."""
    numbers = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items() if v == v}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**asset._asdict(), **numbers}) + "\n")


def views_of(folder: Path) -> Tensor:
    """The eight views (8, 3, 64, 64) in [0, 1] of the run's views.png."""
    sheet = torch.from_numpy(iio.imread(folder / "views.png")).permute(2, 0, 1).float() / 255
    side = sheet.shape[2] // 8
    views = torch.stack(sheet[:, :side].split(side, 2))
    return F.adaptive_avg_pool2d(views, 64)


def contact_sheet(rows: Sequence[Sequence[Path]], views: int, path: Path) -> None:
    """The first views of every run's asset at half their size, white where there is none."""
    shape = len(rows), max(map(len, rows)), 128, 128 * views, 3
    cells = np.full(shape, 255, np.uint8)
    for i, folders in enumerate(rows):
        for j, folder in enumerate(folders):
            if (folder / "views.png").exists():
                cells[i, j] = iio.imread(folder / "views.png")[:256:2, : views * 256 : 2]
    iio.imwrite(path, np.concatenate(np.concatenate(cells, 1), 1))
