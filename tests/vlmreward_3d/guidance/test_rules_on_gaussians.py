"""Distillation rules on Gaussian targets, whose denoisers and fixed points are known exactly.

A prompt stands for N(mean, variance) in every element of z; its denoiser is
eps(z_t) = s (z_t - a mean) / (a^2 variance + s^2) with a = sqrt(abar) and s = sqrt(1 - abar). All
gradients are affine in z and in the noise, so that their expectation is the gradient without noise.
"""

import math

import pytest
import torch
from torch.testing import assert_close

from vlmreward_3d.guidance.rules import RULES, ism, noising, sdi
from vlmreward_3d.guidance.sds import ScoreDistillation
from vlmreward_3d.presets import blocks
from vlmreward_3d.rendering.evaluation import evaluation_cameras
from vlmreward_3d.schedule import Schedule

T = 1000
SETTINGS = {"prompt": (0.5, 0.04), "negative": (-0.3, 0.09), "": (0.1, 0.25)}
EQUAL = {"prompt": (0.5, 1.0), "negative": (-0.3, 1.0), "": (0.1, 1.0)}


class Gaussians:
    """A denoiser of single views that knows the Gaussian of each text."""

    n_views = 1

    def __init__(self, known, first=1.0):
        self.known = known
        angles = torch.linspace(math.acos(first**0.5), 1.5, T, dtype=torch.float64)
        self.alphas_cumprod = angles.cos().square()

    def encode_text(self, texts):
        return torch.tensor([self.known[text] for text in texts], dtype=torch.float64)[:, None]

    def to_latents(self, images):
        return images * 2 - 1

    def predict_noise(self, noisy, t, text, cameras):
        mean, variance = text[:, 0, :, None, None, None].unbind(1)
        abar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        a, s = abar.sqrt(), (1 - abar).sqrt()
        return s * (noisy - a * mean) / (a**2 * variance + s**2)


@pytest.fixture
def without_noise(monkeypatch):
    monkeypatch.setattr(
        torch, "randn", lambda shape, generator=None: torch.zeros(shape, dtype=torch.float64)
    )


CAMERAS = evaluation_cameras(blocks("any").camera, 2)


def gradient(rule, z, *, level, scale, known=SETTINGS, progress=0.0, seed=0):
    """N times the gradient at latents that are z everywhere."""
    at = Schedule.constant(level)
    distillation = ScoreDistillation(
        Gaussians(known),
        "prompt",
        negative_prompt="negative",
        rule=rule,
        guidance_scale=scale,
        t_min=at,
        t_max=at,
    )
    images = torch.full((2, 3, 4, 4), (z + 1) / 2, dtype=torch.float64)
    output = distillation(images, CAMERAS, progress, torch.Generator().manual_seed(seed))
    return output.gradient  # N = 2, and half of it by the latents' 2 x - 1


def fixed_point(rule, **settings):
    """Where the expected gradient, affine in z, is 0."""
    at0, at1 = (gradient(rule, z, **settings).flatten()[0].item() for z in (0.0, 1.0))
    assert at1 != at0
    return at0 / (at0 - at1)


def angles(level):
    a = Gaussians(SETTINGS).alphas_cumprod[int(level * T)].sqrt().item()
    return a, (1 - a * a) ** 0.5


def weights(level, known=SETTINGS):
    """By text, how strongly its prediction pulls to its mean."""
    a, s = angles(level)
    return {text: a * s / (a * a * variance + s * s) for text, (_, variance) in known.items()}


def shrinking(level):
    """What inversion in steps of one timestep leaves of z - m at equal spreads; 1 if infinite."""
    return math.cos(1.5 / (T - 1)) ** int(level * T)


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("rule", ["sds", "sjc", "x0", "clamped-sds"])
def test_those_with_the_noise_subtracted_end_where_guidance_leads(
    rule, level, scale, without_noise
):
    """At the prompt's mean without guidance, and beyond it with guidance."""
    pull = weights(level)
    both = {"prompt": scale * pull["prompt"], "negative": (1 - scale) * pull["negative"]}
    expected = sum(w * SETTINGS[text][0] for text, w in both.items()) / sum(both.values())
    if rule == "clamped-sds":
        here = gradient(rule, expected, level=level, scale=scale)
        assert_close(here, torch.zeros_like(here), rtol=0, atol=1e-12)
        far = gradient("clamped-sds", 1e4, level=level, scale=scale, progress=0.5)
        assert_close(far.abs(), torch.full_like(far, 5.0))
        return
    assert fixed_point(rule, level=level, scale=scale) == pytest.approx(expected, abs=1e-9)
    if scale == 1:
        assert expected == pytest.approx(SETTINGS["prompt"][0])


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_the_classifier_s_gradient_alone_has_its_fixed_point_elsewhere(level, without_noise):
    pull, (mean, other) = weights(level), (SETTINGS[x][0] for x in ("prompt", "negative"))
    expected = (pull["prompt"] * mean - pull["negative"] * other) / (
        pull["prompt"] - pull["negative"]
    )
    found = fixed_point("csd", level=level, scale=4.0)
    assert found == pytest.approx(expected, abs=1e-9)
    # with equal spreads there is none: it pushes in one direction from everywhere
    near, far = (gradient("csd", z, level=level, scale=4.0, known=EQUAL) for z in (0.0, 9.0))
    assert_close(near, far)
    assert (near < 0).all()


