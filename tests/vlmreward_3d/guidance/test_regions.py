"""Prompts of regions: their masks, and identities of the rule "semantic-sds" in float64."""

import argparse

import pytest
import torch
from evaluate_rules import DIFFERENT, Gaussians, a_and_s, pulls
from stub_models import RandomDenoiser, build_vlm3d, tiny
from torch.testing import assert_close

from vlmreward_3d.cameras import Cameras, look_at, orbit
from vlmreward_3d.cli.regions import region as region_of_words
from vlmreward_3d.config import RegionConfig, VLM3DConfig
from vlmreward_3d.guidance.regions import composed, region_masks, sides_of_region
from vlmreward_3d.guidance.sds import ScoreDistillation
from vlmreward_3d.guidance.teacher import Prompts
from vlmreward_3d.guidance.view_prompts import VIEWS
from vlmreward_3d.schedule import Schedule

SIDE = 8
KIND = {"dtype": torch.float64}
LEVEL = 0.5


def region(low, high, prompt="region") -> RegionConfig:
    return RegionConfig(prompt=prompt, low=low, high=high)


EVERYWHERE = region((-9.0, -9.0, -9.0), (9.0, 9.0, 9.0))
UPPER = region((-1.0, -1.0, 0.1), (1.0, 1.0, 0.9))
CAMERAS = orbit(torch.tensor([10.0, 130.0], **KIND), 15.0, 3.0, 45.0)


def gradient(rule, *regions, prompt="prompt", scale=4.0, images=None, cameras=CAMERAS):
    """N times the gradient at the latents of two images, under one noise."""
    at = Schedule.constant(LEVEL)
    distillation = ScoreDistillation(
        Gaussians(DIFFERENT),
        prompt,
        negative_prompt="negative",
        rule=rule,
        guidance_scale=scale,
        t_min=at,
        t_max=at,
        regions=regions,
    )
    if images is None:
        draws = torch.Generator().manual_seed(3)
        images = torch.rand(2, 3, SIDE, SIDE, generator=draws, **KIND)
    return distillation(images, cameras, 0.0, torch.Generator().manual_seed(0)).gradient


def above(half_height: float = 1.0) -> Cameras:
    """An orthographic camera high above the origin, rows along -y and columns along x."""
    c2w = look_at(torch.tensor([[1e-9, 0.0, 5.0]], **KIND))
    c2w[:, :3, :2] = torch.tensor([[1, 0], [0, 1], [0, 0]], **KIND)
    angle = 2 * torch.atan(half_height / c2w[:, :3, 3].norm(dim=-1))
    return Cameras(c2w, angle, "orthographic")


def test_a_mask_is_the_share_of_each_pixel_that_the_box_covers():
    """A box over x from -0.5 to 0.125 and y from 0.25 to 1 covers its share of 8 pixels of 0.25."""
    box = region((-0.5, 0.25, -0.3), (0.125, 3.0, 0.3))
    (mask,) = region_masks(above(), [box], SIDE, SIDE)
    columns = torch.tensor([0, 0, 1, 1, 0.5, 0, 0, 0], **KIND)
    rows = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0], **KIND)
    assert_close(mask[0, 0], rows[:, None] * columns)


def test_boxes_in_front_hide_those_behind_and_inner_ones_are_seen():
    low, high = region((-1, -1, -0.5), (1, 1, -0.1)), region((-0.5, -0.5, 0.2), (0.5, 0.5, 0.6))
    behind, front = region_masks(above(), [low, high], SIDE, SIDE)[:, 0, 0]
    square = torch.zeros(SIDE, SIDE, **KIND)
    square[2:6, 2:6] = 1
    assert_close(front, square)
    assert_close(behind, 1 - square)
    inner = region((-0.5, -0.5, -0.3), (0.5, 0.5, -0.2))
    shell, core = region_masks(above(), [low, inner], SIDE, SIDE)[:, 0, 0]
    assert_close(core, square)
    assert_close(shell, 1 - square)


def test_masks_sum_to_one_at_most_and_nothing_behind_a_camera_is_seen():
    boxes = [
        region((-0.9, -0.2, -0.4), (0.3, 0.7, 0.5)),
        region((-0.1, -0.8, -0.6), (0.8, 0.3, 0.2)),
    ]
    masks = region_masks(CAMERAS, boxes, SIDE, SIDE)
    assert masks.shape == (2, 2, 1, SIDE, SIDE)
    total = masks.sum(0)
    assert total.min() == 0
    assert total.max() == 1
    swapped = region_masks(CAMERAS, boxes[::-1], SIDE, SIDE)
    assert torch.equal(swapped, masks.flip(0))
    beyond = CAMERAS.positions[0] * 2
    behind = region((beyond - 0.5).tolist(), (beyond + 0.5).tolist())
    assert not region_masks(CAMERAS[0:1], [behind], SIDE, SIDE).any()
    inside = region_masks(CAMERAS, [EVERYWHERE], SIDE, SIDE)
    assert torch.equal(inside, torch.ones_like(inside))


