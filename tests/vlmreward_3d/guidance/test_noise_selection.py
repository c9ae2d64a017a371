"""Choice of the best of several noises."""

import pytest
import torch
from stub_models import RandomDenoiser, build_vlm3d, redness, tiny
from torch.testing import assert_close

from vlmreward_3d.cameras import sample_groups
from vlmreward_3d.config import RANKINGS, NoiseSelectionConfig
from vlmreward_3d.guidance import ScoreDistillation
from vlmreward_3d.guidance.noise_selection import NoiseSelection, ranking_weights
from vlmreward_3d.guidance.rules import RULES
from vlmreward_3d.schedule import Schedule

GROUPS, CANDIDATES = 2, 5
LEVEL = Schedule.constant(0.5)


def reddest(images, prompt):
    assert prompt == "a red cube"
    return images[:, :, 0].mean((1, 2, 3)) - images[:, :, 1:].mean((1, 2, 3, 4))


def distillation(**settings):
    options = {"guidance_scale": 3.0, "t_min": LEVEL, "t_max": LEVEL, **settings}
    return ScoreDistillation(RandomDenoiser(), "a red cube", **options)


def inputs():
    source = torch.Generator().manual_seed(0)
    cameras = sample_groups(
        GROUPS,
        4,
        fov_deg=(40, 40),
        elevation_deg=(10, 20),
        object_radius=(0.9, 0.9),
        generator=source,
    )
    return torch.rand(4 * GROUPS, 3, 16, 16, generator=source), cameras


