"""Reward3D as a guidance, and the preset of DreamReward."""

import pytest
import torch
from reward3d_reference import HEAD_CHANNELS, random_state
from stub_models import RandomDenoiser
from torch.nn import functional as F
from torch.testing import assert_close

from vlmreward.models.families import tiny
from vlmreward.models.reward3d import Reward3DNetwork
from vlmreward.rewards.reward3d import Reward3D
from vlmreward_3d import presets
from vlmreward_3d.cameras import orbit
from vlmreward_3d.config import Reward3DConfig, VLM3DConfig
from vlmreward_3d.guidance import loading
from vlmreward_3d.guidance.reward3d import Reward3DGuidance
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.vlm3d import VLM3D

TOKENIZER = tiny.tokenizer([])


@pytest.fixture(scope="module")
def reward():
    state = random_state("scorer", words=len(TOKENIZER))
    network = Reward3DNetwork.from_state(state, head_channels=HEAD_CHANNELS)
    return Reward3D(network.double(), TOKENIZER)


def ring():
    azimuths = torch.tensor([0.0, 90.0, 180.0, 270.0] * 2, dtype=torch.float64)
    return orbit(azimuths, 10.0, 3.0, 40.0)


def test_loss_and_gradient_are_those_of_the_formula(reward):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 16, 16, dtype=torch.float64, generator=generator)
    sides = [f"a cat, {side} view" for side in ("front", "side", "back", "side")]
    pixels = images.clone().requires_grad_()
    shown = F.interpolate(pixels, (256, 256), mode="bilinear", antialias=True)
    rewards = reward.of_views(shown.unflatten(0, (2, 4)), [sides, sides])
    target = rewards.mean().item()  # one of the two groups has reached it
    expected = F.relu(target - rewards).mean()
    (gradient,) = torch.autograd.grad(expected, pixels)
    output = Reward3DGuidance(reward, "a cat", target=target)(images, ring(), 0.0, generator)
    assert_close(output.value, expected.detach(), rtol=1e-6, atol=1e-9)
    assert_close(output.gradient, gradient, rtol=1e-4, atol=1e-9)
    silent = output.gradient.flatten(1).abs().amax(1) == 0
    assert silent.tolist() in ([True] * 4 + [False] * 4, [False] * 4 + [True] * 4)
    assert output.metrics["reward"] == pytest.approx(target)
    assert output.metrics["loss"] == pytest.approx(expected.item())
    with pytest.raises(ValueError, match="received 6 images of 6 cameras; expected one camera"):
        Reward3DGuidance(reward, "a cat")(images[:6], ring()[:6], 0.0, generator)


def test_the_preset_asks_it_when_its_authors_do(reward, tmp_path, monkeypatch):
    config = presets.dreamreward("a cat")
    (asked,) = config.further_guidances
    assert (config.steps, asked.target) == (10_000, 4.0)
    for step, low, high in ((0, 0.98, 0.98), (5000, 0.38, 0.68), (6000, 0.26, 0.62)):  # the page's
        sds = config.score_distillation
        assert sds.t_min(step / 10_000) == pytest.approx(low)
        assert sds.t_max(step / 10_000) == pytest.approx(high)
    assert VLM3DConfig.from_json(config.to_json()) == config
    assert config.vlm is None
    assert config.field.orientation_weight(1.0) == 0
    assert config.field.shading is None
    TOKENIZER.save_pretrained(tmp_path / "bert")
    torch.save(random_state("fusion", words=len(TOKENIZER)), tmp_path / "weights.pt")
    small = {
        "steps": 50,
        "camera.resolution": Schedule.constant(8),
        "camera.n_groups": Schedule.constant(1),
        "field.resolutions": (4, 8),
        "field.occupancy.resolution": 8,
        "field.rays.samples_per_ray": 4,
    }
    further = Reward3DConfig(
        checkpoint=str(tmp_path / "weights.pt"),
        tokenizer=str(tmp_path / "bert"),
        weighting=asked.weighting,
    )
    config = config.replace({**small, "further_guidances": (further,)})
    load = Reward3D.from_checkpoint
    monkeypatch.setattr(
        Reward3D,
        "from_checkpoint",
        lambda *a, **options: load(*a, **options, head_channels=HEAD_CHANNELS),
    )
    monkeypatch.setattr(loading, "load_denoiser", lambda *a, **options: RandomDenoiser())
    model = VLM3D(config, loading.load_guidances(config))
    reports = [model.step().metrics for _ in range(50)]
    assert ["reward3d/reward" in r for r in reports] == [i >= 30 for i in range(50)]
    assert ["sds/loss" in r for r in reports] == [i < 49 for i in range(50)]
    for report in reports[30:49]:
        assert 0 < report["reward3d/weight"] < float("inf")
    assert reports[49]["reward3d/weight"] > 0
    assert all(report["reward3d/weight"] == 0 for report in reports[:30])
