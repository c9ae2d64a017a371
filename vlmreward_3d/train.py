"""A run in a folder: the loop, its log, its checkpoints and how it goes on after an end.

The folder holds `config.json`, `metrics.jsonl` (one line a step), `checkpoint.safetensors`
(everything needed to go on exactly) and `state.json` (for readers: how far the run is).
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from vlmreward_3d.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.files import write_atomically
from vlmreward_3d.vlm3d import VLM3D, Diverged, StepReport

__all__ = ["RunError", "RunFolder", "Stopped", "train"]

RESULTS = ("views.png", "turntable.mp4", "turntable.gif", "mesh.glb", "reward.png")
"""What `export_all` may write into a run's folder."""


class RunError(ValueError):
    """The folder cannot be used as asked."""


class Stopped(RuntimeError):
    """The run was interrupted after its state was saved."""


class RunFolder:
    """The folder of one run. Making one checks that it can be used and changes nothing in it.

    Args:
        path: The folder; it is created with its parents.
        config: The run's settings.
        resume: Go on with the run that is there.
        overwrite: Forget the run that is there.

    Raises:
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
        self.path = Path(path)
        self.config = config
        self._require_writable()
        if resume:
            self._require_same_run()
        elif not overwrite and (self.config_file.exists() or self.checkpoint_file.exists()):
            raise RunError(
                f"{self.path} already holds a run ({self._describe()}); expected a new or empty "
                "folder; pass --resume to go on with it, --overwrite to replace it, or another "
                "--out"
            )
        self.overwrite = overwrite

    @property
    def config_file(self) -> Path:
        """The settings."""
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a step, the fields of `StepReport`."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint_file(self) -> Path:
        """All that is needed to go on."""
        return self.path / "checkpoint.safetensors"

    @property
    def state_file(self) -> Path:
        """How far the run is; informational."""
        return self.path / "state.json"

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
            theirs = load_checkpoint(self.checkpoint_file).config
        elif self.config_file.exists():
            theirs = self.config_file.read_text()
        else:
            raise RunError(
                f"{self.path} holds nothing to resume; expected checkpoint.safetensors; check "
                "--out, or leave out --resume to start"
            )
        differences = self.config.differences(theirs)
        if differences:
            raise RunError(
                f"{self.path} holds a run of another configuration ({'; '.join(differences)}); "
                "expected the same one; repeat the first command's options, or pass another --out"
            )

    def _describe(self) -> str:
        try:
            state = json.loads(self.state_file.read_text())
            prompt = json.loads(self.config_file.read_text())["prompt"]
            how_far = "finished" if state["finished"] else f"step {state['step']}"
            return f"{prompt!r}, {how_far} of {state['steps']} steps"
        except (OSError, ValueError, KeyError):
            return "unfinished"

    def save(self, model: VLM3D) -> None:
        """Replace the checkpoint by the model's present state."""
        checkpoint = Checkpoint(model.step_index, self.config.to_json(), model.state())
        save_checkpoint(self.checkpoint_file, checkpoint)
        self._write_state(model.step_index, finished=False)

    def finish(self) -> None:
        """Note that the run's results are written."""
        self._write_state(self.config.steps, finished=True)

    def _write_state(self, step: int, *, finished: bool) -> None:
        state = {"step": step, "steps": self.config.steps, "finished": finished}
        write_atomically(self.state_file, json.dumps(state) + "\n")

    def begin(self) -> None:
        """Write the settings; with `overwrite`, after forgetting the former run."""
        if self.overwrite:
            for name in ("checkpoint.safetensors", "config.json", "state.json", "metrics.jsonl"):
                (self.path / name).unlink(missing_ok=True)
            for name in RESULTS:
                (self.path / name).unlink(missing_ok=True)
        write_atomically(self.config_file, self.config.to_json())

    def restore(self, model: VLM3D) -> None:
        """Bring the model to the checkpoint, if there is one, and the log to the model's step."""
        if self.checkpoint_file.exists():
            model.load_state(load_checkpoint(self.checkpoint_file).state)
        lines = []
        if self.metrics_file.exists():
            lines = self.metrics_file.read_text().splitlines(keepends=True)
        write_atomically(self.metrics_file, "".join(lines[: model.step_index]))

    def metrics(self) -> list[StepReport]:
        """The log so far."""
        lines = self.metrics_file.read_text().splitlines()
        return [StepReport(**json.loads(line)) for line in lines]


def train(
    model: VLM3D,
    folder: RunFolder,
    *,
    checkpoint_every: int = 50,
    progress: bool = True,
) -> None:
    """Run the model to the end of its configuration, from wherever the folder's checkpoint is.

    On a CPU a run that was ended at any moment, by SIGKILL too, and started again is
    bit-identical to one that was not, given the same number of threads.

    Args:
        model: A model of the folder's configuration.
        folder: Where it goes.
        checkpoint_every: Steps between checkpoints.
        progress: Show a progress bar on stderr.

    Raises:
        Stopped: On SIGINT (Ctrl-C) or SIGTERM, after a checkpoint.
        Diverged: The optimisation failed; the last checkpoint is from before.
    """
    folder.begin()
    folder.restore(model)
    if not folder.checkpoint_file.exists():
        folder.save(model)
    steps = folder.config.steps
    with (
        _stop_requests() as stop,
        open(folder.metrics_file, "a") as log,
        tqdm(total=steps, initial=model.step_index, disable=not progress, unit="step") as bar,
    ):
        while model.step_index < steps:
            try:
                report = model.step()
            except Diverged as error:
                saved = load_checkpoint(folder.checkpoint_file).step
                raise Diverged(f"{error} (the checkpoint of step {saved} is intact)") from None
            log.write(json.dumps(dataclasses.asdict(report)) + "\n")
            log.flush()
            bar.update()
            bar.set_postfix_str(_summary(report))
            if stop or model.step_index % checkpoint_every == 0 or model.step_index == steps:
                # the log first: a checkpoint never knows of steps that the log does not
                os.fsync(log.fileno())
                folder.save(model)
            if stop and model.step_index < steps:
                raise Stopped(f"stopped after step {model.step_index} of {steps}, state saved")


def _summary(report: StepReport) -> str:
    parts = [f"sds {report.sds_loss:.3g}"]
    if report.reward is not None and report.p_yes is not None:
        parts += [f"reward {report.reward:+.2f}", f"P(Yes) {report.p_yes:.2f}"]
    return " ".join(parts)


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
