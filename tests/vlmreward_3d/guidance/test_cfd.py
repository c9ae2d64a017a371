"""Consistent flow distillation: noise that sticks to a surface, and where its flow leads to."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluate_rules import CAMERAS, DIFFERENT, Gaussians, a_and_s, flow_of_samples, pulls
from solids import SPHERE_CENTER, SPHERE_RADIUS
from stub_models import RandomDenoiser, build_vlm3d, redness, tiny
from torch.testing import assert_close

from vlmreward_3d.cameras import Cameras, look_at, orbit
from vlmreward_3d.config import WeightingConfig
from vlmreward_3d.guidance.base import GuidanceOutput
from vlmreward_3d.guidance.cell_noise import hashed_bits, noise_of_cells, noise_of_pixels, owners
from vlmreward_3d.guidance.rules import cfd
from vlmreward_3d.guidance.sds import ScoreDistillation
from vlmreward_3d.guidance.teacher import Teacher
from vlmreward_3d.guidance.weighting import GuidanceSum, WeightedGuidance
from vlmreward_3d.rendering.base import Surface
from vlmreward_3d.rendering.gaussians.primitives import Gaussians as Splats
from vlmreward_3d.rendering.gaussians.render import gaussian_surface, render_gaussian_views
from vlmreward_3d.schedule import Schedule

SIDE = 16
DOUBLE = torch.float64


def noise_seen(cameras, surface=None, *, seed=0, step=0, channels=2, side=SIDE, draws=None):
    latents = torch.zeros(len(cameras), channels, side, side, dtype=DOUBLE)
    t = torch.full((len(cameras),), 300)
    model = Gaussians(DIFFERENT)
    teacher = Teacher(model, {}, cameras, seed, surface=surface)
    draws = draws or torch.Generator().manual_seed(step)
    noise, noisy = cfd.transported_noise(teacher, latents, t, draws)
    assert_close(noisy, (1 - model.alphas_cumprod[300]).sqrt() * noise)
    return noise


def orthographic(shift: float, distance: float = 2.0) -> Cameras:
    """A camera above the plane z = 0, moved along the rows of its picture; half height 1."""
    c2w = look_at(torch.tensor([[1e-9, 0.0, distance]], dtype=DOUBLE))
    c2w[:, :3, :2] = torch.tensor([[1, 0], [0, 1], [0, 0]], dtype=DOUBLE)
    c2w[:, 0, 3] = shift
    angle = 2 * torch.atan(1 / c2w[:, :3, 3].norm(dim=-1))
    return Cameras(c2w, angle, "orthographic")


def plane(cameras: Cameras) -> Surface:
    depth = cameras.positions[:, 2].view(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE)
    return Surface(depth, torch.ones_like(depth))


def sphere(cameras: Cameras) -> Surface:
    """The sphere of `solids`, ray by ray."""
    origins, directions = cameras.rays(8 * SIDE, 8 * SIDE)
    toward = origins - torch.tensor(SPHERE_CENTER, dtype=DOUBLE)
    half = (toward * directions).sum(-1)
    under = half**2 - (toward.square().sum(-1) - SPHERE_RADIUS**2)
    depth = -half - under.clamp_min(0).sqrt()
    return Surface(depth[:, None], (under > 0).to(depth)[:, None])


def around(*azimuths: float) -> Cameras:
    return orbit(torch.tensor(azimuths, dtype=DOUBLE), 10.0, 2.5, 40.0)


def test_bits_are_those_of_splitmix64():
    with np.errstate(over="ignore"):
        state, golden = np.uint64(1234567), np.uint64(0x9E3779B97F4A7C15)
        for known in (6457827717110365317, 3203168211198807973, 9817491932198370423):
            (bits,) = hashed_bits(torch.tensor([state.astype(np.int64).item()])).tolist()
            assert bits % 2**64 == known
            state = state + golden


def test_noise_of_cells_is_normal_and_belongs_to_the_cell_the_seed_and_the_channel():
    side = torch.arange(-40, 40)
    cells = torch.cartesian_prod(side, side, side)
    noise = noise_of_cells(cells, 3, 2)
    count = noise.numel()
    moments = [noise.pow(k).mean().item() for k in (1, 2, 3, 4)]
    spreads = [(v / count) ** 0.5 for v in (1, 2, 15, 96)]  # of the mean of each power
    for moment, spread, expected in zip(moments, spreads, (0, 1, 0, 3)):
        assert moment == pytest.approx(expected, abs=5 * spread)
    box = noise.reshape(80, 80, 80, 2)
    for axis in range(3):
        together = (box * box.roll(1, axis)).mean().item()
        assert together == pytest.approx(0, abs=5 * count**-0.5)
    assert noise.prod(1).mean().item() == pytest.approx(0, abs=5 * (count / 2) ** -0.5)
    other = noise_of_cells(cells, 4, 2)
    assert (noise * other).mean().item() == pytest.approx(0, abs=5 * count**-0.5)
    some = torch.randperm(len(cells))[:50]
    assert torch.equal(noise_of_cells(cells[some], 3, 2), noise[some])
    assert torch.equal(noise_of_cells(cells, 3, 5)[:, :2], noise)


def test_pixels_are_orthonormal_combinations_of_cells():
    """The covariance W W^T of the pixels of a view is 1, exactly."""
    points, solid = cfd.surface_points(around(25.0), None, 8 * SIDE, 8 * SIDE)
    cells = (points[0][solid[0]] * (cfd.CELLS * SIDE / 2)).floor().long()
    rows = torch.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    pixels = rows.repeat_interleave(8, 0).repeat_interleave(8, 1)[solid[0]]
    distinct, owner = owners(cells, pixels, SIDE * SIDE)
    assert len(distinct.unique(dim=0)) == len(distinct) == len(cells.unique(dim=0))
    size = torch.bincount(owner, minlength=SIDE * SIDE)
    weights = torch.zeros(SIDE * SIDE, len(distinct), dtype=DOUBLE)
    weights[owner, torch.arange(len(owner))] = size[owner].double().rsqrt()
    covariance = (weights @ weights.T)[size > 0][:, size > 0]
    assert_close(covariance, torch.eye(len(covariance), dtype=DOUBLE), rtol=0, atol=1e-12)
    found, again = noise_of_pixels(cells, pixels, SIDE * SIDE, seed=7, channels=3)
    assert torch.equal(size, again)
    assert_close(found, weights @ noise_of_cells(distinct, 7, 3))
    assert size[size > 0].double().mean() > 4


def test_a_cell_belongs_to_the_pixel_that_sees_most_of_it():
    cells = torch.tensor([[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]])
    distinct, owner = owners(cells, torch.tensor([0, 2, 2, 3, 1]), 4)
    assert distinct.tolist() == [[0, 0, 0], [1, 0, 0]]
    assert owner.tolist() == [2, 1]


def test_noise_of_a_view_is_standard_and_independent():
    """Over 400 seeds; the mean of the n cells in place of their sum / sqrt(n) fails by far."""
    draws = torch.cat([noise_seen(around(25.0), seed=s, step=s) for s in range(400)])
    count = draws.numel()
    assert draws.mean().item() == pytest.approx(0, abs=5 * count**-0.5)
    assert draws.square().mean().item() == pytest.approx(1, abs=5 * (2 / count) ** 0.5)
    assert draws.pow(4).mean().item() == pytest.approx(3, abs=5 * (96 / count) ** 0.5)
    assert (draws.var(0) - 1).abs().max() < 6 * (2 / 400) ** 0.5
    for axis in (2, 3):
        together = (draws * draws.roll(1, axis)).mean().item()
        assert together == pytest.approx(0, abs=5 * count**-0.5)


def test_a_view_moved_by_a_pixel_sees_the_same_noise_a_pixel_away():
    here, there = orthographic(0.0), orthographic(2 / SIDE, distance=3.0)
    one, two = noise_seen(here, plane(here)), noise_seen(there, plane(there))
    assert torch.equal(one[..., 1:], two[..., :-1])
    lower = orthographic(0.0)
    surface = plane(lower)
    below = replace(surface, depth=surface.depth + 1)
    assert (noise_seen(lower, below) * one).mean().abs() < 5 / one.numel() ** 0.5


def test_two_cameras_see_one_noise_at_the_points_that_both_see():
    cameras = around(0.0, 20.0)
    surface = sphere(cameras)
    noise = noise_seen(cameras, surface, channels=64)
    origins, directions = cameras.rays(SIDE, SIDE)
    depth = surface.depth[:, 0, 4::8, 4::8, None]
    points = origins + depth * directions
    solid = torch.nn.functional.avg_pool2d(surface.opacity, 8)[:, 0] == 1
    apart = torch.cdist(points[0][solid[0]], points[1][solid[1]])
    near, partner = apart.min(dim=1)
    matched = near < 0.02  # less than a sixth of a pixel, which is 0.11 wide
    assert matched.sum() > 5
    one, two = noise[0][:, solid[0]][:, matched], noise[1][:, solid[1]][:, partner[matched]]
    assert (one * two).mean() > 0.5
    elsewhere = noise_seen(cameras, surface, channels=64, seed=1)[1][:, solid[1]]
    count = one.numel()
    assert (one * elsewhere[:, partner[matched]]).mean().abs() < 5 / count**0.5


def test_noise_is_that_of_the_run_on_the_surface_and_fresh_behind_it():
    cameras = around(0.0, 90.0)
    _, met = cfd.surface_points(cameras, None, 8 * SIDE, 8 * SIDE)
    share = torch.nn.functional.avg_pool2d(met[:, None].double(), 8).expand(-1, 2, -1, -1)
    first, second = noise_seen(cameras, step=1), noise_seen(cameras, step=2)
    assert torch.equal(first[share == 1], second[share == 1])
    assert (first[share == 0] != second[share == 0]).all()
    assert (share == 1).sum() > 50 < (share == 0).sum()
    depth = torch.full((2, 1, 5, 5), 2.0, dtype=DOUBLE)
    faint = Surface(depth, torch.full_like(depth, 0.09))
    assert (noise_seen(cameras, faint, step=1) != noise_seen(cameras, faint, step=2)).all()
    dense = replace(faint, opacity=faint.opacity + 0.02)
    assert torch.equal(noise_seen(cameras, dense, step=1), noise_seen(cameras, dense, step=2))


def test_an_unknown_surface_is_a_ball():
    points, solid = cfd.surface_points(around(70.0), None, 33, 33)
    assert_close(points[solid].norm(dim=-1), torch.full_like(points[solid][:, 0], cfd.RADIUS))
    assert solid[0, 16, 16]
    assert not solid[0, 0, 0]
    assert (points[solid] @ around(70.0).positions[0]).min() > 0


def test_the_flow_ends_at_the_sample_that_belongs_to_the_noise():
    """At m + sqrt(v) eps for each pixel, where the same steps with fresh noise end near m."""
    ends, noise = flow_of_samples("cfd")
    mean, variance = DIFFERENT["prompt"]
    assert_close(ends, mean + variance**0.5 * noise, rtol=0, atol=6e-3)
    assert ends.std().item() == pytest.approx(variance**0.5, rel=0.1)
    fresh, _ = flow_of_samples("sjc")
    assert fresh.std() < 0.3 * variance**0.5


def test_surfaces_reach_the_rule_in_a_run():
    config = tiny(**{"score_distillation.rule": "cfd"})
    model = build_vlm3d(config, RandomDenoiser(), redness)
    distillation, caught = model.guidances.terms[0].guidance, []
    rule = distillation.rule

    def spy(teacher, latents, t, generator):
        caught.append(teacher.surface)
        return rule.noising(teacher, latents, t, generator)

    distillation.rule = replace(rule, noising=spy)
    model.step()
    (surface,) = caught
    assert surface.depth.shape == surface.opacity.shape
    assert surface.opacity.max() > 0.1
    seen = surface.depth[surface.opacity > 0.1]
    assert seen.min() > 0


def test_a_run_goes_on_as_if_it_had_not_stopped():
    config = tiny(**{"score_distillation.rule": "cfd"})
    whole, part = (build_vlm3d(config, RandomDenoiser()) for _ in range(2))
    reports = [whole.step() for _ in range(4)]
    for _ in range(2):
        part.step()
    resumed = build_vlm3d(config, RandomDenoiser())
    resumed.load_state(part.state())
    assert [resumed.step() for _ in range(2)] == reports[2:]


def test_guidances_that_ask_are_shown_the_surface_of_their_views():
    class Asking:
        name = "asking"
        accepts_surface = True

        def __call__(self, images, cameras, progress, generator, surface=None):
            self.seen = (images, surface)
            return GuidanceOutput(torch.zeros(()), torch.zeros_like(images))

    images, asking = torch.rand(4, 3, 2, 2), Asking()
    depth = images[:, :1]  # tells which view it is of
    weighted = WeightedGuidance(asking, WeightingConfig(n_views=2))
    total = GuidanceSum([weighted])
    options = {"step": 0, "progress": 0.0, "generator": torch.Generator().manual_seed(0)}
    total(images, around(0, 1, 2, 3), **options, surface=lambda: Surface(depth, depth))
    shown, surface = asking.seen
    assert torch.equal(shown[:, :1], surface.depth)
    assert len(shown) == 2
    total(images, around(0, 1, 2, 3), **options)
    assert asking.seen[1] is None
    asking.accepts_surface = False

    def never():
        raise AssertionError("nobody asked")

    total(images, around(0, 1, 2, 3), **options, surface=never)


@pytest.mark.parametrize("projection", ["perspective", "orthographic"])
def test_gaussians_say_how_far_away_they_are(projection):
    """Two small opaque ones, of which the nearer hides the other in the second view."""
    means = torch.tensor([[0.0, 0.5, 0.0], [0.0, -0.5, 0.0]], dtype=DOUBLE)
    splats = Splats(
        means=means,
        scales=torch.full((2, 3), 0.08, dtype=DOUBLE),
        quaternions=torch.tensor([[1.0, 0, 0, 0]] * 2, dtype=DOUBLE),
        opacity=torch.full((2,), 0.99, dtype=DOUBLE),
        rgb=torch.zeros(2, 3, dtype=DOUBLE),
    )
    cameras = orbit(torch.tensor([0.0, 90.0], dtype=DOUBLE), 0.0, 2.0, 60.0, projection=projection)
    surface = gaussian_surface(splats, cameras, 31)
    views = render_gaussian_views(splats, cameras, 31, background=torch.ones(2, 3, dtype=DOUBLE))
    assert_close(views.surface().depth, surface.depth)
    assert_close(surface.opacity, views.opacity)
    seen = surface.depth[0, 0][surface.opacity[0, 0] > 0.5]
    expected = 2.0 if projection == "orthographic" else (4 + 0.25) ** 0.5
    assert_close(seen, torch.full_like(seen, expected))
    assert surface.depth[1, 0, 15, 15].item() == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_it_comes_to_rest_where_theory_says_for_its_noise(scale):
    """The root of sum k s (a z + s eps - a m) / (a^2 v + s^2) = eps: m + a v eps / s at k = 1."""
    level = 0.5
    a, s = a_and_s(level)
    weights = {"prompt": scale, "negative": 1 - scale}
    draws = torch.Generator().manual_seed(0)
    torch.rand(2, generator=draws)  # the timesteps come first
    noise = noise_seen(CAMERAS, channels=3, side=4, draws=draws)
    pull = pulls(level, DIFFERENT)
    slope = sum(k * pull[text] for text, k in weights.items())
    push = sum(k * pull[text] * DIFFERENT[text][0] for text, k in weights.items())
    rest = (push + (1 - slope * s / a) * noise) / slope
    model, at = Gaussians(DIFFERENT), Schedule.constant(level)
    distillation = ScoreDistillation(
        model,
        "prompt",
        negative_prompt="negative",
        rule="cfd",
        guidance_scale=scale,
        t_min=at,
        t_max=at,
    )
    output = distillation((rest + 1) / 2, CAMERAS, 0.0, torch.Generator().manual_seed(0))
    assert_close(output.gradient, torch.zeros_like(rest), rtol=0, atol=1e-12)
    if scale == 1:
        mean, variance = DIFFERENT["prompt"]
        assert_close(rest, mean + a / s * variance * noise)