@pytest.mark.parametrize("level", [0.1, 0.19, 0.21, 0.9])
def test_noise_free_distillation_leaves_the_noise_in_where_there_is_little(level, without_noise):
    scale, pull = 4.0, weights(level)
    terms = {"prompt": scale, "": 1 - scale, "negative": 0.0 if level < 0.2 else -1.0}
    total = sum(k * pull[text] for text, k in terms.items())
    expected = sum(k * pull[text] * SETTINGS[text][0] for text, k in terms.items()) / total
    found = fixed_point("nfsd", level=level, scale=scale)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("rule", "size"), [("nfsd", 0.0), ("csd", 0.0), ("sds", 1.0)])
def test_variance_of_the_gradient_that_the_noise_makes(rule, size):
    """At high noise levels and equal spreads the noise cancels where it is not subtracted."""
    draws = torch.stack(
        [gradient(rule, 0.3, level=0.5, scale=4.0, known=EQUAL, seed=k) for k in range(200)]
    )
    _, s = angles(0.5)
    spread = size * s**2 * (1 - s**2)  # of s^2 (eps_hat - eps); eps_hat contains s^2 eps
    assert draws.std(0).mean().item() == pytest.approx(spread, rel=0.05, abs=1e-9)


@pytest.mark.parametrize("level", [0.2, 0.5, 0.9])
def test_interval_score_matching_overshoots_by_the_interval(level, monkeypatch):
    """m_empty + (m_prompt - m_empty) sin(t) / sin(t - s) in angles of the process, at scale 1."""
    monkeypatch.setattr(ism, "STEP", 0.001)
    (a, s), (a_s, s_s) = angles(level), angles(level - ism.INTERVAL)
    apart = (s * a_s - a * s_s) * shrinking(level - ism.INTERVAL)
    m, empty = EQUAL["prompt"][0], EQUAL[""][0]
    found = fixed_point("ism", level=level, scale=1.0, known=EQUAL)
    assert found == pytest.approx(empty + (m - empty) * s / apart, abs=1e-9)


def test_interval_score_matching_takes_the_source_s_steps():
    """A second route in numbers: strides of a fifth, then the interval, at the usual settings."""
    level, z = 0.5, 0.7
    m, v = SETTINGS[""]
    at, value = 0, z
    alphas = Gaussians(SETTINGS).alphas_cumprod.tolist()
    for ahead in (200, 400, 420, 500):
        a, s = alphas[at] ** 0.5, (1 - alphas[at]) ** 0.5
        eps = s * (value - a * m) / (a * a * v + s * s)
        original = (value - s * eps) / a
        at, value = ahead, alphas[ahead] ** 0.5 * original + (1 - alphas[ahead]) ** 0.5 * eps
    a, s = angles(level)
    c, u = (
        s * (value - a * mean) / (a * a * variance + s * s)
        for mean, variance in (SETTINGS["prompt"], SETTINGS["negative"])
    )
    expected = s / a * (u + 4.0 * (c - u) - eps)
    found = gradient("ism", z, level=level, scale=4.0)
    assert_close(found, torch.full_like(found, expected))


@pytest.mark.parametrize("level", [0.2, 0.5, 0.9])
def test_distillation_via_inversion_ends_between_two_guidances(level, without_noise, monkeypatch):
    monkeypatch.setattr(sdi, "STEP", 0.001)
    (a, s), scale = angles(level), 3.0
    m, negative, empty = (EQUAL[text][0] for text in ("prompt", "negative", ""))
    forward, back = negative + scale * (m - negative), empty + sdi.SCALE * (m - empty)
    share = a * (shrinking(level) - a) / s
    found = fixed_point("sdi", level=level, scale=scale, known=EQUAL)
    assert found == pytest.approx((s * forward - share * back) / (s - share), abs=1e-9)


def test_the_inversion_s_fresh_noise_is_that_of_the_generator():
    one, two, again = (gradient("sdi", 0.2, level=0.5, scale=3.0, seed=seed) for seed in (0, 1, 0))
    assert torch.equal(one, again)
    assert (one - two).abs().max() > 1e-3


def test_inversion_leads_back_to_where_it_came_from():
    """The probability flow of N(m, v): z_t - a m grows as sqrt(a^2 v + s^2) / sqrt(v)."""
    model = Gaussians(SETTINGS)
    m, v = SETTINGS[""]

    class Empty:
        alphas_cumprod = model.alphas_cumprod

        def predict(self, noisy, t, prompts):
            text = model.encode_text([""]).expand(len(noisy), -1, -1)
            return (model.predict_noise(noisy, t, text, None),)

    z = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0, 300, 800])
    there, _ = noising.ddim_inversion(Empty(), z, t, step=1 / T)
    abar = model.alphas_cumprod[t].view(-1, 1, 1, 1)
    a, s2 = abar.sqrt(), 1 - abar
    assert_close(there, a * m + ((a * a * v + s2) / v).sqrt() * (z - m), rtol=2e-3, atol=2e-3)
    assert torch.equal(there[0], z[0])


def test_rules_that_are_the_same_up_to_their_weight():
    """SJC = SDS with w = 1 and x0 = SDS with w = s / a, for every noise."""
    for level in (0.1, 0.5, 0.9):
        a, s = angles(level)
        of = {
            rule: gradient(rule, 0.2, level=level, scale=4.0, seed=5)
            for rule in ("sds", "sjc", "x0")
        }
        assert_close(of["sjc"], of["sds"] / s**2, rtol=1e-9, atol=1e-12)
        assert_close(of["x0"], of["sds"] / (s * a), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", [name for name, rule in RULES.items() if not rule.lesson])
def test_every_rule_is_a_gradient_per_image(rule):
    """Finite, and of the images' shape."""
    together = gradient(rule, 0.3, level=0.5, scale=4.0)
    assert together.shape == (2, 3, 4, 4)
    assert together.isfinite().all()
    assert together.abs().max() > 0