def test_the_best_of_each_group_is_followed():
    """A second route: every noise alone, the reward of its prediction, the best for a group."""
    images, cameras = inputs()
    selection = NoiseSelection(reddest, "a red cube", n_candidates=CANDIDATES)
    chosen = distillation(selection=selection)
    output = chosen(images, cameras, 0.0, torch.Generator().manual_seed(3))
    plain = distillation()
    source = torch.Generator().manual_seed(3)
    t = torch.full((4 * GROUPS,), len(plain.denoiser.alphas_cumprod) // 2)
    torch.rand(GROUPS, generator=source)
    latents = plain.denoiser.to_latents(images)
    gradients, rewards = [], []
    teacher = plain.prompts.seen_from(cameras, latents)
    for _ in range(CANDIDATES):
        prediction = plain._predict(teacher, latents, t, 0.0, source)
        gradients.append(RULES["x0"](prediction))
        views = plain.denoiser.to_images(prediction.original).view(GROUPS, 4, *latents.shape[1:])
        rewards.append(reddest(views, "a red cube"))
    best = torch.stack(rewards).argmax(0)
    assert len(set(best.tolist())) > 1  # else groups are not told apart
    expected = torch.cat([gradients[k][4 * g : 4 * g + 4] for g, k in enumerate(best.tolist())])
    with torch.enable_grad():
        leaf = images.requires_grad_()
        (at_images,) = torch.autograd.grad(plain.denoiser.to_latents(leaf), leaf, expected)
    assert_close(output.gradient, at_images, rtol=0, atol=0)
    gain = torch.stack(rewards).amax(0) - torch.stack(rewards).mean(0)
    assert output.metrics["selection_gain"] == pytest.approx(gain.mean().item())


def test_rewards_become_weights():
    """Four candidates for two groups, by hand."""
    scores = torch.tensor([[1.0, 0.0], [4.0, 3.0], [2.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    expected = {
        "best": [[0, 0], [1, 1], [0, 0], [0, 0]],
        "min-max": [[-0.05, -0.05], [0.45, 0.45], [-0.05, 0.45], [0.45, -0.05]],
        "softmax": [[0.0321, 0.0321], [0.6439, 0.6439], [0.0871, 0.2369], [0.2369, 0.0871]],
    }
    for ranking, weights in expected.items():
        found = ranking_weights(scores, ranking)
        assert_close(found, torch.tensor(weights).double(), rtol=0, atol=5e-5)
    two = torch.tensor([[1.0, 2.0, 0.0], [1.5, 1.9, 0.0]])
    preferred = ranking_weights(two, "preference", margin=0.2)
    assert_close(preferred, torch.tensor([[-1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]))
    three = ranking_weights(scores[:3], "min-max")
    assert_close(three[:, 0], torch.tensor([-0.05, 0.45, 0.4], dtype=torch.float64))
    assert set(expected) | {"preference"} == set(RANKINGS)


@pytest.mark.parametrize("ranking", ["softmax", "min-max", "preference"])
def test_gradients_are_weighed(ranking):
    """A second route: the rule for every noise alone, times its weight."""
    images, cameras = inputs()
    count = 2 if ranking == "preference" else CANDIDATES
    selection = NoiseSelection(reddest, "a red cube", n_candidates=count, ranking=ranking)
    made = distillation(selection=selection, rule="sds")
    output = made(images, cameras, 0.0, torch.Generator().manual_seed(3))
    source = torch.Generator().manual_seed(3)
    t = torch.full((4 * GROUPS,), len(made.denoiser.alphas_cumprod) // 2)
    torch.rand(GROUPS, generator=source)
    latents = made.denoiser.to_latents(images)
    teacher = made.prompts.seen_from(cameras, latents)
    candidates = [made._predict(teacher, latents, t, 0.0, source) for _ in range(count)]
    views = [
        made.denoiser.to_images(c.original).view(GROUPS, 4, *latents.shape[1:]) for c in candidates
    ]
    scores = torch.stack([reddest(v, "a red cube") for v in views])
    expected = torch.zeros_like(latents)
    for weights, c in zip(ranking_weights(scores, ranking).tolist(), candidates):
        for g, weight in enumerate(weights):
            rows = slice(4 * g, 4 * g + 4)
            unguided = weight < 0 and ranking == "preference"
            noise = c.conditional if unguided else c.guided
            part = (1 - c.alpha_bar).view(-1, 1, 1, 1) * (noise - c.noise) / len(latents)
            expected[rows] += weight * part[rows]
    with torch.enable_grad():
        leaf = images.requires_grad_()
        (at_images,) = torch.autograd.grad(made.denoiser.to_latents(leaf), leaf, expected)
    assert_close(output.gradient, at_images)


def test_behind_its_end_one_noise_is_drawn():
    images, cameras = inputs()
    selection = NoiseSelection(reddest, "a red cube", stop_at=0.5)
    outputs = [
        made(images, cameras, 0.5, torch.Generator().manual_seed(1))
        for made in (distillation(), distillation(selection=selection))
    ]
    assert_close(outputs[0].gradient, outputs[1].gradient, rtol=0, atol=0)
    assert "selection_gain" not in outputs[1].metrics


def test_a_run_selects_and_resumes_exactly():
    changes = {"score_distillation.selection": NoiseSelectionConfig(n_candidates=3, stop_at=0.5)}
    config = tiny(steps=6, **changes)
    models = [build_vlm3d(config, RandomDenoiser(), redness) for _ in range(2)]
    reports = [models[0].step() for _ in range(6)]
    assert ["sds/selection_gain" in r.metrics for r in reports] == [True] * 3 + [False] * 3
    for _ in range(2):
        models[1].step()
    again = build_vlm3d(config, RandomDenoiser(), redness)
    again.load_state(models[1].state())
    assert [again.step().metrics for _ in range(4)] == [r.metrics for r in reports[2:]]


def test_a_selection_needs_a_vlm():
    with pytest.raises(ValueError, match="received vlm=None; expected a VLMConfig, whose reward"):
        tiny(vlm=None, **{"score_distillation.selection": NoiseSelectionConfig()})
    with pytest.raises(ValueError, match="received n_candidates=1; expected a whole number >= 2"):
        NoiseSelectionConfig(n_candidates=1)
    with pytest.raises(ValueError, match="n_candidates"):
        NoiseSelection(reddest, "a red cube", n_candidates=1)


def test_a_rule_that_draws_no_noise_has_nothing_to_select():
    selection = NoiseSelection(reddest, "a red cube")
    with pytest.raises(ValueError, match="'ism' with a selection of noises; expected a rule that"):
        distillation(selection=selection, rule="ism")


def test_a_preference_is_between_two():
    with pytest.raises(ValueError, match='expected 2 with ranking="preference"'):
        NoiseSelectionConfig(n_candidates=3, ranking="preference")
    with pytest.raises(ValueError, match="received n_candidates=3 with ranking='preference'"):
        NoiseSelection(reddest, "a red cube", n_candidates=3, ranking="preference")
    with pytest.raises(ValueError, match=r"received ranking='worst'; expected one of \('best',"):
        NoiseSelectionConfig(ranking="worst")
    with pytest.raises(ValueError, match=r"received ranking='worst'; expected one of \('best',"):
        NoiseSelection(reddest, "a red cube", ranking="worst")
    with pytest.raises(ValueError, match="margin"):
        NoiseSelectionConfig(margin=-1.0)