def test_rays_along_the_sides_of_a_box_give_numbers():
    """Directions with zeros, and origins in the planes of the sides."""
    masks = region_masks(above(), [region((0, 0, -1), (0.5, 0.5, 1))], 1, 1)
    assert_close(masks, torch.full_like(masks, 1 / 16))
    eye = Cameras(look_at(torch.tensor([[3.0, 0.0, 0.0]], **KIND)), torch.tensor([0.5], **KIND))
    assert region_masks(eye, [region((-1, 0, 0), (1, 1, 1))], 3, 3).isfinite().all()


def test_one_region_everywhere_is_sds_with_its_prompt():
    alone = gradient("sds", prompt="region")
    assert_close(gradient("semantic-sds", EVERYWHERE), alone, rtol=0, atol=1e-12)
    assert (alone - gradient("sds")).abs().max() > 0.1


def test_equal_prompts_are_plain_sds():
    boxes = [region(UPPER.low, UPPER.high, "prompt"), region((-1, -1, -1), (0, 1, 0), "prompt")]
    assert_close(gradient("semantic-sds", *boxes), gradient("sds"), rtol=0, atol=1e-12)


def test_a_prompt_changes_nothing_outside_its_region():
    mask = region_masks(CAMERAS, [UPPER], SIDE, SIDE)[0].expand(-1, 3, -1, -1)
    one, two = (
        gradient("semantic-sds", region(UPPER.low, UPPER.high, words))
        for words in ("region", "negative")
    )
    outside = mask == 0
    assert outside.any()
    assert torch.equal(one[outside], two[outside])
    assert_close(one[outside], gradient("sds")[outside], rtol=0, atol=1e-12)
    assert (one - two)[mask > 0].abs().min() > 0.01
    solid = mask == 1
    assert_close(one[solid], gradient("sds", prompt="region")[solid], rtol=0, atol=1e-12)


def test_the_gradient_is_the_sum_of_the_masked_gradients():
    """The source's form, gradient by gradient, without its division by the number of prompts."""
    other = region((-1, -1, -0.9), (1, 1, -0.2), "negative")
    masks = region_masks(CAMERAS, [UPPER, other], SIDE, SIDE)
    expected = (1 - masks.sum(0)) * gradient("sds")
    for mask, words in zip(masks, ("region", "negative")):
        expected = expected + mask * gradient("sds", prompt=words)
    assert_close(gradient("semantic-sds", UPPER, other), expected, rtol=1e-9, atol=1e-12)


def test_each_pixel_comes_to_rest_where_theory_says_for_its_weight():
    """With noise 0 in expectation: the mean over a noise and its negative is without it."""
    mask = region_masks(CAMERAS, [UPPER], SIDE, SIDE)[0]
    pull, scale = pulls(LEVEL, DIFFERENT), 4.0
    weights = {"region": scale * mask, "prompt": scale * (1 - mask), "negative": 1 - scale}
    slope = sum(k * pull[text] for text, k in weights.items())
    rest = sum(k * pull[text] * DIFFERENT[text][0] for text, k in weights.items()) / slope
    images = ((rest + 1) / 2).expand(-1, 3, -1, -1).contiguous()
    with_noise = gradient("semantic-sds", UPPER, images=images)
    _, s = a_and_s(LEVEL)
    a = (1 - s * s) ** 0.5
    draws = torch.Generator().manual_seed(0)
    torch.rand(2, generator=draws)
    noise = torch.randn(2, 3, SIDE, SIDE, generator=draws).double()
    left = s * s * (slope * s / a - 1) * noise  # of the noise alone
    assert_close(with_noise, left.expand_as(with_noise), rtol=1e-6, atol=1e-9)


def test_composition_is_a_weighted_mean():
    draws = torch.Generator().manual_seed(0)
    whole, one, two = torch.randn(3, 2, 3, 4, 4, generator=draws, **KIND)
    masks = torch.rand(2, 2, 1, 4, 4, generator=draws, **KIND) / 2
    found = composed(whole, torch.stack([one, two]), masks)
    expected = whole + masks[0] * (one - whole) + masks[1] * (two - whole)
    assert_close(found, expected)
    assert_close(composed(whole, torch.stack([whole, whole]), masks), whole)


class Reader(Gaussians):
    """A denoiser whose embeddings are the numbers of texts."""

    def encode_text(self, texts):
        self.texts = texts
        return torch.arange(len(texts), **KIND).view(-1, 1, 1)


