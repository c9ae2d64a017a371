"""Runs in processes of their own, to be killed.

They are forked from a process that has imported all that they need, which takes most of the time
of a fresh one. Words after the folder are "resume", "student", "growing" and "limit=N". With
"student" the distillation rule has a student that learns. With "growing" the field is of Gaussians
whose number changes. With a limit no file can grow past N bytes after the first answer of the
reward, as if a disk were full.
"""

import os
import resource
import sys
from multiprocessing import forkserver, get_context
from pathlib import Path
from unittest import mock

import torch
from stub_models import AttentiveDenoiser, RandomDenoiser, build_vlm3d, redness, tiny

from vlmreward_3d.atomic_io import InUse
from vlmreward_3d.config import DensificationConfig
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.training.run_directory import RunDirectory, RunError
from vlmreward_3d.training.trainer import TrainingInterrupted, train

CONFIG = tiny(
    steps=120, field__orientation_weight=Schedule.ramp(0.0, 0.1), vlm__weighting__interval=2
)
STUDENT_CONFIG = tiny(
    steps=40, vlm=None, score_distillation__rule="asd", score_distillation__student__rank=2
)
GROWING_CONFIG = tiny(
    steps=40,
    field="gaussians",
    field__n_gaussians=40,
    field__densification=DensificationConfig(
        interval=5,
        grad_threshold=3e-3,
        split_size=0.18,
        min_opacity=0.01,
        reset_interval=25,
        max_gaussians=200,
    ),
)
CHECKPOINT_EVERY = 7


def main(out: str, *words: str) -> int:
    torch.set_num_threads(1)
    config, denoiser = CONFIG, RandomDenoiser()
    if "student" in words:
        config, denoiser = STUDENT_CONFIG, AttentiveDenoiser()
    if "growing" in words:
        config = GROWING_CONFIG
    try:
        folder = RunDirectory(out, config, resume="resume" in words)
    except ValueError as error:
        print(error, flush=True)
        return 2
    limits = [int(word.removeprefix("limit=")) for word in words if word.startswith("limit=")]

    def reward(images, prompt):
        for limit in limits:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        return redness(images, prompt)

    model = build_vlm3d(config, denoiser, None if config.vlm is None else reward)
    try:
        train(model, folder, checkpoint_every=CHECKPOINT_EVERY, progress=False)
    except TrainingInterrupted as error:
        print(error, flush=True)
        return 130
    except (RunError, InUse) as error:
        print(error, flush=True)
        return 2
    return 0


_FORKS = get_context("forkserver")


class Run(_FORKS.Process):
    """A run that has been started.

    Args:
        out: Folder of the run.
        *words: Further arguments of ``main``.
    """

    def __init__(self, out: Path, *words: str) -> None:
        super().__init__(daemon=True)
        self._words = (str(out), *words)
        self._reader, self._writer = _FORKS.Pipe(duplex=False)
        # the server looks for what it imports, at its first start, in this process's folders
        forkserver.set_forkserver_preload(["training_worker", "torch.utils.tensorboard"])
        with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
            self.start()
        self._writer.close()

    def run(self) -> None:
        os.dup2(self._writer.fileno(), sys.stdout.fileno())
        sys.exit(main(*self._words))

    def wait(self) -> int | None:
        """The exit code; None if it has not ended after eight minutes."""
        self.join(480)
        return self.exitcode

    def said(self) -> str:
        """Printed output of the process, to be read once and after its end."""
        with open(self._reader.fileno(), closefd=False) as stream:
            return stream.read()
