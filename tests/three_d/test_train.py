"""Runs that are killed, stopped, resumed, mistaken for others, or pointed at bad folders."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from stubs import RandomDenoiser, redness, tiny
from worker import CHECKPOINT_EVERY, CONFIG

from vlmreward_3d.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vlmreward_3d.train import RunError, RunFolder, train
from vlmreward_3d.vlm3d import VLM3D, Diverged

WORKER = Path(__file__).with_name("worker.py")


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


def assert_same_end(out: Path, reference: Path) -> None:
    ours = load_checkpoint(out / "checkpoint.safetensors")
    theirs = load_checkpoint(reference / "checkpoint.safetensors")
    assert ours.step == theirs.step == CONFIG.steps
    assert ours.state.keys() == theirs.state.keys()
    for name, value in ours.state.items():
        assert torch.equal(value, theirs.state[name]), name
    for name in ("metrics.jsonl", "config.json", "state.json"):
        assert (out / name).read_bytes() == (reference / name).read_bytes()


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
        model = VLM3D(config, RandomDenoiser(), redness)
        train(model, RunFolder(out, config, resume=resume), checkpoint_every=4, progress=False)
        return (out / "metrics.jsonl").read_text()

    whole = run(tmp_path / "whole")
    partial = tmp_path / "partial"
    model = VLM3D(config, RandomDenoiser(), redness)
    model.step()
    model.step()
    folder = RunFolder(partial, config)
    folder.begin()
    folder.save(model)
    # two good lines, one that the checkpoint does not know, and half of another
    head = whole.splitlines(keepends=True)
    (partial / "metrics.jsonl").write_text(head[0] + head[1] + '{"step": 7}\n' + '{"ste')
    assert run(partial, resume=True) == whole


def test_a_run_killed_before_its_first_checkpoint_starts_over(tmp_path):
    config = tiny(steps=3)
    RunFolder(tmp_path, config).begin()
    model = VLM3D(config, RandomDenoiser(), redness)
    train(model, RunFolder(tmp_path, config, resume=True), progress=False)
    assert lines(tmp_path) == 3


def test_another_configuration_is_refused_by_field_and_nothing_is_touched(tmp_path):
    config = tiny(steps=2)
    train(VLM3D(config, RandomDenoiser(), redness), RunFolder(tmp_path, config), progress=False)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    other = dataclasses.replace(config, seed=3, prompt="a blue ball")
    with pytest.raises(RunError) as raised:
        RunFolder(tmp_path, other, resume=True)
    message = str(raised.value)
    assert "prompt: 'a red cube' -> 'a blue ball'; seed: 0 -> 3" in message
    assert "steps" not in message
    assert "\n" not in message
    with pytest.raises(
        RunError, match=r"already holds a run .'a red cube', step 2 of 2 steps.*--ov"
    ):
        RunFolder(tmp_path, other)
    assert before == {p: p.read_bytes() for p in tmp_path.iterdir()}


def test_overwriting_forgets_the_former_run_only_when_the_new_one_begins(tmp_path):
    config = tiny(steps=2)
    train(VLM3D(config, RandomDenoiser(), redness), RunFolder(tmp_path, config), progress=False)
    (tmp_path / "mesh.glb").write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("mine")
    other = dataclasses.replace(config, seed=3)
    folder = RunFolder(tmp_path, other, overwrite=True)
    assert (tmp_path / "mesh.glb").exists()
    train(VLM3D(other, RandomDenoiser(), redness), folder, progress=False)
    assert not (tmp_path / "mesh.glb").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 3


def test_nothing_to_resume_is_said(tmp_path):
    with pytest.raises(RunError, match="holds nothing to resume"):
        RunFolder(tmp_path, tiny(), resume=True)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for bad in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match=r"cannot write to .*file.*; expected a folder"):
            RunFolder(bad, tiny())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_diverging_run_keeps_its_last_good_checkpoint(tmp_path):
    config = tiny(steps=20)
    calls = []

    def reward(images, text):
        calls.append(1)
        return redness(images, text) * (float("nan") if len(calls) == 7 else 1.0)

    model, folder = VLM3D(config, RandomDenoiser(), reward), RunFolder(tmp_path, config)
    with pytest.raises(Diverged, match=r"step 6: .*the checkpoint of step 4 is intact"):
        train(model, folder, checkpoint_every=4, progress=False)
    state = load_checkpoint(tmp_path / "checkpoint.safetensors").state
    assert all(v.isfinite().all() for v in state.values())
    assert lines(tmp_path) == 6


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
    with pytest.raises(ValueError, match="of format 'pt'; expected 'vlm3d-1'"):
        load_checkpoint(path)


def test_checkpoints_come_often_enough(uninterrupted):
    assert CHECKPOINT_EVERY < 20  # the kills above rely on some being written
    assert lines(uninterrupted) == CONFIG.steps
