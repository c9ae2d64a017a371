"""Sampling with a reward that guides it."""

import json

import evaluate_guided_sampling as script
import pytest
import torch
from torch.testing import assert_close

from vlmreward_3d.guidance.loading import load_denoiser
from vlmreward_3d.guidance.sampling import RewardStep, sample
from vlmreward_3d.presets import blocks
from vlmreward_3d.rendering.evaluation import evaluation_cameras


def originals(groups, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.6 * torch.rand(4 * groups, 3, 8, 8, dtype=torch.float64, generator=generator) - 0.3


def test_a_step_is_up_the_gradient_and_as_long_in_every_group():
    weights = torch.randn(2, 4, 3, 8, 8, dtype=torch.float64)
    weights[1] *= 100

    def linear(images, prompt):
        assert prompt == ["one", "two"]
        assert images.shape == (2, 4, 3, 8, 8)
        return (images * weights).flatten(1).sum(1)

    before = originals(2)
    after = RewardStep(linear, ["one", "two"], length=0.5, resolution=8)(before)
    moved = (after - before).view(2, -1)
    assert_close(moved.norm(dim=1), torch.full((2,), 0.5).double())
    direction = weights.view(2, -1) / weights.view(2, -1).norm(dim=1, keepdim=True)
    assert_close(moved / 0.5, direction)
    assert not after.requires_grad


def test_it_stays_in_range_and_where_the_reward_is_flat_it_stays():
    before = originals(1)
    far = RewardStep(lambda images, prompt: images.sum()[None], ["a"], length=1e3)(before)
    assert_close(far, torch.ones_like(far))
    flat = RewardStep(lambda images, prompt: 0 * images.sum()[None], ["a"], length=1.0)(before)
    assert torch.equal(flat, before)


@pytest.mark.parametrize("length", [0, -1.0, float("nan"), "8"])
def test_a_length_that_is_none_is_refused(length):
    with pytest.raises((TypeError, ValueError), match="length"):
        RewardStep(lambda images, prompt: images, ["a"], length=length)


def test_what_is_predicted_is_changed_in_each_step():
    model = load_denoiser("builtin/coarse")
    cameras = evaluation_cameras(blocks("any").camera, 4).condition()
    seen = []

    def note(original):
        seen.append(original.shape)
        return original

    settings = {"guidance_scale": 4.0, "steps": 3}
    alone = sample(model, ["a red cube"], cameras, **settings)
    assert alone.shape == (4, 3, 32, 32)
    assert torch.equal(sample(model, ["a red cube"], cameras, change=note, **settings), alone)
    assert seen == [(4, 3, 32, 32)] * 3
    black = sample(model, ["a red cube"], cameras, change=lambda x: 0 * x - 1, **settings)
    assert_close(black, torch.zeros_like(black))  # the last step ends at what is predicted


def test_the_comparison_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    command = ["evaluate", "--out", str(tmp_path), "--first", "0", "--prompts", "2", "--seeds", "1"]
    monkeypatch.setattr("sys.argv", [*command, "--transformations", "1"])
    monkeypatch.setattr(
        script,
        "sample",
        lambda model, part, *_, change, **__: torch.full(
            (4 * len(part), 3, 32, 32), 0.2 if change is None else 0.8
        ),
    )
    script.main()
    path = tmp_path / "measurements.jsonl"
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    assert {json.loads(line)["arm"] for line in lines} == {"alone", "guided"}
    path.write_text("\n".join(lines[:2]) + "\n")
    script.main()
    assert path.read_text().splitlines() == lines
    written = (tmp_path / "table.md").read_text()
    assert written in capsys.readouterr().out
    assert "| alone | 0% [0%, 66%] |" in written
    assert (tmp_path / "guided-0.png").exists()
