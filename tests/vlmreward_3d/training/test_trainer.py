"""Runs that are killed, stopped, resumed, mistaken for others, or pointed at bad folders."""

import dataclasses
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch
import training_worker
from safetensors.torch import save_file
from stub_models import RandomDenoiser, build_vlm3d, redness, shrink_exports, tiny
from training_worker import CHECKPOINT_EVERY, CONFIG, GROWING_CONFIG, STUDENT_CONFIG

from vlmreward_3d.atomic_io import InUse
from vlmreward_3d.export.run_artifacts import export_all
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vlmreward_3d.training.collapse_detector import CollapseDetector
from vlmreward_3d.training.run_directory import RunDirectory, RunError
from vlmreward_3d.training.trainer import checkpoint_interval, train
from vlmreward_3d.vlm3d import DivergenceError, StepReport

WORKER = Path(training_worker.__file__)


def start(out: Path, *words: str) -> subprocess.Popen:
    root = str(WORKER.parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    command = [sys.executable, str(WORKER), str(out), *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def lines(out: Path) -> int:
    file = out / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def wait_for(process: subprocess.Popen, out: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while lines(out) < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert process.poll() is None, "ended before it could be killed"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    assert start(out).wait(timeout=240) == 0
    return out


def assert_same_end(out: Path, reference: Path, steps: int = CONFIG.steps) -> None:
    ours = load_checkpoint(out / "checkpoint.safetensors")
    theirs = load_checkpoint(reference / "checkpoint.safetensors")
    assert ours.step == theirs.step == steps
    assert ours.state.keys() == theirs.state.keys()
    for name, value in ours.state.items():
        assert torch.equal(value, theirs.state[name]), name
    assert ours.notes == theirs.notes
    for name in ("metrics.jsonl", "config.json"):
        assert (out / name).read_bytes() == (reference / name).read_bytes()
    ours, theirs = (json.loads((run / "state.json").read_text()) for run in (out, reference))
    assert ours.pop("seconds") > 0
    assert theirs.pop("seconds") > 0
    assert ours == theirs


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(kills, tmp_path, uninterrupted):
    moments = random.Random(os.urandom(8))
    between = 100 // kills
    for kill in range(kills):
        process = start(tmp_path, *["resume"] * (kill > 0))
        wait_for(process, tmp_path, between * (kill + 1) + moments.randrange(1 + between // 3))
        time.sleep(moments.random() * 0.05)
        process.kill()
        process.wait()
        assert not (tmp_path / "state.json").exists() or lines(tmp_path) < CONFIG.steps
    assert start(tmp_path, "resume").wait(timeout=240) == 0
    assert_same_end(tmp_path, uninterrupted)


def test_a_student_goes_on_as_if_the_run_had_not_been_killed(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, "student").wait(timeout=240) == 0
    process = start(killed, "student")
    wait_for(process, killed, 17)
    process.kill()
    process.wait()
    left = load_checkpoint(killed / "checkpoint.safetensors")
    assert 7 <= left.step < STUDENT_CONFIG.steps
    student = {name for name in left.state if name.startswith("guidance.sds.own.")}
    assert any(left.state[name].abs().sum() > 0 for name in student if "lora_B" in name)
    assert start(killed, "student", "resume").wait(timeout=240) == 0
    assert_same_end(killed, whole, STUDENT_CONFIG.steps)


def test_a_number_of_gaussians_that_changes_does_so_as_if_the_run_had_not_been_killed(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, "growing").wait(timeout=240) == 0
    process = start(killed, "growing")
    wait_for(process, killed, 17)
    process.kill()
    process.wait()
    left = load_checkpoint(killed / "checkpoint.safetensors")
    assert left.step % 5  # in the middle of an interval
    assert 14 <= left.step < GROWING_CONFIG.steps
    assert left.state["field.densifier.view_counts"].any()
    assert start(killed, "growing", "resume").wait(timeout=240) == 0
    assert_same_end(killed, whole, GROWING_CONFIG.steps)
    counts = [json.loads(line)["field/n_gaussians"] for line in (killed / "metrics.jsonl").open()]
    assert len(left.state["field.means"]) == counts[left.step - 1]
    assert counts[0] == 40 < counts[left.step - 1] < max(counts) <= 200


def test_a_change_of_the_number_of_gaussians_is_printed(tmp_path, capsys):
    config = GROWING_CONFIG.replace({"steps": 6})
    model = build_vlm3d(config, RandomDenoiser(), redness)
    train(model, RunDirectory(tmp_path, config), progress=False)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"step 5: 40 -> {len(model.field.means)} Gaussians: ")


def test_of_two_that_start_at_once_one_is_refused(tmp_path, uninterrupted):
    both = [start(tmp_path), start(tmp_path)]
    said = {process.communicate(timeout=240)[0]: process.returncode for process in both}
    assert sorted(said.values()) == [0, 2]
    (refusal,) = (words for words, code in said.items() if code == 2)
    # the later one to look finds the lock, or what the other has left
    assert "another run is going on (" in refusal or "already holds a run" in refusal
    assert_same_end(tmp_path, uninterrupted)


def test_a_run_that_goes_on_is_not_resumed_and_one_that_was_killed_is(tmp_path):
    first = start(tmp_path)
    wait_for(first, tmp_path, 10)
    first.send_signal(signal.SIGSTOP)  # it stays at this step
    second = start(tmp_path, "resume")
    said, _ = second.communicate(timeout=240)
    assert second.returncode == 2
    assert f"another run is going on (process {first.pid} on" in said
    assert said.count("\n") == 1
    for options in ({"resume": True}, {"overwrite": True}, {}):
        with pytest.raises(InUse, match=f"process {first.pid} on"):
            RunDirectory(tmp_path, CONFIG, **options)
    first.kill()
    first.wait()
    assert (tmp_path / "in-use.lock").exists()
    with RunDirectory(tmp_path, CONFIG, resume=True).held():
        pass
    assert not (tmp_path / "in-use.lock").exists()


def test_what_came_between_the_look_and_the_lock_is_noticed(tmp_path):
    config = tiny(steps=2)
    late = RunDirectory(tmp_path, config)
    train(
        build_vlm3d(config, RandomDenoiser(), redness),
        RunDirectory(tmp_path, config),
        progress=False,
    )
    with pytest.raises(RunError, match="already holds a run"):
        train(build_vlm3d(config, RandomDenoiser(), redness), late, progress=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_saves_the_very_step(number, tmp_path, uninterrupted):
    process = start(tmp_path)
    wait_for(process, tmp_path, 20)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    step = load_checkpoint(tmp_path / "checkpoint.safetensors").step
    assert f"stopped after step {step} of 120" in said
    assert lines(tmp_path) == step
    assert start(tmp_path, "resume").wait(timeout=240) == 0
    assert_same_end(tmp_path, uninterrupted)


def test_a_kill_between_log_and_checkpoint_repeats_the_steps_in_between(tmp_path):
    config = tiny(steps=9)

    def run(out, resume=False):
        model = build_vlm3d(config, RandomDenoiser(), redness)
        train(model, RunDirectory(out, config, resume=resume), checkpoint_every=4, progress=False)
        return (out / "metrics.jsonl").read_text()

    whole = run(tmp_path / "whole")
    partial = tmp_path / "partial"
    model = build_vlm3d(config, RandomDenoiser(), redness)
    model.step()
    model.step()
    folder = RunDirectory(partial, config)
    folder.initialize()
    folder.save(model, CollapseDetector(50))
    # two good lines, one that the checkpoint does not know, and half of another
    head = whole.splitlines(keepends=True)
    (partial / "metrics.jsonl").write_text(head[0] + head[1] + '{"step": 7}\n' + '{"ste')
    assert run(partial, resume=True) == whole


def test_a_run_killed_before_its_first_checkpoint_starts_over(tmp_path):
    config = tiny(steps=3)
    RunDirectory(tmp_path, config).initialize()
    model = build_vlm3d(config, RandomDenoiser(), redness)
    train(model, RunDirectory(tmp_path, config, resume=True), progress=False)
    assert lines(tmp_path) == 3


def test_another_configuration_is_refused_by_field_and_nothing_is_touched(tmp_path):
    config = tiny(steps=2)
    train(
        build_vlm3d(config, RandomDenoiser(), redness),
        RunDirectory(tmp_path, config),
        progress=False,
    )
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    other = dataclasses.replace(config, seed=3, prompt="a blue ball")
    with pytest.raises(RunError) as raised:
        RunDirectory(tmp_path, other, resume=True)
    message = str(raised.value)
    assert "prompt: 'a red cube' -> 'a blue ball'; seed: 0 -> 3" in message
    assert "steps" not in message
    assert "\n" not in message
    with pytest.raises(
        RunError, match=r"already holds a run .'a red cube', step 2 of 2 steps.*--ov"
    ):
        RunDirectory(tmp_path, other)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_overwriting_forgets_the_former_run_only_when_the_new_one_begins(tmp_path):
    config = tiny(steps=2)
    train(
        build_vlm3d(config, RandomDenoiser(), redness),
        RunDirectory(tmp_path, config),
        progress=False,
    )
    (tmp_path / "mesh.glb").write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("mine")
    other = dataclasses.replace(config, seed=3)
    folder = RunDirectory(tmp_path, other, overwrite=True)
    assert (tmp_path / "mesh.glb").exists()
    train(build_vlm3d(other, RandomDenoiser(), redness), folder, progress=False)
    assert not (tmp_path / "mesh.glb").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 3


def test_the_time_of_all_starts_adds_up(tmp_path, monkeypatch):
    """With a clock on which everything between two looks takes a second."""
    clock = itertools.count()
    ticking = types.SimpleNamespace(perf_counter=lambda: float(next(clock)))
    monkeypatch.setattr("vlmreward_3d.training.trainer.time", ticking)
    config = tiny(steps=4)
    model = build_vlm3d(config, RandomDenoiser(), redness)
    folder = RunDirectory(tmp_path, config)
    folder.initialize()
    model.step()
    folder.seconds = 7.0
    folder.save(model, CollapseDetector(50))
    again = RunDirectory(tmp_path, config, resume=True)
    train(build_vlm3d(config, RandomDenoiser(), redness), again, progress=False)
    assert again.seconds == 7 + 3


def test_nothing_to_resume_is_said(tmp_path):
    with pytest.raises(RunError, match="holds nothing to resume"):
        RunDirectory(tmp_path, tiny(), resume=True)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for bad in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match=r"cannot write to .*file.*; expected a folder"):
            RunDirectory(bad, tiny())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


class Fragile:
    """A run whose reward is not finite at some steps of its first tries."""

    def __init__(self, tries: int, at: int = 6, **settings) -> None:
        self.config = tiny(steps=20, **settings)
        self.model = build_vlm3d(self.config, RandomDenoiser(), self.reward)
        self.tries, self.at = tries, at
        self.killed_at: int | None = None

    def reward(self, images, prompt):
        now = self.model.step_index
        if now == self.killed_at and self.model.retries:
            raise KeyboardInterrupt
        fails = now == self.at and self.model.retries < self.tries
        return redness(images, prompt) * (float("nan") if fails else 1.0)

    def run(self, out, **options) -> None:
        folder = RunDirectory(out, self.config, **options)
        train(self.model, folder, checkpoint_every=4, progress=False)


def test_a_failing_run_goes_back_and_takes_another_way(tmp_path, capsys):
    run = Fragile(tries=2)
    run.run(tmp_path)
    said = capsys.readouterr().err
    assert said.count("step 6: the gradient of the guidance 'vlm' is not finite") == 2
    assert "back to step 4 with other random numbers and half the learning rate" in said
    assert "(retry 1 of 3)" in said
    assert run.model.retries == 2
    assert run.model.optimizer.param_groups[0]["lr"] == pytest.approx(
        run.config.optimizer.learning_rate(19 / 20) / 4
    )
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()]
    assert steps == list(range(20))
    notes = json.loads((tmp_path / "state.json").read_text())["notes"]
    assert notes == said.splitlines()
    smooth = build_vlm3d(run.config, RandomDenoiser(), redness)
    train(smooth, RunDirectory(tmp_path / "smooth", run.config), progress=False)
    pairs = zip((tmp_path / "metrics.jsonl").open(), (tmp_path / "smooth/metrics.jsonl").open())
    assert [a == b for a, b in pairs] == [True] * 4 + [False] * 16


def test_a_kill_after_going_back_changes_nothing(tmp_path):
    whole = Fragile(tries=1)
    whole.run(tmp_path / "whole")
    for moment in (4, 5, 7, 11):
        out = tmp_path / str(moment)
        killed = Fragile(tries=1)
        killed.killed_at = moment
        with pytest.raises(KeyboardInterrupt):
            killed.run(out)
        Fragile(tries=1).run(out, resume=True)
        assert_same_end(out, tmp_path / "whole", steps=20)


def test_a_kill_while_the_good_checkpoint_is_noted_is_no_hindrance(tmp_path):
    config = tiny(steps=3)
    train(
        build_vlm3d(config, RandomDenoiser(), redness),
        RunDirectory(tmp_path, config),
        progress=False,
    )
    whole = (tmp_path / "checkpoint.safetensors").read_bytes()
    os.link(tmp_path / "checkpoint.safetensors", tmp_path / ".last-good.partial.safetensors")
    again = RunDirectory(tmp_path, config, resume=True)
    train(build_vlm3d(config, RandomDenoiser(), redness), again, progress=False)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == whole
    assert (tmp_path / "last-good.safetensors").read_bytes() == whole
    assert not list(tmp_path.glob(".*partial*"))


def test_a_run_that_fails_again_and_again_ends_with_its_last_good_checkpoint(tmp_path):
    with pytest.raises(
        DivergenceError, match=r"step 6: .* after 3 retries .*checkpoint of step 4 is int"
    ):
        Fragile(tries=9).run(tmp_path)
    checkpoint = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert all(v.isfinite().all() for v in checkpoint.state.values())
    assert (checkpoint.step, len(checkpoint.notes), lines(tmp_path)) == (4, 3, 6)
    with pytest.raises(
        DivergenceError, match=r"finite numbers; [^;]* \(the checkpoint of step 4 is intact"
    ):
        Fragile(tries=9, recovery__max_retries=0).run(tmp_path / "other")


# a logit that is the same everywhere, and a field that cannot learn
STILL = {
    "field.blob_radius": 1e6,
    "optimizer.learning_rate": Schedule.constant(0),
    "camera.background": "white",
}


@pytest.mark.parametrize(
    ("logit", "words"),
    [(-3.5, "filled with haze"), (3.0, "solid fills the views")],
)
def test_collapses_are_told_apart(logit, words, tmp_path):
    config = tiny(
        steps=80,
        recovery__max_retries=1,
        field__blob_density=logit,
        field__rays__samples_per_ray=16,
        **STILL,
    )
    model = build_vlm3d(config, RandomDenoiser(), redness)
    ending = rf"step 49: .*{words}.* for 50 steps now; .*after 1 retries"
    with pytest.raises(DivergenceError, match=ending):
        train(model, RunDirectory(tmp_path, config), checkpoint_every=10, progress=False)


def test_a_collapse_goes_back_to_where_all_was_well_though_later_steps_were_saved(tmp_path):
    """The checkpoints of the steps that led there are no place to start from."""
    config = tiny(steps=100)
    model = build_vlm3d(config, RandomDenoiser(), redness)
    healthy = model.step

    def step():
        report = healthy()
        ill = model.retries == 0 and report.step >= 25
        share = {"field/semi_transparent_fraction": 0.99 if ill else 0.2}
        return StepReport(report.step, report.metrics | share)

    model.step = step
    train(model, RunDirectory(tmp_path, config), checkpoint_every=10, progress=False)
    (note,) = json.loads((tmp_path / "state.json").read_text())["notes"]
    assert note.startswith("step 74: the views are filled with haze (99% of")
    assert "back to step 20 with" in note
    assert lines(tmp_path) == 100


def test_without_patience_a_cloud_may_stay_a_cloud(tmp_path):
    config = tiny(
        steps=60,
        recovery__patience=None,
        field__blob_density=-3.5,
        field__rays__samples_per_ray=16,
        **STILL,
    )
    train(
        build_vlm3d(config, RandomDenoiser(), redness),
        RunDirectory(tmp_path, config),
        progress=False,
    )
    assert lines(tmp_path) == 60
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["field/semi_transparent_fraction"] > 0.95


def test_a_few_bad_views_are_nothing():
    dog = CollapseDetector(patience=3)
    well = build_vlm3d(tiny(), RandomDenoiser(), redness).step()
    bad = StepReport(well.step, well.metrics | {"field/opacity": 0.0})
    assert dog.update(well) is None
    assert dog.healthy
    assert [dog.update(x) for x in (bad, bad, well, bad, bad)] == [None] * 5
    assert not dog.healthy
    assert "mean opacity 0.0000), for 3 steps now; lower sparsity" in dog.update(bad)


def test_curves_and_previews_are_there_while_the_run_goes_on(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = Fragile(tries=1, vlm__weighting__interval=2)
    run.run(tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"), {"images": 0, "scalars": 0}).Reload()
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    for name in ("sds/loss", "vlm/reward", "field/opacity"):
        points = [(e.step, e.value) for e in events.Scalars(name)]
        expected = [(x["step"], pytest.approx(x[name])) for x in log if name in x]
        assert points == expected
    assert [e.step for e in events.Images("views")] == [3, 7, 11, 15, 19]
    assert iio.imread(tmp_path / "preview.png").shape == (32, 4 * 32, 3)


@pytest.mark.parametrize("limit", [6_000, 15_000, 20_000])
def test_a_full_disk_is_said_and_costs_nothing_that_was_saved(limit, tmp_path, uninterrupted):
    """Files that cannot grow past a limit: a log at some step, or a checkpoint."""
    process = start(tmp_path, f"limit={limit}")
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 2
    step = load_checkpoint(tmp_path / "checkpoint.safetensors").step
    assert f"cannot write to {tmp_path} (File too large)" in said
    assert f"the checkpoint of step {step} is intact" in said
    assert not list(tmp_path.glob(".*partial*"))
    assert start(tmp_path, "resume").wait(timeout=240) == 0
    assert_same_end(tmp_path, uninterrupted)


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, Checkpoint(1, "{}", {"x": torch.ones(3)}))

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, Checkpoint(2, "{}", {"x": torch.zeros(3)}))
    monkeypatch.undo()
    assert load_checkpoint(path).step == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_foreign_and_torn_checkpoints_are_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"\x10\x00\x00")
    with pytest.raises(ValueError, match="does not read as safetensors"):
        load_checkpoint(path)
    save_file({"x": torch.ones(1)}, path, {"format": "pt"})
    with pytest.raises(ValueError, match="of format 'pt'; expected 'vlm3d-4'"):
        load_checkpoint(path)


def test_checkpoints_come_often_enough(uninterrupted):
    assert CHECKPOINT_EVERY < 20  # the kills above rely on some being written
    assert lines(uninterrupted) == CONFIG.steps


SHAPES = {
    "empty": b"",
    "no JSON": b"{",
    "not UTF-8": b'{"step": "\xff"}',
    "a list": b"[1, 2]",
    "a number": b"3",
    "null": b"null",
    "a string": b'"finished"',
    "deep": b"[" * 100_000,
    "other keys": b'{"a": 1}',
    "other types": b'{"step": {}, "steps": [], "finished": [], "seconds": "x", "prompt": 1}',
    "not finite": b'{"seconds": NaN, "step": NaN}',
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of 6 steps, with checkpoints after 3 and 6."""
    out = tmp_path_factory.mktemp("done")
    config = tiny(steps=6)
    folder = RunDirectory(out, config)
    train(
        build_vlm3d(config, RandomDenoiser(), redness), folder, checkpoint_every=3, progress=False
    )
    return out


def resumed(out: Path, steps: int = 6) -> RunDirectory:
    config = tiny(steps=6)
    folder = RunDirectory(out, config, resume=True)
    model = build_vlm3d(config, RandomDenoiser(), redness)
    train(model, folder, progress=False)
    assert model.step_index == steps
    return folder


def refusal(out: Path, name: str) -> str:
    """What is said of a damaged file, which nothing has touched."""
    before = {p: p.read_bytes() for p in out.iterdir() if p.is_file()}
    with pytest.raises(ValueError, match=re.escape(str(out / name))) as raised:
        resumed(out)
    after = {p: p.read_bytes() for p in out.iterdir() if p.is_file()}
    assert after.items() >= {p: data for p, data in before.items() if p.suffix != ".lock"}.items()
    said = str(raised.value)
    assert "\n" not in said
    assert "expected" in said
    assert len(said.split("; ")) >= 3  # what, what was expected, and what to do
    return said


@pytest.mark.parametrize("shape", SHAPES)
def test_a_damaged_state_is_no_hindrance_as_it_is_for_readers_alone(shape, done, tmp_path):
    out = shutil.copytree(done, tmp_path / "run")
    (out / "state.json").write_bytes(SHAPES[shape])
    assert resumed(out).seconds >= 0
    (out / "state.json").write_bytes(SHAPES[shape])
    with pytest.raises(RunError, match="already holds a run"):
        RunDirectory(out, tiny(steps=6))


@pytest.mark.parametrize("shape", [s for s in SHAPES if s not in ("other types", "not finite")])
def test_damaged_settings_are_named_where_they_are_all_there_is(shape, tmp_path):
    config = tiny(steps=6)
    RunDirectory(tmp_path, config).initialize()
    (tmp_path / "config.json").write_bytes(SHAPES[shape])
    with pytest.raises(RunError, match=r"already holds a run .unfinished."):
        RunDirectory(tmp_path, config)
    if shape == "other keys":
        with pytest.raises(RunError, match="without the record 'camera'; expected those of this"):
            RunDirectory(tmp_path, config, resume=True)
        other = json.loads(config.to_json()) | {"a": 1}
        (tmp_path / "config.json").write_text(json.dumps(other))
        with pytest.raises(RunError, match="a: 1 -> None"):
            RunDirectory(tmp_path, config, resume=True)
    else:
        assert "expected the settings of a run" in refusal(tmp_path, "config.json")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("line", [0, 4])
def test_a_damaged_log_is_named_with_its_line_and_left_alone(shape, line, done, tmp_path):
    out = shutil.copytree(done, tmp_path / "run")
    kept = (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    kept[line] = SHAPES[shape] + b"\n"
    (out / "metrics.jsonl").write_bytes(b"".join(kept))
    assert f"whose line {line + 1} is damaged" in refusal(out, "metrics.jsonl")


def test_the_log_of_two_runs_at_once_is_no_log(done, tmp_path):
    out = shutil.copytree(done, tmp_path / "run")
    kept = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    (out / "metrics.jsonl").write_text("".join(line * 2 for line in kept))
    assert "(step 0 after step 0)" in refusal(out, "metrics.jsonl")


@pytest.mark.parametrize("left", [0, 2, None])
def test_a_log_that_is_gone_is_said_and_the_run_goes_on(left, done, tmp_path, capsys):
    out = shutil.copytree(done, tmp_path / "run")
    shutil.copy(out / "last-good.safetensors", out / "checkpoint.safetensors")
    kept = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    if left is None:
        (out / "metrics.jsonl").unlink()
    else:
        (out / "metrics.jsonl").write_text("".join(kept[:left]))
    folder = resumed(out)
    (note,) = folder.notes
    assert f"metrics.jsonl lacks {6 - (left or 0)} steps that were done" in note
    assert capsys.readouterr().err == f"{note}\n"
    assert len(folder.metrics()) == (left or 0)
    # said once, and not by every start
    assert resumed(out).notes == (note,)


def test_the_report_of_a_run_without_its_log_tells_of_all_its_steps(done, tmp_path, monkeypatch):
    shrink_exports(monkeypatch)
    out = shutil.copytree(done, tmp_path / "run")
    (out / "metrics.jsonl").unlink()
    config = tiny(steps=6)
    folder = RunDirectory(out, config, resume=True)
    model = build_vlm3d(config, RandomDenoiser(), redness)
    train(model, folder, progress=False)
    export_all(out, model, folder.metrics(), meshes=(), notes=folder.notes)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Finished: 6 steps" in page
    assert "metrics.jsonl lacks 6 steps" in page


def test_a_log_without_its_beginning_goes_on_behind_its_end(done, tmp_path):
    """The log was deleted before some start: line 1 is not step 0."""
    out = shutil.copytree(done, tmp_path / "run")
    kept = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    (out / "metrics.jsonl").write_text("".join(kept[2:]) + '{"step": 6, "sds')
    folder = resumed(out)
    assert [report.step for report in folder.metrics()] == [2, 3, 4, 5]
    assert "lacks 2 steps" in folder.notes[0]


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def without_config(data: bytes) -> bytes:
    return data.replace(b'"config":', b'"konfig":')


def other_notes(data: bytes) -> bytes:
    return data.replace(b'"notes":"[]"', b'"notes":"{}"')


def other_tensors(data: bytes) -> bytes:
    return data.replace(b'"random":', b'"rindom":')


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncated, "does not read as safetensors"),
        (lambda data: b"", "does not read as safetensors"),
        (lambda data: b"\xff" * 4000, "does not read as safetensors"),
        (without_config, "whose header is damaged (it has no 'config')"),
        (other_notes, "whose header is damaged (its notes are no texts)"),
        (other_tensors, "whose tensors do not fit this run ('random')"),
    ],
    ids=["half", "empty", "garbage", "no config", "notes", "tensors"],
)
def test_a_damaged_checkpoint_is_named(damage, said, done, tmp_path):
    out = shutil.copytree(done, tmp_path / "run")
    file = out / "checkpoint.safetensors"
    damaged = damage(file.read_bytes())
    file.unlink()  # it may be one with last-good.safetensors
    file.write_bytes(damaged)
    message = refusal(out, "checkpoint.safetensors")
    assert said in message
    if damage is not other_tensors:
        assert "copy last-good.safetensors" in message
        shutil.copy(out / "last-good.safetensors", file)
        resumed(out)


def test_a_missing_checkpoint_is_no_reason_to_start_over(done, tmp_path):
    out = shutil.copytree(done, tmp_path / "run")
    (out / "checkpoint.safetensors").unlink()
    assert "is missing, though metrics.jsonl tells of" in refusal(out, "checkpoint.safetensors")
    (out / "last-good.safetensors").rename(out / "checkpoint.safetensors")
    resumed(out)


def test_short_runs_have_checkpoints_before_their_end():
    assert [checkpoint_interval(n) for n in (1, 4, 5, 40, 100, 300, 15000)] == [
        *(1, 1, 1, 8, 20, 50, 50),
    ]
