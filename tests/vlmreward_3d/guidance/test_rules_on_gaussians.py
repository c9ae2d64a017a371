"""Distillation rules on Gaussian targets, whose denoisers and fixed points are known exactly."""

import evaluate_rules
import pytest
import torch
from evaluate_rules import (
    CASES,
    DIFFERENT,
    EQUAL,
    LEVELS,
    Gaussians,
    T,
    a_and_s,
    expectation,
    fixed_point,
    gradient,
    left_by_noise,
    main,
    particles,
    theory,
)
from torch.testing import assert_close

from vlmreward_3d.cameras import orbit
from vlmreward_3d.guidance.rules import RULES, noising
from vlmreward_3d.guidance.rules.fsd import world_map_noise
from vlmreward_3d.guidance.teacher import Prompts


@pytest.mark.parametrize("level", [*LEVELS, 0.19, 0.21])
@pytest.mark.parametrize(("rule", "known", "scale"), CASES)
def test_rules_come_to_rest_where_theory_says(rule, known, scale, level):
    expected = theory(rule, level=level, scale=scale, known=known)
    found = fixed_point(rule, level=level, scale=scale, known=known)
    assert found == pytest.approx(expected, abs=1e-9)
    if scale == 1 and rule in ("x0", "sds", "sjc"):
        assert found == pytest.approx(DIFFERENT["prompt"][0])


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("level", LEVELS)
def test_clamping_moves_no_fixed_point_and_bounds_the_gradient(level, scale):
    point = theory("sds", level=level, scale=scale, known=DIFFERENT)
    with expectation():
        here = gradient("clamped-sds", point, level=level, scale=scale)
        far = gradient("clamped-sds", 1e4, level=level, scale=scale, progress=0.5)
    assert_close(here, torch.zeros_like(here), rtol=0, atol=1e-12)
    assert_close(far.abs(), torch.full_like(far, 5.0))


def test_the_classifier_s_gradient_alone_comes_to_rest_nowhere_at_equal_spreads():
    with expectation():
        near, far = (gradient("csd", z, level=0.5, scale=4.0, known=EQUAL) for z in (0.0, 9.0))
    assert_close(near, far)
    assert (near < 0).all()


@pytest.mark.parametrize(("rule", "size"), [("nfsd", 0.0), ("csd", 0.0), ("sds", 1.0)])
def test_variance_of_the_gradient_that_the_noise_makes(rule, size):
    """The noise cancels in rules that do not subtract it, at high levels and equal spreads."""
    draws = torch.stack(
        [gradient(rule, 0.3, level=0.5, scale=4.0, known=EQUAL, seed=k) for k in range(200)]
    )
    _, s = a_and_s(0.5)
    spread = size * s**2 * (1 - s**2)  # of s^2 (eps_hat - eps); eps_hat contains s^2 eps
    assert draws.std(0).mean().item() == pytest.approx(spread, rel=0.05, abs=1e-9)


def test_interval_score_matching_takes_the_source_s_steps():
    """A second route in numbers: strides of a fifth, then the interval, at the usual settings."""
    level, z = 0.5, 0.7
    m, v = DIFFERENT[""]
    at, value = 0, z
    alphas = Gaussians(DIFFERENT).alphas_cumprod.tolist()
    for ahead in (200, 400, 420, 500):
        a, s = alphas[at] ** 0.5, (1 - alphas[at]) ** 0.5
        eps = s * (value - a * m) / (a * a * v + s * s)
        original = (value - s * eps) / a
        at, value = ahead, alphas[ahead] ** 0.5 * original + (1 - alphas[ahead]) ** 0.5 * eps
    a, s = a_and_s(level)
    c, u = (
        s * (value - a * mean) / (a * a * variance + s * s)
        for mean, variance in (DIFFERENT["prompt"], DIFFERENT["negative"])
    )
    expected = s / a * (u + 4.0 * (c - u) - eps)
    found = gradient("ism", z, level=level, scale=4.0)
    assert_close(found, torch.full_like(found, expected))


def test_the_inversion_s_fresh_noise_is_that_of_the_generator():
    one, two, again = (gradient("sdi", 0.2, level=0.5, scale=3.0, seed=seed) for seed in (0, 1, 0))
    assert torch.equal(one, again)
    assert (one - two).abs().max() > 1e-3


def test_inversion_leads_back_to_where_it_came_from():
    """The probability flow of N(m, v): z_t - a m grows as sqrt(a^2 v + s^2) / sqrt(v)."""
    model = Gaussians(DIFFERENT)
    m, v = DIFFERENT[""]

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
        a, s = a_and_s(level)
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


def test_variational_distillation_covers_the_target_where_sds_goes_to_its_mode():
    """ProlificDreamer, Sec. 3: the renders end as samples of N(m, v), those of SDS all at m."""
    mean, variance = particles("vsd")
    assert mean == pytest.approx(0.5, abs=0.02)
    assert variance == pytest.approx(0.04, rel=0.02)
    mean, variance = particles("sds")
    assert mean == pytest.approx(0.5, abs=4 * (left_by_noise() / 400) ** 0.5)
    assert variance == pytest.approx(left_by_noise(), rel=0.3)
    assert variance < 0.01 * 0.04


def test_the_table_has_a_line_for_each(capsys, monkeypatch):
    # what these return is tested above; all together they take minutes
    monkeypatch.setattr(evaluate_rules, "fixed_point", lambda *_, **settings: 0.0)
    monkeypatch.setattr(evaluate_rules, "particles", lambda *_: (0.5, 0.04))
    ends = torch.zeros(3)
    monkeypatch.setattr(evaluate_rules, "flow_of_samples", lambda *_: (ends, ends))
    assert main([]) == 0
    rows = capsys.readouterr().out.count("\n| `")
    assert rows == len(CASES) * len(LEVELS) + 3


def test_noise_of_a_camera_is_that_of_the_run_and_moves_with_it():
    """Flow score distillation: 2 W columns around the object, H rows from pole to pole."""
    side, turns = 32, (0.0, 360 / 64, 90.0, 360.0)

    def noise(azimuths, elevation=20.0, seed=0):
        cameras = orbit(torch.tensor(azimuths), elevation, 2.0, 40.0)
        model = Gaussians(EQUAL)
        prompts = Prompts(model, "prompt", "negative", of_views=False)
        latents = torch.zeros(len(azimuths), 3, side, side)
        t = torch.full((len(azimuths),), 300)
        drawn, noisy = world_map_noise(
            prompts.seen_from(cameras, latents, seed), latents, t, torch.Generator()
        )
        assert_close(noisy, (1 - model.alphas_cumprod[300]).sqrt().float() * drawn)
        return drawn

    here, next_to_it, quarter, around = noise([x + 0.1 for x in turns])
    assert torch.equal(here[:, :, 1:], next_to_it[:, :, :-1])
    assert torch.equal(here[:, :, 16:], quarter[:, :, :16])
    assert torch.equal(here, around)
    lower = noise([0.1], elevation=20.0 - 180 / side)[0]
    assert torch.equal(here[:, 1:], lower[:, :-1])
    assert torch.equal(noise([0.1])[0], here)
    assert (noise([0.1], seed=1)[0] - here).abs().max() > 0.5
    assert here.mean().abs() < 0.1
    assert here.std() == pytest.approx(1, abs=0.05)


def test_flow_distillation_has_the_same_gradient_in_every_step():
    one, two, other = (gradient("fsd", 0.2, level=0.5, scale=3.0, seed=seed) for seed in (0, 1, 2))
    assert torch.equal(one, two)
    assert torch.equal(one, other)
