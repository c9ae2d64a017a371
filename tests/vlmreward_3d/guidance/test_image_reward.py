"""A third guidance beside score distillation and the VLM: the similarity of a small random CLIP."""

import json

import pytest
import torch
from stub_models import RandomDenoiser, redness, shrink_exports, tiny
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import WeightingConfig
from vlmreward_3d.export.run_artifacts import export_all
from vlmreward_3d.guidance.image_reward import ImageRewardGuidance
from vlmreward_3d.guidance.loading import build_guidances
from vlmreward_3d.guidance.weighting import WeightedGuidance
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.training.run_directory import RunDirectory
from vlmreward_3d.training.trainer import train
from vlmreward_3d.vlm3d import VLM3D


@pytest.fixture(scope="module")
def similarity():
    """Images to their cosine similarity with a fixed text."""
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    text = CLIPTextConfig(vocab_size=20, num_attention_heads=2, **small)
    vision = CLIPVisionConfig(image_size=16, patch_size=8, num_attention_heads=2, **small)
    model = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    ).eval()
    model.requires_grad_(False)
    tokens = torch.tensor([[1, 5, 7, 2]])

    def reward(images):
        out = model(input_ids=tokens, pixel_values=F.interpolate(images, (16, 16)))
        return F.cosine_similarity(out.image_embeds, out.text_embeds)

    return reward


def test_value_and_gradient_are_those_of_the_mean(similarity):
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    guidance = ImageRewardGuidance(similarity, name="clip")
    output = guidance(images, Cameras.turntable(4), 0.0, torch.Generator())
    leaf = images.clone().requires_grad_()
    similarity(leaf).mean().backward()
    assert_close(output.value, similarity(images).mean())
    assert_close(output.gradient, -leaf.grad)
    assert output.gradient.abs().sum() > 0
    assert output.metrics == {"reward": output.value.item()}


def test_a_run_with_three_guidances_logs_shows_and_resumes_all_of_them(
    similarity, tmp_path, monkeypatch
):
    shrink_exports(monkeypatch)
    config = tiny(steps=6)
    weighting = WeightingConfig(
        weight=Schedule.constant(50), interval=2, cache_gradient=True, max_grad_ratio=0.5
    )

    def model() -> VLM3D:
        third = WeightedGuidance(ImageRewardGuidance(similarity, name="clip"), weighting)
        return VLM3D(config, [*build_guidances(config, RandomDenoiser(), redness), third])

    whole = model()
    folder = RunDirectory(tmp_path, config)
    train(whole, folder, checkpoint_every=3, progress=False)
    log = [json.loads(line) for line in folder.metrics_file.open()]
    assert ["clip/reward" in line for line in log] == [True, False] * 3
    assert all(0 < line["clip/weight"] <= 50 for line in log)
    export_all(tmp_path, whole, folder.metrics(), meshes=())
    assert "clip/reward" in (tmp_path / "report.html").read_text()

    again = model()
    states = []
    for running in (model(), again):
        for step in range(6):
            if running is again and step == 3:
                state, running = running.state(), model()
                running.load_state(state)
            running.step()
        states.append(running.state())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_it_raises_the_similarity(similarity):
    guidance = ImageRewardGuidance(similarity, name="clip")
    config = tiny(
        steps=30, camera__background="white", optimizer__learning_rate=Schedule.constant(0.05)
    )
    reports = [step() for step in [VLM3D(config, [guidance]).step] * 30]
    rewards = [report.metrics["clip/reward"] for report in reports]
    assert sum(rewards[-5:]) > sum(rewards[:5]) + 0.05


def test_bad_rewards_are_named():
    with pytest.raises(TypeError, match="reward is a int; expected a function of images"):
        ImageRewardGuidance(3)
    guidance = ImageRewardGuidance(lambda images: images.sum())
    with pytest.raises(ValueError, match=r"returned the shape \(\); expected \(4,\)"):
        guidance(torch.rand(4, 3, 8, 8), Cameras.turntable(4), 0.0, torch.Generator())
