"""The folder of a run: settings, log, checkpoints and how a run resumes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlmreward_3d.atomic_io import locked, replacing, require_free, write_atomically
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vlmreward_3d.training.collapse_detector import CollapseDetector
from vlmreward_3d.vlm3d import VLM3D, DivergenceError, StepReport

__all__ = ["RunDirectory", "RunError"]

STATE = (
    "checkpoint.safetensors",
    "last-good.safetensors",
    "config.json",
    "state.json",
    "metrics.jsonl",
    "preview.png",
)
"""What a run goes on from, beside TensorBoard's folder."""


RESULTS = (
    "views.png",
    "turntable.mp4",
    "turntable.gif",
    "mesh.glb",
    "mesh_textured.glb",
    "mesh.obj",
    "mesh.ply",
    "splats.ply",
    "reward.png",
    "report.html",
)
"""What `export_all` may write into a run's folder."""


class RunError(ValueError):
    """The folder cannot be used as asked."""


class RunDirectory:
    """The folder of one run. Making one checks that it can be used and changes nothing in it.

    One process at a time works in it: `train` keeps others out, and `held` does for longer.

    Args:
        path: The folder; it is created with its parents.
        config: The run's settings.
        resume: Go on with the run that is there.
        overwrite: Forget the run that is there.

    Raises:
        InUse: Another process works in it.
        RunError: It cannot be written, holds another run, or holds nothing to resume.
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
        self.path = Path(path)
        self.config = config
        self.resume = resume
        self.overwrite = overwrite
        self._require_writable()
        require_free(self.path)
        self._require_fitting()
        self._held = self._begun = False
        self.notes: tuple[str, ...] = ()
        """What happened to the run that its owner should know, a sentence each."""
        self.saved = 0
        """The step of the checkpoint."""
        self.seconds = 0.0
        """What the steps took together, over all starts; 0 where a former start did not note it."""

    @property
    def config_file(self) -> Path:
        """The settings."""
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a step: "step" and its metrics by name."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint_file(self) -> Path:
        """All that is needed to go on."""
        return self.path / "checkpoint.safetensors"

    @property
    def good_file(self) -> Path:
        """The latest checkpoint at which nothing looked wrong."""
        return self.path / "last-good.safetensors"

    @property
    def state_file(self) -> Path:
        """How far the run is; informational."""
        return self.path / "state.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder to this process; inside another `held` of the same object, nothing more.

        Raises:
            InUse: Another process has it.
            RunError: It has got another run since this object was made.
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
            self._require_same_run()
        elif not self.overwrite and (self.config_file.exists() or self.checkpoint_file.exists()):
            raise RunError(
                f"{self.path} already holds a run ({self._describe()}); expected a new or empty "
                "folder; pass --resume to go on with it, --overwrite to replace it, or another "
                "--out"
            )

    def _require_writable(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise RunError(
                f"cannot write to {self.path} ({error.strerror}); expected a folder that exists "
                "or can be made; pass another --out"
            ) from None

    def _require_same_run(self) -> None:
        if self.checkpoint_file.exists():
            theirs = json.loads(load_checkpoint(self.checkpoint_file).config)
        elif self.config_file.exists():
            self._require_no_steps()
            theirs = _read_object(self.config_file, "the settings of a run")
        else:
            raise RunError(
                f"{self.path} holds nothing to resume; expected checkpoint.safetensors; check "
                "--out, or leave out --resume to start"
            )
        try:
            differences = self.config.differences(json.dumps(theirs))
        except ValueError as error:
            raise RunError(
                f"{self.path} holds a run that cannot go on: {error}; start again with "
                "--overwrite, or pass another --out"
            ) from None
        if differences:
            raise RunError(
                f"{self.path} holds a run of another configuration ({'; '.join(differences)}); "
                "expected the same one; repeat the first command's options, or pass another --out"
            )

    def _require_no_steps(self) -> None:
        """Without a checkpoint a run starts over; one that has done steps has had a checkpoint."""
        if not self.metrics_file.exists() or not self.metrics_file.stat().st_size:
            return
        remedy = "start again with --overwrite, or in another folder"
        if self.good_file.exists():
            remedy = f"copy {self.good_file.name} to that name to go on from there"
        raise RunError(
            f"{self.checkpoint_file} is missing, though metrics.jsonl tells of steps; expected the "
            f"checkpoint of the run; {remedy}"
        )

    def _describe(self) -> str:
        try:
            state = _read_object(self.state_file, "the state of a run")
            prompt = _read_object(self.config_file, "the settings of a run")["prompt"]
            how_far = "finished" if state["finished"] else f"step {state['step']}"
            return f"{prompt!r}, {how_far} of {state['steps']} steps"
        except (RunError, KeyError):
            return "unfinished"

    def save(self, model: VLM3D, watchdog: CollapseDetector) -> None:
        """Replace the checkpoint by the present state."""
        state = model.state() | {"watchdog": watchdog.state()}
        with self.writing():
            if self.metrics_file.exists():
                # the log first: a checkpoint never knows of steps that the log does not
                with open(self.metrics_file, "rb") as log:
                    os.fsync(log.fileno())
            checkpoint = Checkpoint(model.step_index, self.config.to_json(), state, self.notes)
            save_checkpoint(self.checkpoint_file, checkpoint)
            self.saved = model.step_index
            if watchdog.calm:
                self._keep_as_good()
            self._write_state(model.step_index, finished=False)

    def _keep_as_good(self) -> None:
        with replacing(self.good_file) as temporary:
            temporary.unlink()  # a link takes no name that is taken
            try:
                os.link(self.checkpoint_file, temporary)
            except OSError:  # a file system without links
                shutil.copyfile(self.checkpoint_file, temporary)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around writes to the folder: raises RunError where one fails, and says what is left."""
        try:
            yield
        except OSError as error:
            raise RunError(
                f"cannot write to {self.path} ({error.strerror}); expected room on a disk that can "
                f"be written; the checkpoint of step {self.saved} is intact: mend it, and go on "
                "with --resume"
            ) from error

    def finish(self) -> None:
        """Note that the run's results are written."""
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

    def begin(self) -> None:
        """Write the settings; with `overwrite`, after forgetting the former run."""
        self._begun = True
        with self.writing():
            if self.overwrite:
                for name in (*STATE, *RESULTS):
                    (self.path / name).unlink(missing_ok=True)
                shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
            for left_by_a_kill in self.path.glob(".*.partial*"):
                left_by_a_kill.unlink()
            write_atomically(self.config_file, self.config.to_json())

    def restore(self, model: VLM3D, watchdog: CollapseDetector) -> tuple[str, ...]:
        """Bring all to the checkpoint, if there is one, and the log to its step.

        Returns:
            The checkpoint's notes; `notes` may have more.
        """
        if self.checkpoint_file.exists():
            checkpoint = self._load(self.checkpoint_file, model, watchdog)
            self.saved, self.notes = checkpoint.step, checkpoint.notes
            if watchdog.calm:  # a kill may have come between the two
                with self.writing():
                    self._keep_as_good()
        with contextlib.suppress(RunError, ValueError, TypeError, KeyError):
            seconds = float(_read_object(self.state_file, "the state of a run")["seconds"])
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

    def go_back(self, model: VLM3D, watchdog: CollapseDetector, failure: str) -> str:
        """Return to the last good checkpoint, and take another way from there.

        Args:
            model: A model that has failed.
            watchdog: Its watchdog.
            failure: How, and at which step.

        Returns:
            What has been done, as noted in the run.

        Raises:
            Diverged: This has been done often enough.
        """
        tries, allowed = model.retries, self.config.recovery.max_retries
        if tries >= allowed:
            after = f" after {tries} retries" if tries else ""
            raise DivergenceError(
                f"{failure}{after} (the checkpoint of step {self.saved} is intact)"
            )
        good = self._load(self.good_file, model, watchdog)
        model.branch_off(tries + 1)
        note = (
            f"{failure}; back to step {good.step} with other random numbers and half the learning "
            f"rate (retry {tries + 1} of {allowed})"
        )
        self.notes = (*self.notes, note)
        self.save(model, watchdog)
        self._cut_log(model.step_index)
        return note

    def _load(self, file: Path, model: VLM3D, watchdog: CollapseDetector) -> Checkpoint:
        checkpoint = load_checkpoint(file)
        try:
            model.load_state(checkpoint.state)
            watchdog.load_state(checkpoint.state["watchdog"])
        except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
            what = " ".join(str(error).split())[:200]
            raise RunError(
                f"received {file}, whose tensors do not fit this run ({what}); expected those of "
                "its configuration; it was written by another version, or changed: start again "
                "with --overwrite, or in another folder"
            ) from error
        return checkpoint

    def append(self, report: StepReport) -> None:
        """Add a step to the log."""
        line = report.to_json() + "\n"
        with self.writing(), open(self.metrics_file, "a", encoding="utf-8") as log:
            log.write(line)

    def _cut_log(self, steps: int) -> int:
        """Leave the lines of the first steps; returns their number."""
        kept = [line for line, report in self._log() if report.step < steps]
        with self.writing():
            write_atomically(self.metrics_file, "".join(kept))
        return len(kept)

    def metrics(self) -> list[StepReport]:
        """The log so far.

        Raises:
            RunError: It is damaged.
        """
        return [report for _, report in self._log()]

    def _log(self) -> Iterator[tuple[str, StepReport]]:
        """The log's lines, also as what they say, but for a last one that a kill cut off."""
        if not self.metrics_file.exists():
            return
        last = -1
        for number, line in enumerate(self._log_lines(), 1):
            try:
                report = StepReport.from_json(line)
                if report.step <= last:
                    raise ValueError(f"step {report.step} after step {last}")
            except (ValueError, TypeError, RecursionError) as error:
                if last + 1 >= self.saved:
                    return  # what the checkpoint does not know of is done again
                raise RunError(
                    f"received {self.metrics_file}, whose line {number} is damaged ({error}); "
                    "expected the numbers of a step; mend it, or move the file away: the run goes "
                    "on without it"
                ) from None
            last = report.step
            yield line, report

    def _log_lines(self) -> list[str]:
        data = self.metrics_file.read_bytes()
        lines = data.decode("utf-8", errors="replace").splitlines(keepends=True)
        # without its end it may be half of a line, or of a number
        return lines[:-1] if lines and not lines[-1].endswith("\n") else lines


def _read_object(file: Path, expected: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        RunError: There is none.
    """
    try:
        read = json.loads(file.read_bytes().decode("utf-8"))
        if isinstance(read, dict):
            return read
        what = f"whose JSON is a {type(read).__name__}"
    except OSError as error:
        what = f"which cannot be read ({error.strerror})"
    except (ValueError, RecursionError) as error:  # not UTF-8 or not JSON
        what = f"which does not read as JSON ({error})"
    raise RunError(
        f"received {file}, {what}; expected {expected}, an object; mend it, start again with "
        "--overwrite, or pass another --out"
    )
