"""Runs in processes of their own that are killed, stopped and resumed, or that fill a disk."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from run_folders import assert_same_end, lines
from training_worker import CHECKPOINT_EVERY, CONFIG, GROWING_CONFIG, STUDENT_CONFIG, Run

from vlmreward_3d.atomic_io import InUse
from vlmreward_3d.training.checkpoint import load_checkpoint
from vlmreward_3d.training.run_directory import RunDirectory


@pytest.fixture
def start():
    """Starts a run in a folder; those that have not ended with the test are killed."""
    started = []

    def call(out: Path, *words: str) -> Run:
        started.append(Run(out, *words))
        return started[-1]

    yield call
    for run in started:
        run.kill()
        run.wait()


def wait_for(run: Run, out: Path, count: int) -> None:
    deadline = time.monotonic() + 240
    while lines(out) < count and run.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert run.is_alive(), "ended before it could be killed"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    assert Run(out).wait() == 0
    return out


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(
    kills, start, tmp_path, uninterrupted
):
    moments = random.Random(os.urandom(8))
    between = 100 // kills
    for kill in range(kills):
        run = start(tmp_path, *["resume"] * (kill > 0))
        wait_for(run, tmp_path, between * (kill + 1) + moments.randrange(1 + between // 3))
        time.sleep(moments.random() * 0.05)
        run.kill()
        run.wait()
        assert not (tmp_path / "state.json").exists() or lines(tmp_path) < CONFIG.steps
    assert start(tmp_path, "resume").wait() == 0
    assert_same_end(tmp_path, uninterrupted, CONFIG.steps)


def test_a_student_goes_on_as_if_the_run_had_not_been_killed(start, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, "student").wait() == 0
    run = start(killed, "student")
    wait_for(run, killed, 17)
    run.kill()
    run.wait()
    left = load_checkpoint(killed / "checkpoint.safetensors")
    assert 7 <= left.step < STUDENT_CONFIG.steps
    student = {name for name in left.state if name.startswith("guidance.sds.own.")}
    assert any(left.state[name].abs().sum() > 0 for name in student if "lora_B" in name)
    assert start(killed, "student", "resume").wait() == 0
    assert_same_end(killed, whole, STUDENT_CONFIG.steps)


def test_a_number_of_gaussians_that_changes_does_so_as_if_the_run_had_not_been_killed(
    start, tmp_path
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, "growing").wait() == 0
    run = start(killed, "growing")
    wait_for(run, killed, 17)
    run.kill()
    run.wait()
    left = load_checkpoint(killed / "checkpoint.safetensors")
    assert left.step % 5  # in the middle of an interval
    assert 14 <= left.step < GROWING_CONFIG.steps
    assert left.state["field.densifier.view_counts"].any()
    assert start(killed, "growing", "resume").wait() == 0
    assert_same_end(killed, whole, GROWING_CONFIG.steps)
    counts = [json.loads(line)["field/n_gaussians"] for line in (killed / "metrics.jsonl").open()]
    assert len(left.state["field.means"]) == counts[left.step - 1]
    assert counts[0] == 40 < counts[left.step - 1] < max(counts) <= 200


def test_of_two_that_start_at_once_one_is_refused(start, tmp_path, uninterrupted):
    both = [start(tmp_path), start(tmp_path)]
    codes = [run.wait() for run in both]
    assert sorted(codes) == [0, 2]
    refusal = both[codes.index(2)].said()
    # the later one to look finds the lock, or what the other has left
    assert "another run is going on (" in refusal or "already holds a run" in refusal
    assert_same_end(tmp_path, uninterrupted, CONFIG.steps)


def test_a_run_that_goes_on_is_not_resumed_and_one_that_was_killed_is(start, tmp_path):
    first = start(tmp_path)
    wait_for(first, tmp_path, 10)
    os.kill(first.pid, signal.SIGSTOP)  # it stays at this step
    second = start(tmp_path, "resume")
    assert second.wait() == 2
    said = second.said()
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_saves_the_very_step(number, start, tmp_path, uninterrupted):
    run = start(tmp_path)
    wait_for(run, tmp_path, 20)
    os.kill(run.pid, number)
    assert run.wait() == 130
    step = load_checkpoint(tmp_path / "checkpoint.safetensors").step
    assert f"stopped after step {step} of {CONFIG.steps}" in run.said()
    assert lines(tmp_path) == step
    assert start(tmp_path, "resume").wait() == 0
    assert_same_end(tmp_path, uninterrupted, CONFIG.steps)


@pytest.mark.parametrize("limit", [6_000, 15_000, 20_000])
def test_a_full_disk_is_said_and_costs_nothing_that_was_saved(
    limit, start, tmp_path, uninterrupted
):
    """Files that cannot grow past a limit: a log at some step, or a checkpoint."""
    run = start(tmp_path, f"limit={limit}")
    assert run.wait() == 2
    said = run.said()
    step = load_checkpoint(tmp_path / "checkpoint.safetensors").step
    assert f"cannot write to {tmp_path} (File too large)" in said
    assert f"the checkpoint of step {step} is intact" in said
    assert not list(tmp_path.glob(".*partial*"))
    assert start(tmp_path, "resume").wait() == 0
    assert_same_end(tmp_path, uninterrupted, CONFIG.steps)


def test_checkpoints_come_often_enough(uninterrupted):
    assert CHECKPOINT_EVERY < 20  # the kills above rely on some being written
    assert lines(uninterrupted) == CONFIG.steps
