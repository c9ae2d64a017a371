"""The folder of a run: start, saving, continuation and rollback."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmreward_3d.atomic_io import link_or_copy, locked, require_free, write_atomically
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.errors import DivergenceError, RunError
from vlmreward_3d.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vlmreward_3d.training.collapse_detector import CollapseDetector
from vlmreward_3d.training.run_checks import require_same_run, require_unused, require_writable
from vlmreward_3d.training.run_files import RESULTS, STATE, RunFiles, read_object
from vlmreward_3d.training.run_log import RunLog
from vlmreward_3d.vlm3d import VLM3D, StepReport

__all__ = ["RunDirectory", "RunError"]


class RunDirectory(RunFiles):
    """The folder of one run. The constructor checks that it can be used and changes nothing in it.

    One process at a time works in it: `train` locks the folder, and `held` locks it for longer.

    Args:
        path: The folder; it is created with its parents.
        config: The run's settings.
        resume: Continue the run in the folder.
        overwrite: Discard the run in the folder.

    Raises:
        InUse: Another process works in the folder.
        RunError: The folder cannot be written, holds another run, or holds no run to resume.
    """

    def __init__(
        self,
        path: Path | str,
        config: VLM3DConfig,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        if path == "":  # which pathlib takes for the working directory
            raise RunError("received path=''; expected the name of a folder; pass another --out")
        super().__init__(Path(path))
        self.config = config
        self.resume = resume
        self.overwrite = overwrite
        self._log = RunLog(self.metrics_file)
        require_writable(self)
        require_free(self.path)
        self._require_fitting()
        self._held = self._begun = False
        self.notes: tuple[str, ...] = ()
        """Events of the run that its owner should know, a sentence each."""
        self.saved = 0
        """The step of the checkpoint."""
        self.seconds = 0.0
        """Time of all steps, over all starts; 0 if a former start did not note it."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Context that locks the folder for this process; nested uses have no further effect.

        Raises:
            InUse: Another process holds the lock.
            RunError: The folder holds another run since this object was made.
        """
        if self._held:
            yield
            return
        with contextlib.ExitStack() as stack:
            with self.writing():
                stack.enter_context(locked(self.path))
            if not self._begun:
                self._require_fitting()
            self._held = True
            try:
                yield
            finally:
                self._held = False

    def _require_fitting(self) -> None:
        if self.resume:
            require_same_run(self, self.config)
        elif not self.overwrite:
            require_unused(self)

    def save(self, model: VLM3D, detector: CollapseDetector) -> None:
        """Replace the checkpoint by the present state."""
        state = model.state() | {"collapse_detector": detector.state()}
        with self.writing():
            # the log first: a checkpoint never knows of steps that the log does not
            self._log.sync()
            checkpoint = Checkpoint(model.step_index, self.config.to_json(), state, self.notes)
            save_checkpoint(self.checkpoint_file, checkpoint)
            self.saved = model.step_index
            if detector.healthy:
                link_or_copy(self.checkpoint_file, self.good_file)
            self._write_state(model.step_index, finished=False)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Context around writes to the folder; raises RunError if one fails."""
        try:
            yield
        except OSError as error:
            raise RunError(
                f"cannot write to {self.path} ({error.strerror}); expected room on a disk that can "
                f"be written; the checkpoint of step {self.saved} is intact: mend it, and go on "
                "with --resume"
            ) from error

    def finish(self) -> None:
        """Record that the run's results are written."""
        with self.writing():
            self._write_state(self.config.steps, finished=True)
            self.good_file.unlink(missing_ok=True)

    def _write_state(self, step: int, *, finished: bool) -> None:
        state = {
            "step": step,
            "steps": self.config.steps,
            "finished": finished,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }
        write_atomically(self.state_file, json.dumps(state) + "\n")

    def initialize(self) -> None:
        """Write the settings; with `overwrite`, after deleting the former run."""
        self._begun = True
        with self.writing():
            if self.overwrite:
                for name in (*STATE, *RESULTS):
                    (self.path / name).unlink(missing_ok=True)
                shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
            for left_by_a_kill in self.path.glob(".*.partial*"):
                left_by_a_kill.unlink()
            write_atomically(self.config_file, self.config.to_json())

    def restore(self, model: VLM3D, detector: CollapseDetector) -> tuple[str, ...]:
        """Load the checkpoint, if there is one, and cut the log to its step.

        Returns:
            The checkpoint's notes; `notes` may have more.
        """
        if self.checkpoint_file.exists():
            checkpoint = _load(self.checkpoint_file, model, detector)
            self.saved, self.notes = checkpoint.step, checkpoint.notes
            if detector.healthy:  # a kill may have come between the two
                with self.writing():
                    link_or_copy(self.checkpoint_file, self.good_file)
        with contextlib.suppress(RunError, ValueError, TypeError, KeyError):
            seconds = float(read_object(self.state_file, "the state of a run")["seconds"])
            self.seconds = seconds if math.isfinite(seconds) else 0.0
        known = self.notes
        kept = self._cut_log(model.step_index)
        if kept < model.step_index:
            note = (
                f"metrics.jsonl lacks {model.step_index - kept} steps that were done, as it was "
                "deleted or cut: their numbers and curves are lost, the run itself is not"
            )
            if note not in known:
                self.notes = (*known, note)
        return known

    def rollback(self, model: VLM3D, detector: CollapseDetector, failure: str) -> str:
        """Return to the last good checkpoint, and continue from there with other random numbers.

        Args:
            model: A model that has failed.
            detector: The run's collapse detector.
            failure: Description of the failure and its step, for the note.

        Returns:
            Note about the failure and the rollback, as recorded in the run.

        Raises:
            DivergenceError: The run has gone back as often as its configuration allows.
        """
        tries, allowed = model.retries, self.config.recovery.max_retries
        if tries >= allowed:
            after = f" after {tries} retries" if tries else ""
            raise DivergenceError(
                f"{failure}{after} (the checkpoint of step {self.saved} is intact)"
            )
        good = _load(self.good_file, model, detector)
        model.reseed(tries + 1)
        note = (
            f"{failure}; back to step {good.step} with other random numbers and half the learning "
            f"rate (retry {tries + 1} of {allowed})"
        )
        self.notes = (*self.notes, note)
        self.save(model, detector)
        self._cut_log(model.step_index)
        return note

    def append(self, report: StepReport) -> None:
        """Add a step to the log."""
        with self.writing():
            self._log.append(report)

    def metrics(self) -> list[StepReport]:
        """The log so far.

        Raises:
            RunError: The log is damaged.
        """
        return [report for _, report in self._log.read(self.saved)]

    def _cut_log(self, steps: int) -> int:
        """Cut the log to the lines of the first steps, and return their number."""
        kept = [line for line, report in self._log.read(self.saved) if report.step < steps]
        with self.writing():
            self._log.rewrite(kept)
        return len(kept)


def _load(file: Path, model: VLM3D, detector: CollapseDetector) -> Checkpoint:
    """Bring a model and its detector to the state in a checkpoint."""
    checkpoint = load_checkpoint(file)
    try:
        model.load_state(checkpoint.state)
        detector.load_state(checkpoint.state["collapse_detector"])
    except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
        what = " ".join(str(error).split())[:200]
        raise RunError(
            f"received {file}, whose tensors do not fit this run ({what}); expected those of "
            "its configuration; it was written by another version, or changed: start again "
            "with --overwrite, or in another folder"
        ) from error
    return checkpoint
