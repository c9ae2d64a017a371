"""The shipped denoisers have learnt what their cards say."""

import numpy as np
import pytest
import torch

from vlmreward import YesNoReward
from vlmreward_3d.blocks.training import measure_denoiser
from vlmreward_3d.blocks.training.measure_denoiser import caption_choices
from vlmreward_3d.blocks.training.train_denoiser import sample
from vlmreward_3d.blocks.world.dataset import sample_cameras
from vlmreward_3d.blocks.world.raycast import raycast
from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion


def test_samples_of_the_denoiser_show_what_was_asked_for():
    reward = YesNoReward("builtin/blocks", device="cpu")
    prompts = ["a red cube on top of a blue sphere", "a green mug"]
    cameras = sample_cameras(torch.Generator().manual_seed(3), len(prompts)).condition().float()
    denoiser = PixelDiffusion.from_pretrained("builtin/blocks")
    views = sample(denoiser, prompts, cameras, guidance_scale=4.0)
    enlarged = torch.nn.functional.interpolate(views, (64, 64), mode="bilinear")
    log_odds = reward(enlarged.unflatten(0, (len(prompts), 4)), prompt=prompts)
    assert log_odds.min() > 3


@pytest.fixture(scope="module")
def raycast_once():
    """`raycast`, which renders again what it has rendered from its memory."""
    rendered = {}

    def call(scene, cameras, size):
        key = repr(scene), cameras.c2w.numpy().tobytes(), size
        if key not in rendered:
            rendered[key] = raycast(scene, cameras, size)
        return rendered[key]

    return call


@pytest.mark.parametrize(
    ("name", "knows", "does_not_know"),
    [
        ("builtin/blocks", {"colors", "order", "another scene"}, set()),
        ("builtin/coarse", {"another scene"}, {"colors", "order"}),
        ("builtin/single-view", {"colors", "order", "another scene"}, set()),
    ],
)
def test_denoisers_know_what_their_cards_say(name, knows, does_not_know, raycast_once, monkeypatch):
    monkeypatch.setattr(measure_denoiser, "raycast", raycast_once)  # the same pairs for all
    choices = caption_choices(PixelDiffusion.from_pretrained(name), 40)
    shares = {kind: np.mean(right) for kind, right in choices.items()}
    assert shares.keys() == knows | does_not_know
    assert all(len(right) >= 15 for right in choices.values())
    assert all(shares[kind] >= 0.85 for kind in knows)
    assert all(0.2 <= shares[kind] <= 0.8 for kind in does_not_know)
