import functools
import json
import warnings

import common
import optimize_image
import pytest
import torch
from judges import DenoiserJudge
from optimize_image import MultiResolution, Pixels

from vlmreward.images.io import load_image

FILES = {"pictures.png", "curves.png", "metrics.jsonl"}


def start(count=2, size=(12, 20)):
    generator = torch.Generator().manual_seed(0)
    return 0.1 + 0.8 * torch.rand(count, 3, *size, generator=generator)


@pytest.mark.parametrize("kind", [Pixels, MultiResolution])
def test_a_parametrization_begins_with_the_picture(kind):
    torch.testing.assert_close(kind(start())(), start())


def test_layers_go_from_one_pixel_to_all():
    canvas = MultiResolution(start())
    sides = [tuple(layer.shape[-2:]) for layer in canvas.layers]
    assert sides == [(1, 1), (2, 2), (4, 4), (8, 8), (12, 16), (12, 20)]
    canvas().sum().backward()
    assert all(layer.grad.abs().sum() > 0 for layer in canvas.layers)


@pytest.mark.parametrize("kind", optimize_image.PARAMETRIZATIONS)
def test_each_image_climbs_by_itself(kind):
    """One image's path does not depend on how steep another one's reward is."""
    scale = torch.tensor([1.0, 1000.0])

    def reward(images, prompt):
        return scale[: len(images)] * images[:, 0].mean((1, 2))

    how = {"steps": 5, "parametrization": kind}
    both = optimize_image.optimize(reward, start(), ["a", "b"], **how)
    alone = optimize_image.optimize(reward, start()[:1], ["a"], **how)
    torch.testing.assert_close(both[:1], alone)
    assert (both[:, 0].mean((1, 2)) > start()[:, 0].mean((1, 2))).all()
    assert both.min() >= 0
    assert both.max() <= 1


def test_the_built_in_judge_knows_what_it_sees():
    judge = DenoiserJudge()
    prompts = ["a red car", "a green chair", "a blue mug", "a yellow cone"]
    images = torch.stack([common.blocks_picture(prompt) for prompt in prompts])
    right, wrong = judge(images, prompt=prompts), judge(images, prompt=prompts[1:] + prompts[:1])
    assert (right > 0.5).all()
    assert (right > wrong + 0.5).all()
    torch.testing.assert_close(judge(images, prompt=prompts), right)
    with pytest.raises(ValueError, match="the built-in world has no 'a cat'"):
        judge(images[:1], prompt="a cat")


def test_both_arms_from_the_command_line(tmp_path, capsys, monkeypatch):
    # a quarter of the judge's work
    judge = functools.partial(optimize_image.DenoiserJudge, draws=1)
    monkeypatch.setattr(optimize_image, "DenoiserJudge", judge)
    words = ["a red mug", "--steps", "21", "--samples", "2", "--out", str(tmp_path)]
    assert optimize_image.main(words) == 0
    pictures = {f"{arm}-a-red-mug.png" for arm in ("before", "reward-alone", "augmented")}
    assert {p.name for p in tmp_path.iterdir()} == FILES | pictures
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for arm in ("reward alone", "augmented"):
        notes = [line for line in lines if line["arm"] == arm]
        assert [note["step"] for note in notes] == [0, 10, 20]
        assert notes[-1]["reward"] > notes[0]["reward"] + 3
    table = capsys.readouterr().out
    assert "| before | a red mug |" in table
    assert "| augmented | a red mug |" in table


def test_a_picture_of_any_size_and_another_vlm_as_judge(tmp_path):
    file = tmp_path / "picture.png"
    optimize_image.save_image(start(1, (40, 56)), file)
    words = ["a red mug", "--start", file, "--judge-model", "builtin/blocks", "--steps", 2]
    words += ["--samples", 1, "--parametrization", "pixels", "--out", tmp_path / "run"]
    assert optimize_image.main([str(word) for word in words]) == 0
    made = load_image(tmp_path / "run" / "augmented-a-red-mug.png").image
    assert made.shape == (3, 40, 56)


def test_fooling_is_said(tmp_path, capsys, monkeypatch):
    """A judge that falls while the reward rises is reported under the arm's name."""

    class Falling(torch.nn.Module):
        seen = 0

        def forward(self, images, prompt):
            self.seen -= 1
            return torch.full((len(images),), float(self.seen))

    class Red(torch.nn.Module):
        def forward(self, images, prompt):
            return images[:, 0].mean((1, 2))

    monkeypatch.setattr(optimize_image, "DenoiserJudge", lambda device: Falling())
    monkeypatch.setattr(common, "load_reward", lambda *_: Red())
    words = ["a red mug", "--steps", "75", "--samples", "1", "--out", str(tmp_path)]
    words += ["--lr", "0.01"]  # so that it is not all red before the end
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert optimize_image.main(words) == 0
    assert "warning: step 70: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--start", "a cat"], "there is no file 'a cat', and the built-in world has no 'a cat'"),
        (["a cat"], "the built-in world has no 'a cat'"),
        (["--model", "no/vlm", "--judge-model", "x"], "cannot load 'no/vlm'"),
        (["--device", "cuda:7"], "torch sees no GPU"),
    ],
)
def test_bad_input(refused, tmp_path, words, message):
    assert message in refused(optimize_image.main, *words, "--out", tmp_path)


def test_a_file_that_is_no_picture(refused, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    words = ["--start", tmp_path / "text.png", "--out", tmp_path]
    assert "cannot read" in refused(optimize_image.main, *words)


def test_another_model_needs_a_judge(capsys):
    with pytest.raises(SystemExit):
        optimize_image.main(["--model", "some/vlm"])
    assert "name it with --judge-model" in capsys.readouterr().err
