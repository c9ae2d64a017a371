"""TensorBoard's curves and a preview of a run in progress."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import imageio.v3 as iio
import torch

from vlmreward_3d.atomic_io import write_atomically
from vlmreward_3d.rendering.evaluation import evaluation_cameras, image_bytes
from vlmreward_3d.vlm3d import VLM3D, StepReport

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoardLogger"]


class TensorBoardLogger:
    """Writer of curves in the folder's `tensorboard`, and of the latest views as `preview.png`.

    Steps are written when `show` is called, after they were saved, so that a run that continues
    from its checkpoint shows none twice.

    Args:
        folder: Folder of the run.
        first: Step at which the run continues; TensorBoard discards former values from there on.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self.folder = folder
        self.waiting: list[StepReport] = []
        self._open(first)

    def _open(self, first: int) -> None:
        self.writer: SummaryWriter | None = None
        where = str(self.folder / "tensorboard")
        try:
            where.encode()
        except UnicodeEncodeError:  # TensorBoard takes no other names
            warnings.warn(
                f"{where!r} is no UTF-8 name: the run goes on without TensorBoard's curves",
                stacklevel=2,
            )
            return
        try:  # here, as it takes a second to import
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            warnings.warn(
                "tensorboard is not installed: the run goes on without its curves, whose numbers "
                "are in metrics.jsonl too; for them: pip install 'vlmreward[tensorboard]'",
                stacklevel=2,
            )
            return
        self.writer = SummaryWriter(where, purge_step=first)

    def rollback(self, step: int) -> None:
        """Discard this step and all after it."""
        self.waiting.clear()
        self.close()
        self._open(step)

    def report(self, report: StepReport) -> None:
        """Store a step, to be shown later."""
        self.waiting.append(report)

    def show(self, model: VLM3D) -> None:
        """Add the steps to the curves, and the asset from four sides, beside each other."""
        if self.writer is not None:
            for report in self.waiting:
                for name, value in report.metrics.items():
                    self.writer.add_scalar(name, value, report.step)
        self.waiting.clear()
        resolution = model.config.camera.resolution(model.step_index / model.config.steps)
        side = min(256, 2 * int(resolution))
        cameras = evaluation_cameras(model.config.camera, 4).to(model.device)
        sheet = torch.cat(list(model.field.render_images(cameras, side, n_samples=64)), dim=2)
        if self.writer is not None:
            self.writer.add_image("views", sheet, model.step_index - 1)
            self.writer.flush()
        png = iio.imwrite("<bytes>", image_bytes(sheet), extension=".png")
        write_atomically(self.folder / "preview.png", png)

    def close(self) -> None:
        """Write the remaining steps, as far as there is room on the disk."""
        with suppress(OSError):
            if self.writer is not None:
                self.writer.close()
