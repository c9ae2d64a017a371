"""Perp-Neg: what sides a view is told to look like and unlike, and what becomes of the noise."""

import math

import pytest
import torch
from evaluate_rules import Gaussians
from torch.testing import assert_close

from vlmreward_3d.cameras import Cameras, orbit
from vlmreward_3d.guidance.perp_neg import mixture_of_sides, perpendicular, unlike_other_sides
from vlmreward_3d.guidance.sds import ScoreDistillation
from vlmreward_3d.guidance.teacher import Prompts
from vlmreward_3d.guidance.view_prompts import VIEWS, view_prompts

FRONT, SIDE, BACK, OVERHEAD = map(VIEWS.index, ("front", "side", "back", "overhead"))
TEXTS = ("", "bad", "a cup", *view_prompts("a cup"))
KNOWN = {text: (0.1 * i - 0.3, 0.02 + 0.03 * i) for i, text in enumerate(TEXTS)}


def at(azimuth: float, elevation: float = 15.0) -> Cameras:
    return orbit(torch.tensor([azimuth]), torch.tensor([elevation]), torch.tensor([3.0]), 40.0)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weight(a: float, c: float, r: float) -> float:
    return -(a * math.exp(-0.5 * r) + c)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("azimuth", "shares", "others", "weights"),
    [
        (0, {FRONT: 1}, (FRONT, SIDE), (weight(4, -2.426, 1), weight(4, -2.426, 0))),
        (45, {FRONT: 0.5, SIDE: 0.5}, (FRONT, SIDE), (weight(4, -2.426, 0.5),) * 2),
        (90, {SIDE: 1}, (SIDE, FRONT), (weight(1, -0.606, 1), weight(1, 0.967, 1))),
        (150, {SIDE: 1 / 3, BACK: 2 / 3}, (SIDE, FRONT), None),
        (180, {BACK: 1}, (SIDE, FRONT), (weight(1, -0.606, 0), weight(1, 0.967, 0))),
    ],
)
def test_sides_of_a_view(azimuth, shares, others, weights, sign):
    mixed, named, found = mixture_of_sides(at(sign * azimuth))
    expected = torch.zeros(1, 4)
    for side, share in shares.items():
        expected[0, side] = share
    assert_close(mixed, expected.to(mixed), rtol=0, atol=1e-5)
    assert tuple(named[0].tolist()) == others
    if weights is None:
        r = 1 / 3
        weights = (weight(1, -0.606, r), weight(1, 0.967, r))
    assert_close(found, torch.tensor([weights]).to(found), rtol=0, atol=1e-5)
    assert (found < 1e-3).all()  # a negative prompt never attracts


def test_a_view_from_above_has_no_negatives():
    mixed, _, weights = mixture_of_sides(at(20.0, 75.0))
    assert mixed[0].tolist() == [float(side == OVERHEAD) for side in range(4)]
    assert not weights.any()


def test_what_is_left_is_perpendicular():
    x, y = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    left = perpendicular(x, y)
    assert_close((left * y).flatten(1).sum(1), torch.zeros(2).double(), rtol=0, atol=1e-12)
    assert_close(perpendicular(2.5 * y, y), torch.zeros_like(y), rtol=0, atol=1e-12)
    assert torch.equal(perpendicular(x, torch.zeros_like(y)), x)


def test_guidance_of_the_moved_noise_is_that_of_the_source():
    c, u = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    others = random(2, 2, 3, 4, 4, seed=2)
    weights = torch.tensor([[-0.7, -1.1], [0.0, -0.2]], dtype=torch.float64)
    moved = unlike_other_sides(c, u, others, weights)
    scale, delta = 7.5, c - u
    total = sum(
        weights[:, i].view(2, 1, 1, 1) * perpendicular(others[i] - u, delta) for i in range(2)
    )
    assert_close(u + scale * (moved - u), u + scale * (delta + total))


@pytest.mark.parametrize("prompts", [("negative", "prompt"), ("prompt",), ("empty", "prompt")])
def test_a_teacher_moves_the_noise_of_the_prompt_alone(prompts):
    denoiser, cameras = Gaussians(KNOWN), at(45.0)
    z, t = random(1, 3, 4, 4), torch.tensor([500])
    made = Prompts(denoiser, "a cup", "bad", of_views=True, perp_neg=True).seen_from(cameras, z)
    found = dict(zip(prompts, made.predict(z, t, prompts), strict=True))

    def noise(embedding):
        return denoiser.predict_noise(z, t, embedding, cameras.condition())

    front, side, bad = (
        denoiser.encode_text([text]) for text in ("a cup, front view", "a cup, side view", "bad")
    )
    weights = mixture_of_sides(cameras)[2]
    expected = unlike_other_sides(
        noise((front + side) / 2), noise(bad), torch.stack([noise(front), noise(side)]), weights
    )
    assert_close(found["prompt"], expected, rtol=0, atol=1e-6)
    if "negative" in prompts:
        assert torch.equal(found["negative"], noise(bad))
    if "empty" in prompts:
        assert torch.equal(found["empty"], noise(denoiser.encode_text([""])))


def test_a_view_from_above_is_distilled_as_without():
    settings = {"negative_prompt": "bad", "guidance_scale": 7.5, "view_prompts": True}
    images = random(1, 3, 4, 4).sigmoid()
    outputs = [
        ScoreDistillation(Gaussians(KNOWN), "a cup", perp_neg=perp_neg, **settings)(
            images, at(azimuth, elevation), 0.0, torch.Generator().manual_seed(0)
        ).gradient
        for azimuth, elevation in ((45.0, 75.0), (45.0, 10.0))
        for perp_neg in (False, True)
    ]
    assert_close(outputs[0], outputs[1])
    assert not torch.allclose(outputs[2], outputs[3])


def test_it_wants_prompts_of_views():
    with pytest.raises(ValueError, match="perp_neg without view_prompts"):
        Prompts(Gaussians(KNOWN), "a cup", "bad", of_views=False, perp_neg=True)
