"""Files of a run that are damaged, torn or gone: said by name, and nothing is lost."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from stub_models import RandomDenoiser, build_vlm3d, redness, shrink_exports, tiny

from vlmreward_3d.export.run_artifacts import export_all
from vlmreward_3d.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vlmreward_3d.training.run_directory import RunDirectory, RunError
from vlmreward_3d.training.trainer import train


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
    """Error message about a damaged file; no file of the run may change."""
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
