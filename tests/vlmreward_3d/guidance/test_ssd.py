"""Stable score distillation against its definition, and on a Gaussian target."""

import dataclasses

import pytest
import torch
from evaluate_rules import DIFFERENT, gradient
from test_csd import prediction
from torch.testing import assert_close

from vlmreward_3d.guidance.rules import RULES

HIGH, LOW = (torch.full((3,), level, dtype=torch.float64) for level in (0.31, 0.3))


def test_it_is_the_classifier_s_gradient_at_high_noise_levels():
    given = prediction(level=HIGH)
    assert torch.equal(RULES["ssd"](given), RULES["csd"](given))


def test_at_low_noise_levels_it_is_what_the_noise_does_not_explain_at_the_same_norm():
    given = prediction(level=LOW)
    found, away = RULES["ssd"](given).flatten(1), RULES["csd"](given).flatten(1)
    assert_close(found.norm(dim=1), away.norm(dim=1))
    noise, said = given.noise.flatten(1), given.conditional.flatten(1)
    assert_close((found * noise).sum(1), torch.zeros(3).double(), rtol=0, atol=1e-12)
    for image in range(3):  # least squares: said = share * noise + rest
        (share,) = torch.linalg.lstsq(noise[image, :, None], said[image, :, None]).solution[0]
        rest = said[image] - share * noise[image]
        assert_close(found[image] / found[image].norm(), rest / rest.norm())


def test_each_image_has_its_own_noise_level():
    level = torch.tensor([0.5, 0.1, 0.5], dtype=torch.float64)
    mixed = RULES["ssd"](prediction(level=level))
    high, low = (RULES["ssd"](prediction(level=at)) for at in (HIGH, LOW))
    assert torch.equal(mixed, torch.stack([high[0], low[1], high[2]]))


def test_a_prediction_that_is_the_noise_gives_no_gradient():
    given = prediction(level=LOW)
    given = dataclasses.replace(given, conditional=given.noise.clone())
    assert RULES["ssd"](given).abs().max() < 1e-12
    silent = dataclasses.replace(given, noise=torch.zeros_like(given.noise))
    assert RULES["ssd"](silent).isfinite().all()


def test_a_level_is_asked_for():
    with pytest.raises(ValueError, match="ssd asks for the noise level"):
        RULES["ssd"](prediction())


@pytest.mark.parametrize("z", [-0.4, 0.9])
def test_at_low_noise_levels_it_goes_to_the_mean_of_the_prompt(z):
    """eps_c is a multiple of a (z - m) + s eps, so that z - m is left of it."""
    mean = DIFFERENT["prompt"][0]
    found = torch.stack([gradient("ssd", z, level=0.25, scale=4.0, seed=k) for k in range(20)])
    assert (found.mean((1, 2, 3, 4)).sign() == (1 if z > mean else -1)).all()
