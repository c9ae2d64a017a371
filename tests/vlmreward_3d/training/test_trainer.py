"""Runs that fail, go back, are resumed, mistaken for others, or pointed at bad folders."""

import dataclasses
import itertools
import json
import os
import types

import imageio.v3 as iio
import pytest
from run_folders import assert_same_end, lines
from stub_models import RandomDenoiser, build_vlm3d, redness, tiny
from training_worker import GROWING_CONFIG

from vlmreward_3d.schedule import Schedule
from vlmreward_3d.training.checkpoint import load_checkpoint
from vlmreward_3d.training.collapse_detector import CollapseDetector
from vlmreward_3d.training.run_directory import RunDirectory, RunError
from vlmreward_3d.training.trainer import checkpoint_interval, train
from vlmreward_3d.vlm3d import DivergenceError, StepReport


def test_a_change_of_the_number_of_gaussians_is_printed(tmp_path, capsys):
    config = GROWING_CONFIG.replace({"steps": 6})
    model = build_vlm3d(config, RandomDenoiser(), redness)
    train(model, RunDirectory(tmp_path, config), progress=False)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"step 5: 40 -> {len(model.field.means)} Gaussians: ")


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
    """The clock advances by a second each time it is read."""
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


def test_short_runs_have_checkpoints_before_their_end():
    assert [checkpoint_interval(n) for n in (1, 4, 5, 40, 100, 300, 15000)] == [
        *(1, 1, 1, 8, 20, 50, 50),
    ]
