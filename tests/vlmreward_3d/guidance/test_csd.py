"""Classifier score distillation against its definition."""

import dataclasses

import torch
from stub_models import RandomDenoiser, build_vlm3d, redness, tiny
from torch.testing import assert_close

from vlmreward_3d.guidance.rules import RULES, Prediction


def prediction(**changes) -> Prediction:
    generator = torch.Generator().manual_seed(0)
    names = ("latents", "noise", "noisy", "unconditional", "conditional")
    shape = {"dtype": torch.float64, "generator": generator}
    tensors = {name: torch.randn(3, 4, 5, 5, **shape) for name in names}
    alpha_bar = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    settings = {"guidance_scale": 7.5, "guidance_rescale": 0.5, "group_size": 1}
    return Prediction(**{**tensors, **settings, "alpha_bar": alpha_bar, **changes})


def test_it_is_what_sds_has_beside_the_noise_residual():
    given = prediction()
    weight = (1 - given.alpha_bar).view(3, 1, 1, 1)
    residual = weight * (given.unconditional - given.noise) / 3
    assert_close(RULES["csd"](given), RULES["sds"](given) - residual)


def test_noise_and_a_prompt_without_effect_change_nothing():
    given = prediction()
    other = dataclasses.replace(given, noise=2 * given.noise)
    assert torch.equal(RULES["csd"](given), RULES["csd"](other))
    same = dataclasses.replace(given, conditional=given.unconditional)
    assert not RULES["csd"](same).any()


def test_runs_choose_it_by_its_name():
    class Textual(RandomDenoiser):
        def encode_text(self, texts):
            return (
                torch.tensor([float(len(text)) for text in texts]).view(-1, 1, 1).expand(-1, 2, 3)
            )

        def predict_noise(self, noisy, t, text, cameras):
            return super().predict_noise(noisy, t, text, cameras) * (1 + text[:, :1, :1, None])

    model = build_vlm3d(tiny(score_distillation__rule="csd"), Textual(), redness)
    metrics = model.step().metrics
    assert metrics["sds/grad_norm"] > 0
    blind = build_vlm3d(tiny(score_distillation__rule="csd"), RandomDenoiser(), redness)
    assert blind.step().metrics["sds/grad_norm"] == 0
