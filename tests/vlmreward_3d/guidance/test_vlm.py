"""The 3D side with the real reward of a small random Qwen2.5-VL."""

import pytest
import torch
from stub_models import RandomDenoiser, build_vlm3d, random_vlm, tiny
from torch.testing import assert_close

from vlmreward import YesNoReward
from vlmreward_3d.guidance.vlm import VLMGuidance


@pytest.fixture(scope="module")
def reward() -> YesNoReward:
    return YesNoReward(random_vlm(), question=tiny().vlm.question, pixel_mode="clamp")


def test_the_verdict_is_the_reward_s_and_depends_on_all_views(reward):
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    verdict = VLMGuidance(reward, "a red cube")(images)
    assert_close(verdict.value, reward(images[None], prompt="a red cube")[0].detach())
    norms = verdict.gradient.flatten(1).norm(dim=1)
    assert (norms > 0).all()
    step = 0.01 / verdict.gradient.norm() * verdict.gradient
    ahead = VLMGuidance(reward, "a red cube")((images - step).clamp(0, 1)).value
    assert ahead > verdict.value


def test_some_views_at_a_time_are_asked_about_and_the_mean_is_taken(reward):
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    verdict = VLMGuidance(reward, "a red cube", views_per_question=2)(images)
    leaf = images.clone().requires_grad_()
    odds = torch.cat([reward(leaf[None, k : k + 2], prompt="a red cube") for k in (0, 2)])
    (gradient,) = torch.autograd.grad(odds.mean(), leaf, retain_graph=True)
    assert_close(verdict.value, odds.detach().mean())
    assert_close(verdict.gradient, -gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item())
    surer = VLMGuidance(reward, "a red cube", views_per_question=2, objective="log-probability")
    (gradient,) = torch.autograd.grad(odds.sigmoid().log().mean(), leaf)
    size = gradient.abs().max().item()
    assert_close(surer(images).gradient, -gradient, rtol=1e-3, atol=1e-4 * size)
    together = VLMGuidance(reward, "a red cube")(images)
    assert abs(together.value - verdict.value) > 0.1
    with pytest.raises(ValueError, match="received 4 views with views_per_question=3"):
        VLMGuidance(reward, "a red cube", views_per_question=3)(images)


def test_the_log_probability_speaks_the_less_the_surer_the_answer(reward):
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    odds = VLMGuidance(reward, "a red cube")(images)
    surer = VLMGuidance(reward, "a red cube", objective="log-probability")(images)
    assert_close(surer.value, odds.value)
    assert surer.metrics == odds.metrics
    assert_close(surer.gradient, odds.gradient * (1 - odds.metrics["prob_yes"]))
    with pytest.raises(ValueError, match="received objective='odds'; expected one of"):
        VLMGuidance(reward, "a red cube", objective="odds")


def test_small_views_are_judged_as_if_they_were_enlarged_before(reward):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 64, 64, generator=generator)
    config = tiny(vlm__resolution=256, vlm__objective="log-odds")
    model = build_vlm3d(config, RandomDenoiser(), reward)
    verdict = model.guidances.terms[1].guidance(images)
    leaf = images.clone().requires_grad_()
    large = torch.nn.functional.interpolate(leaf, (256, 256), mode="bilinear")
    as_large = VLMGuidance(reward, model.config.prompt)(large)
    (expected,) = torch.autograd.grad(large, leaf, as_large.gradient)
    assert_close(verdict.value, as_large.value)
    assert_close(verdict.gradient, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    # a VLM that is shown 64 pixels sees another picture
    as_rendered = VLMGuidance(reward, model.config.prompt)(images)
    assert abs(as_rendered.value - verdict.value) > 1e-3
    cosine = torch.cosine_similarity(as_rendered.gradient.flatten(), expected.flatten(), dim=0)
    assert cosine < 0.9


def test_a_run_with_it_can_be_repeated_exactly(reward):
    config = tiny(camera__resolution=32)

    def run():
        model = build_vlm3d(config, RandomDenoiser(), reward)
        return [model.step() for _ in range(3)]

    reports = run()
    assert reports == run()
    assert all(r.metrics["vlm/grad_norm"] > 0 for r in reports)