def test_words_for_sides_are_those_that_a_view_sees_of_the_region():
    """A camera in front of the scene sees the back of a box that is behind the camera's place."""
    far = region((3.5, -0.5, -0.5), (4.5, 0.5, 0.5), "a cat")
    cameras = orbit(torch.tensor([0.0, 90.0], **KIND), 0.0, 3.0, 45.0)
    assert [VIEWS[i] for i in sides_of_region(cameras, far)] == ["back", "back"]
    centered = region((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5), "a hat")
    assert [VIEWS[i] for i in sides_of_region(cameras, centered)] == ["front", "side"]
    model = Reader(DIFFERENT)
    prompts = Prompts(model, "a cat in a hat", "fog", of_views=True, regions=(far, centered))
    teacher = prompts.seen_from(cameras, torch.zeros(2, 3, SIDE, SIDE, **KIND))
    said = {
        name: [model.texts[int(row)] for row in rows[:, 0, 0]]
        for name, rows in teacher.text.items()
    }
    assert said["region 0"] == ["a cat, back view", "a cat, back view"]
    assert said["region 1"] == ["a hat, front view", "a hat, side view"]
    assert said["prompt"] == ["a cat in a hat, front view", "a cat in a hat, side view"]
    assert said["negative"] == ["fog", "fog"]
    plain = Prompts(model, "a cat in a hat", "fog", of_views=False, regions=(far, centered))
    rows = plain.seen_from(cameras, torch.zeros(2, 3, SIDE, SIDE, **KIND)).text["region 1"]
    assert [model.texts[int(row)] for row in rows[:, 0, 0]] == ["a hat", "a hat"]


def test_a_run_with_regions_survives_its_json_and_a_checkpoint():
    changes = {"score_distillation.rule": "semantic-sds", "score_distillation.regions": (UPPER,)}
    config = tiny(**changes)
    assert VLM3DConfig.from_json(config.to_json()) == config
    whole, part, resumed = (build_vlm3d(config, RandomDenoiser()) for _ in range(3))
    reports = [whole.step() for _ in range(3)]
    part.step()
    resumed.load_state(part.state())
    assert [resumed.step() for _ in range(2)] == reports[1:]


def with_regions(*regions, **changes):
    changed = {f"score_distillation.{name}": value for name, value in changes.items()}
    return tiny(**{"score_distillation.regions": regions, **changed})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: region((0, 0, 0), (1, 0, 1)),
            r"received high=\(1, 0, 1\); expected numbers above",
        ),
        (lambda: region((0, 0), (1, 1, 1)), r"received low=\(0, 0\); expected three finite"),
        (lambda: region((0, 0, 0), (1, 1, float("nan"))), "received high=.*three finite numbers"),
        (lambda: region((0, 0, 0), (1, 1, 1), " "), "received prompt=' '; expected a prompt"),
        (lambda: with_regions(region((2, 2, 2), (3, 3, 3))), r"boxes that have a part in .*\]\^3"),
        (lambda: with_regions("a box"), "expected a tuple of records of regions"),
        (
            lambda: with_regions(UPPER, view_prompts=True, perp_neg=True),
            "received perp_neg=True; expected False beside regions",
        ),
        (lambda: gradient("semantic-sds"), "'semantic-sds' without regions; expected at least one"),
        (lambda: gradient("x0", UPPER), "1 regions for the distillation rule 'x0'; expected none"),
        (
            lambda: Prompts(
                Reader(DIFFERENT), "a", "", of_views=True, perp_neg=True, regions=(UPPER,)
            ),
            "received perp_neg with regions",
        ),
    ],
)
def test_wrong_regions_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_unknown_setting_of_a_region_is_named():
    text = with_regions(UPPER).to_json()
    with pytest.raises(ValueError, match=r"with 'score_distillation\.regions\.top'"):
        VLM3DConfig.from_json(text.replace('"high"', '"top"'))


def test_regions_in_words():
    found = region_of_words("a red: cube : -0.5,-.5,0 to 1,1e0,0.5")
    assert found == region((-0.5, -0.5, 0.0), (1.0, 1.0, 0.5), "a red: cube")
    for words in (
        "a cube",
        "a cube: 0,0,0",
        "a cube: 0,0 to 1,1,1",
        ": 0,0,0 to 1,1,1",
        "a: b to c",
    ):
        with pytest.raises(argparse.ArgumentTypeError, match='expected "PROMPT: X,Y,Z to X,Y,Z"'):
            region_of_words(words)
    with pytest.raises(argparse.ArgumentTypeError, match="not empty"):
        region_of_words("a cube: 0,0,0 to 1,1,0")
