"""The training loop of a run in a folder, with log, checkpoints and continuation.

The folder holds `config.json`, `metrics.jsonl` (one line a step), `checkpoint.safetensors`
(everything needed to continue exactly), `last-good.safetensors` (the latest checkpoint without a
sign of failure, until the run is finished), `state.json` (for readers: the progress of the run),
`preview.png` and `tensorboard`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vlmreward.utils.progress import progress_bar
from vlmreward_3d.training.collapse_detector import CollapseDetector
from vlmreward_3d.training.run_directory import RunDirectory
from vlmreward_3d.training.tensorboard_logger import TensorBoardLogger
from vlmreward_3d.vlm3d import VLM3D, DivergenceError, StepReport

__all__ = ["TrainingInterrupted", "checkpoint_interval", "train"]


class TrainingInterrupted(RuntimeError):
    """Error: the run was interrupted, after its state was saved."""


def checkpoint_interval(steps: int) -> int:
    """Default number of steps between checkpoints: 50, or a fifth of a short run.

    The interval is in steps and not in seconds, because the checkpoint to which a failing run goes
    back must not depend on the machine's speed.
    """
    return min(50, max(1, steps // 5))


def train(
    model: VLM3D,
    folder: RunDirectory,
    *,
    checkpoint_every: int | None = None,
    progress: bool = True,
    watch: Callable[[VLM3D, StepReport], None] | None = None,
) -> None:
    """Run the model to the end of its configuration, starting from the folder's checkpoint, if any.

    On a CPU, a run that was ended at any moment (even by SIGKILL) and started again is
    bit-identical to an uninterrupted one, given the same number of threads.

    Args:
        model: A model of the folder's configuration.
        folder: Folder of the run.
        checkpoint_every: Steps between checkpoints; None: see `checkpoint_interval`.
        progress: Show a progress bar on stderr, or lines if stderr is not a terminal.
        watch: Function that is called after each step with the model, which it must not change,
            and the step's report.

    Raises:
        TrainingInterrupted: SIGINT (Ctrl-C) or SIGTERM was received, and a checkpoint written.
        DivergenceError: The run failed more often than `max_retries` of its configuration; the
            last checkpoint is from before.
        RunError: The disk is full or cannot be written any more; the last checkpoint is intact.
        InUse: Another process works in the folder.
    """
    with folder.held():
        every = checkpoint_every or checkpoint_interval(folder.config.steps)
        _train(model, folder, every, progress, watch)


def _train(
    model: VLM3D,
    folder: RunDirectory,
    checkpoint_every: int,
    progress: bool,
    watch: Callable[[VLM3D, StepReport], None] | None,
) -> None:
    detector = CollapseDetector(folder.config.recovery.patience)
    folder.initialize()
    known = folder.restore(model, detector)
    if not folder.checkpoint_file.exists():
        folder.save(model, detector)
    steps = folder.config.steps
    with (
        _stop_requests() as stop,
        contextlib.closing(TensorBoardLogger(folder.path, model.step_index)) as board,
        progress_bar(
            total=steps, initial=model.step_index, disable=not progress, unit="step"
        ) as bar,
    ):
        for note in folder.notes[len(known) :]:
            bar.write(note, file=sys.stderr)
        while model.step_index < steps:
            began = time.perf_counter()
            try:
                report = model.step()
                failure = detector.update(report)
            except DivergenceError as error:
                failure = str(error)
            folder.seconds += time.perf_counter() - began
            if failure:
                bar.write(folder.rollback(model, detector, failure), file=sys.stderr)
                board.rollback(model.step_index)
                bar.n = model.step_index
                continue
            folder.append(report)
            board.report(report)
            for event in report.events:
                bar.write(event, file=sys.stderr)
            bar.update()
            bar.set_postfix_str(_summary(report))
            if watch is not None:
                watch(model, report)
            if stop or model.step_index % checkpoint_every == 0 or model.step_index == steps:
                folder.save(model, detector)
                with folder.writing():
                    board.show(model)
            if stop and model.step_index < steps:
                raise TrainingInterrupted(
                    f"stopped after step {model.step_index} of {steps}, state saved"
                )


def _summary(report: StepReport) -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in report.headline.items())


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """A list that becomes non-empty on SIGINT or SIGTERM; the second signal acts as usual."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
