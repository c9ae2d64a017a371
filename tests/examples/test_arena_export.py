"""Runs become assets of a tournament."""

import json

import arena_export
import pytest
import torch
from stub_models import RandomDenoiser, build_vlm3d, tiny
from tournament.layout import read_tournament
from tournament.pictures import Showing
from tournament.turntables import load_run

from vlmreward.images.io import load_image
from vlmreward_3d.rendering.evaluation import evaluation_cameras
from vlmreward_3d.training.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture
def run(tmp_path):
    """Makes the folder of a run, with a checkpoint after one step; returns it and the model."""

    def make(name, **changes):
        model = build_vlm3d(tiny(vlm=None, **changes), RandomDenoiser())
        model.step()
        folder = tmp_path / name
        folder.mkdir()
        config = model.config.to_json()
        save_checkpoint(folder / "checkpoint.safetensors", Checkpoint(1, config, model.state()))
        return folder, model

    return make


def export(*words):
    return arena_export.main([str(word) for word in words])


def test_a_run_becomes_frames_of_its_field(run, tmp_path):
    folder, model = run("one")
    words = ["--out", tmp_path / "t", "--method", "ours", "--size", 24]
    assert export(folder, *words, "--frames", 5) == 0
    assert export(folder, *words, "--frames", 4) == 0  # the fifth frame is of another turntable
    prompt = model.config.prompt
    assert json.loads((tmp_path / "t" / "prompts.json").read_text()) == [prompt]
    frames = tmp_path / "t" / "methods" / "ours" / "0" / "0"
    pictures = [f"{kind}_{i}.png" for kind in ("rgb", "normal") for i in range(4)]
    assert sorted(x.name for x in frames.iterdir()) == sorted([*pictures, "rewards.json"])
    cameras = evaluation_cameras(model.config.camera, 4)
    field = model.field.for_evaluation()
    for i, picture in enumerate(field.render_images(cameras, 24, normals=True)):
        for kind, part in zip(("rgb", "normal"), picture.split(24, dim=1)):
            read = load_image(frames / f"{kind}_{i}.png").image
            torch.testing.assert_close(read, part, atol=0.6 / 255, rtol=0)


def test_two_methods_make_a_tournament(run, tmp_path):
    words = ["--out", tmp_path / "t", "--frames", 4, "--size", 8]
    assert export(run("a")[0], *words, "--method", "first") == 0
    assert export(run("b", seed=1)[0], *words, "--method", "second") == 0
    found = read_tournament(tmp_path / "t")
    assert found.methods == ("first", "second")
    for asset in found.assets.values():
        assert Showing(4, "both", 8).frames(asset).shape == (8, 3, 8, 8)


def test_the_vlm_that_steered_a_run_is_written_beside_its_frames(run, tmp_path):
    words = ["--out", tmp_path / "t", "--frames", 1, "--size", 8]
    folder, model = run("alone")
    assert export(folder, *words, "--method", "alone") == 0
    config = tiny(vlm__model="some/vlm")
    save_checkpoint(
        folder / "checkpoint.safetensors", Checkpoint(1, config.to_json(), model.state())
    )
    assert export(folder, *words, "--method", "with") == 0
    found = read_tournament(tmp_path / "t")
    assert found.rewards == {"alone": frozenset(), "with": {"some/vlm"}}
    assert found.steered_by("some/vlm") == ["with"]


def test_a_list_of_prompts_is_not_changed_unasked(run, refused, tmp_path):
    folder, model = run("one")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "prompts.json").write_text('["a boat"]')
    words = [folder, "--out", tmp_path / "t", "--method", "ours", "--frames", 1, "--size", 8]
    assert "--add-prompts" in refused(arena_export.main, *words)
    assert json.loads((tmp_path / "t" / "prompts.json").read_text()) == ["a boat"]
    assert export(*words, "--add-prompts") == 0
    prompts = json.loads((tmp_path / "t" / "prompts.json").read_text())
    assert prompts == ["a boat", model.config.prompt]
    assert (tmp_path / "t" / "methods" / "ours" / "1" / "0" / "rgb_0.png").exists()


def test_bad_input(run, refused, tmp_path):
    words = ["--out", tmp_path / "t", "--method", "ours"]
    assert "folder of a run" in refused(arena_export.main, tmp_path / "none", *words)
    folder, model = run("one")
    torn = model.state()
    torn["field.nothing"] = torch.zeros(1)
    config = model.config.to_json()
    save_checkpoint(folder / "checkpoint.safetensors", Checkpoint(1, config, torn))
    with pytest.raises(ValueError, match="does not fit"):
        load_run(folder)
    with pytest.raises(SystemExit):
        arena_export.parse(["run", "--out", "t", "--method", "../up"])
