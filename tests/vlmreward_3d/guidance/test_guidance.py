"""Values and gradients of the guidances at the pixels, against closed forms."""

import pytest
import torch
from solids import cast
from stub_models import OracleDenoiser, RandomDenoiser, between, redness
from torch.testing import assert_close

from vlmreward_3d.cameras import Cameras, sample_groups
from vlmreward_3d.guidance.sds import ScoreDistillation
from vlmreward_3d.guidance.vlm import VLMGuidance


def scene() -> tuple[Cameras, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    fov = (OracleDenoiser.fov_deg, OracleDenoiser.fov_deg)
    radius = (OracleDenoiser.scale, OracleDenoiser.scale)
    cameras = sample_groups(
        2, 4, fov_deg=fov, elevation_deg=(0.0, 30.0), object_radius=radius, generator=generator
    )
    return cameras, torch.rand(8, 3, 64, 64, generator=generator)


def test_x0_pulls_towards_the_denoiser_s_picture_through_the_downsampling():
    cameras, images = scene()
    teacher = ScoreDistillation(
        OracleDenoiser(32),
        "solids",
        guidance_scale=7.0,
        guidance_rescale=0.5,
        **between(0.02, 0.98),
    )
    verdict = teacher(images, cameras, 0.0, torch.Generator().manual_seed(1))
    target = cast(cameras, 32, torch.ones(8, 3))
    difference = 2 * (torch.nn.functional.avg_pool2d(images, 2) - target)
    assert_close(verdict.value, 0.5 * difference.square().sum() / 8, rtol=1e-3, atol=0)
    # d latent / d pixel is 2 / 4 for each of the four pixels of a block
    expected = (difference / 8 * 2 / 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert_close(verdict.gradient, expected, rtol=1e-3, atol=1e-5)


def test_sds_is_weighted_by_the_noise_level():
    cameras, images = scene()
    denoiser = OracleDenoiser(32)
    teacher = ScoreDistillation(
        denoiser, "solids", rule="sds", guidance_scale=7.0, **between(0.5, 0.5)
    )
    verdict = teacher(images, cameras, 0.0, torch.Generator().manual_seed(1))
    abar = denoiser.alphas_cumprod[500].item()
    target = cast(cameras, 32, torch.ones(8, 3))
    difference = 2 * (torch.nn.functional.avg_pool2d(images, 2) - target)
    # eps_hat - eps = sqrt(abar / (1 - abar)) (z - x0)
    expected = (1 - abar) * (abar / (1 - abar)) ** 0.5 * difference / 8 * 2 / 4
    expected = expected.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert_close(verdict.gradient, expected, rtol=1e-3, atol=1e-5)


class Constant(OracleDenoiser):
    """Sees single views in pixels, and one color in all of them; the text changes nothing."""

    n_views = 1
    color = 0.25

    def __init__(self):
        self.alphas_cumprod = torch.linspace(0.9999, 0.01, 1000, dtype=torch.float64)

    def to_latents(self, images):
        return images * 2 - 1

    def predict_noise(self, noisy, t, text, cameras):
        abar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        return (noisy - abar.sqrt() * self.color) / (1 - abar).sqrt()


@pytest.mark.parametrize("views", [1, 4, 8])
@pytest.mark.parametrize("rule", ["x0", "sds"])
def test_loss_and_gradient_are_per_view_in_both_rules(rule, views):
    cameras = Cameras.turntable(views)
    images = torch.rand(1, 3, 6, 6, dtype=torch.float64).expand(views, -1, -1, -1)
    teacher = ScoreDistillation(
        Constant(), "a cube", rule=rule, guidance_scale=7.0, **between(0.5, 0.5)
    )
    verdict = teacher(images, cameras, 0.0, torch.Generator().manual_seed(1))
    abar = Constant().alphas_cumprod[500]
    # of one view: z - x0 = 2 rgb - 1 - color, for "sds" times sqrt(abar (1 - abar))
    pull = 2 * images[0] - 1 - Constant.color
    if rule == "sds":
        pull = pull * (abar * (1 - abar)).sqrt()
    assert_close(verdict.value, 0.5 * pull.square().sum(), rtol=1e-10, atol=0)
    assert_close(verdict.gradient.norm(), 2 * pull.norm() / views**0.5, rtol=1e-10, atol=0)
    assert_close(verdict.gradient[-1], 2 * pull / views, rtol=1e-9, atol=1e-12)


class Recorder(RandomDenoiser):
    """Remembers what it was asked."""

    def encode_text(self, texts):
        self.texts = texts
        return torch.arange(len(texts)).view(-1, 1, 1).expand(-1, 2, 3).float()

    def predict_noise(self, noisy, t, text, cameras):
        self.asked = (noisy, t, text, cameras)
        return super().predict_noise(noisy, t, text, cameras)


def test_both_halves_see_the_same_noise_time_and_camera_but_their_own_text():
    cameras, images = scene()
    denoiser = Recorder()
    teacher = ScoreDistillation(
        denoiser, "a cube", negative_prompt="fog", guidance_scale=3.0, **between(0.2, 0.9)
    )
    teacher(images, cameras, 0.0, torch.Generator().manual_seed(3))
    noisy, t, text, condition = denoiser.asked
    assert denoiser.texts == ["fog", "a cube", ""]
    assert torch.equal(noisy[:8], noisy[8:])
    assert torch.equal(text[:, 0, 0], torch.tensor([0.0] * 8 + [1.0] * 8))
    assert torch.equal(condition, cameras.condition().repeat(2, 1))
    assert t.view(4, 4).diff(dim=1).abs().sum() == 0  # one time per group
    assert torch.equal(t[:8], t[8:])
    assert t[0] != t[4]
    assert t.min() >= 200
    assert t.max() < 900


def test_all_views_of_a_step_can_share_one_timestep():
    cameras, images = scene()
    denoiser = Recorder()
    teacher = ScoreDistillation(
        denoiser, "a cube", guidance_scale=3.0, shared_timestep=True, **between(0.2, 0.9)
    )
    times = set()
    for seed in range(5):
        teacher(images, cameras, 0.0, torch.Generator().manual_seed(seed))
        (time,) = denoiser.asked[1].unique().tolist()
        times.add(time)
    assert len(times) > 1


def test_the_generator_decides_the_noise():
    cameras, images = scene()
    teacher = ScoreDistillation(RandomDenoiser(), "a cube", guidance_scale=3.0, **between(0.2, 0.9))

    def ask(seed):
        return teacher(images, cameras, 0.0, torch.Generator().manual_seed(seed)).gradient

    assert torch.equal(ask(0), ask(0))
    assert not torch.equal(ask(0), ask(1))


def test_incomplete_groups_and_unknown_rules_are_refused():
    cameras, images = scene()
    teacher = ScoreDistillation(RandomDenoiser(), "a cube", guidance_scale=3.0, **between(0.2, 0.9))
    with pytest.raises(ValueError, match=r"received 3 images of 3 cameras; expected .* 4 images"):
        teacher(images[:3], cameras[:3], 0.0, torch.Generator())
    with pytest.raises(
        ValueError, match="received the distillation rule 'x1'; expected one of x0, sds, "
    ):
        ScoreDistillation(RandomDenoiser(), "a cube", rule="x1", guidance_scale=3.0)


def test_the_reward_s_gradient_is_autograd_s_and_no_graph_is_left():
    images = torch.rand(4, 3, 6, 6, requires_grad=True)
    verdict = VLMGuidance(redness, "red")(images * 1.0)
    expected = torch.tensor([4.0, -2.0, -2.0])[:, None, None] / (4 * 36)
    assert_close(verdict.gradient, -expected.expand(4, 3, 6, 6))
    assert_close(verdict.value, redness(images[None], "red")[0].detach())
    probability = verdict.value.sigmoid().item()
    assert verdict.metrics == {"reward": verdict.value.item(), "prob_yes": probability}
    assert not verdict.value.requires_grad
    assert images.grad is None


@pytest.mark.parametrize("side", [64, 20, 16, 9])
def test_the_reward_sees_views_of_its_own_size_and_answers_at_theirs(side):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 16, 16, dtype=torch.float64, generator=generator)
    taste = torch.randn(4, 3, side, side, dtype=torch.float64, generator=generator)

    def reward(seen, prompt):
        return (seen * taste).sum((1, 2, 3, 4)) + (seen**2).sum((1, 2, 3, 4))

    verdict = VLMGuidance(reward, "", resolution=side)(images)
    leaf = images.clone().requires_grad_()
    # antialiased where it shrinks, which changes nothing where it enlarges
    shown = torch.nn.functional.interpolate(
        leaf, (side, side), mode="bilinear", antialias=side < 16
    )
    expected = reward(shown[None], "")[0]
    (gradient,) = torch.autograd.grad(expected, leaf)
    assert_close(verdict.value, expected.detach(), rtol=1e-12, atol=0)
    assert_close(verdict.gradient, -gradient, rtol=1e-12, atol=1e-12)


class Opinionated(RandomDenoiser):
    """Sees a constant that only the text decides: 0 for the negative prompt, 0.3 for the other."""

    def encode_text(self, texts):
        seen = torch.tensor([0.3 if text else 0.0 for text in texts])
        return seen.view(-1, 1, 1).expand(-1, 2, 3)

    def predict_noise(self, noisy, t, text, cameras):
        abar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        return (noisy - abar.sqrt() * text[:, :1, :1, None]) / (1 - abar).sqrt()


def test_guidance_leads_from_the_negative_prompt_past_the_prompt():
    cameras, images = scene()
    teacher = ScoreDistillation(Opinionated(8), "a", guidance_scale=3.0, **between(0.5, 0.5))
    verdict = teacher(images[:4], cameras[:4], 0.0, torch.Generator().manual_seed(0))
    latents = torch.nn.functional.avg_pool2d(images[:4], 8) * 2 - 1
    # 0 + 3 * (0.3 - 0) = 0.9, and each of 64 pixels of a block has 2 / 64 of the latent
    expected = ((latents - 0.9) / 4 * 2 / 64).repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert_close(verdict.gradient, expected, rtol=1e-3, atol=1e-5)
