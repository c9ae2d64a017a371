"""Gaussians that are cloned, split and removed: by closed forms, by a second route, and in runs."""

import dataclasses
import math
import sys
import types

import pytest
import torch
from stub_models import RandomDenoiser, build_vlm3d, redness, tiny
from torch.testing import assert_close

from vlmreward_3d.cameras import Cameras, orbit, sample_groups
from vlmreward_3d.config import DENSIFICATIONS, DensificationConfig, VLM3DConfig, WeightingConfig
from vlmreward_3d.fields.densification import RESET_OPACITY, Densifier
from vlmreward_3d.fields.gaussian_rows import NEW, grow, logits_of, opacity_of, split
from vlmreward_3d.fields.gaussians import GaussianField
from vlmreward_3d.fields.optimizer_rows import exchange_parameters
from vlmreward_3d.guidance.loading import build_guidances
from vlmreward_3d.guidance.weighting import WeightedGuidance
from vlmreward_3d.rendering.base import RegularizerWeights
from vlmreward_3d.rendering.gaussians import (
    Gaussians,
    rasterize_gsplat,
    render_gaussians,
    rotations,
)
from vlmreward_3d.rendering.gaussians.projection import project
from vlmreward_3d.rendering.gaussians.rasterize_torch import draw
from vlmreward_3d.vlm3d import VLM3D

EVERY_STEP = DensificationConfig(
    interval=1, grad_threshold=0.5, split_size=0.1, min_opacity=0.01, max_gaussians=1000
)
GROWING = {
    "field": "gaussians",
    "field.n_gaussians": 40,
    "field.densification": dataclasses.replace(
        EVERY_STEP, interval=4, grad_threshold=1e-3, split_size=0.18, max_gaussians=150
    ),
}


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ring(views=3) -> Cameras:
    ranges = {"fov_deg": (40, 40), "elevation_deg": (20, 20), "object_radius": (0.8, 0.8)}
    return sample_groups(1, views, **ranges, generator=generator(3), dtype=torch.float64)


def growing(count=40, **changes) -> GaussianField:
    """A field in float64 whose Gaussians differ in everything."""
    config = dataclasses.replace(EVERY_STEP, **changes)
    field = GaussianField(count, generator=generator(), densification=config).double()
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(field.named_parameters()):
            if name != "means":
                noise = torch.randn(parameter.shape, generator=generator(seed)).double()
                parameter.add_(0.3 * noise)
    return field


def adam(field: GaussianField) -> torch.optim.Optimizer:
    """AdamW with moments after two steps."""
    groups = [{"params": p, "lr": 1e-9 * rate} for p, rate in field.parameter_groups()]
    optimizer = torch.optim.AdamW(groups)
    for seed in range(2):
        for parameter in field.parameters():
            noise = torch.randn(parameter.shape, generator=generator(seed)).double()
            parameter.grad = noise
        optimizer.step()
    return optimizer


def note(field: GaussianField, gradients: torch.Tensor) -> None:
    """Set the statistics so that the mean gradients are these."""
    field.densifier.view_counts.fill_(4)
    field.densifier.gradient_sums.copy_(4 * gradients)


def end_step(field, optimizer, step=0, progress=0.5):
    return field.end_step(step, progress=progress, optimizer=optimizer, generator=generator(7))


# --- the statistics


def expected_statistics(field, cameras, height, weights):
    """Statistics of one back-propagation; the projected centers are leaves of the graph."""
    gaussians = field.gaussians()
    projection = project(gaussians, cameras, height, height)
    leaf = projection.means.detach().requires_grad_()
    moved = dataclasses.replace(projection, means=leaf)
    colors = gaussians.rgb.expand(len(cameras), -1, -1)
    sums, opacity = draw(moved, gaussians.opacity, colors, height, height)
    loss = ((sums + 1 - opacity) * weights).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    gradient = gradient * height / 2
    low, high = leaf - projection.extents, leaf + projection.extents
    inside = ((low < height) & (high > 0)).all(-1) & (projection.extents[..., 0] > 0)
    norms = len(cameras) * gradient.norm(dim=-1)
    assert not norms[~inside].any()
    xx, xy, yy = projection.covariances.detach().unbind(-1)
    matrices = torch.stack([xx, xy, xy, yy], dim=-1).unflatten(-1, (2, 2))
    radii = 3 * torch.linalg.eigvalsh(matrices)[..., 1].sqrt()
    return norms.sum(0), inside.sum(0), torch.where(inside, radii, 0).amax(0)


def wide() -> GaussianField:
    """Some of its Gaussians are out of some pictures."""
    field = growing()
    with torch.no_grad():
        field.means.mul_(3)
        field.log_scales.sub_(1)
    return field


def render(field, cameras, height=14):
    background = torch.ones(len(cameras), 3).double()
    return field.render(cameras, height, background=background, generator=generator())


def assert_statistics(field, expected):
    densifier = field.densifier
    assert_close(densifier.gradient_sums, expected[0], rtol=1e-9, atol=1e-12)
    assert torch.equal(densifier.view_counts, expected[1])
    assert_close(densifier.max_radii, expected[2], rtol=1e-9, atol=1e-12)


def test_statistics_are_the_gradient_at_the_centers_by_another_route():
    field, cameras = wide(), ring()
    weights = torch.randn(3, 3, 14, 14, generator=generator(1)).double()
    expected = expected_statistics(field, cameras, 14, weights)
    assert expected[1].min() < expected[1].max() == 3  # some are not in every picture
    assert expected[0].max() > 1
    field.densifier.begin_step()
    render(field, cameras).backward(weights, RegularizerWeights())
    field.densifier.end_step()
    assert_statistics(field, expected)
    assert_close(field.densifier.gradients, expected[0] / expected[1].clamp_min(1))
    # another step adds up
    render(field, cameras).backward(weights, RegularizerWeights())
    field.densifier.end_step()
    assert_statistics(field, (2 * expected[0], 2 * expected[1], expected[2]))


def test_back_propagations_of_the_same_views_are_summed_before_the_norm():
    field, cameras = wide(), ring()
    one, other = torch.randn(2, 3, 3, 14, 14, generator=generator(1)).double()
    views = render(field, cameras)
    views.backward(one, RegularizerWeights(), retain_graph=True)
    views.backward(other, RegularizerWeights())
    field.densifier.end_step()
    assert_statistics(field, expected_statistics(field, cameras, 14, one + other))


def test_views_that_are_rendered_in_parts_are_those_of_one_step():
    field, cameras = wide(), ring()
    weights = torch.randn(3, 3, 14, 14, generator=generator(1)).double()
    for part in (slice(0, 1), slice(1, 3)):
        render(field, cameras[part]).backward(weights[part], RegularizerWeights())
    field.densifier.end_step()
    assert_statistics(field, expected_statistics(field, cameras, 14, weights))


def test_views_without_a_gradient_and_of_steps_that_fail_do_not_count():
    field, cameras = wide(), ring()
    render(field, cameras)
    field.densifier.end_step()
    render(field, cameras).backward(torch.ones(3, 3, 14, 14).double(), RegularizerWeights())
    field.begin_step(1, generator())
    field.densifier.end_step()
    assert not any(value.any() for value in field.densifier.buffers())
    list(field.render_images(cameras, 8))


def test_gsplat_gives_the_same_statistics(monkeypatch):
    """A stand-in that draws from the centers that it returns, as gsplat's kernels do."""
    field, cameras = wide(), ring()
    weights = torch.randn(3, 3, 14, 14, generator=generator(1)).double()

    def rasterization(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, **options
    ):
        there = project(
            Gaussians(means, scales, quats, opacities, colors[0]), cameras, height, width
        )
        pictures = draw(there, opacities, colors, height, width)
        xx, xy, yy = there.covariances.unbind(-1)
        conics = torch.stack([yy, -xy, xx], dim=-1) / there.determinants[..., None]
        low, high = there.means - there.extents, there.means + there.extents
        inside = ((high > 0) & (low < height)).all(-1) & (there.extents[..., 0] >= 0)
        radii = (there.extents.ceil() * inside[..., None]).int()
        found = {"means2d": there.means, "conics": conics, "radii": radii}
        return *(picture.permute(0, 2, 3, 1) for picture in pictures), found

    module = types.ModuleType("gsplat")
    module.rasterization = rasterization
    monkeypatch.setitem(sys.modules, "gsplat", module)
    expected = expected_statistics(field, cameras, 14, weights)
    monkeypatch.setattr(rasterize_gsplat, "available", lambda device: True)
    render(field, cameras).backward(weights, RegularizerWeights())
    field.densifier.end_step()
    assert_statistics(field, expected)


def test_the_gradient_does_not_depend_on_the_resolution():
    """Half the picture is the unit, and the loss a mean over pixels."""
    found = []
    for height in (24, 96):
        field = growing(count=10)
        with torch.no_grad():
            field.log_scales.fill_(math.log(0.3))  # wide in pixels, as the dilation is not
        weights = torch.ones(3, 3, height, height).double() / height**2
        render(field, ring(), height).backward(weights, RegularizerWeights())
        field.densifier.end_step()
        found.append(field.densifier.gradients)
    assert_close(found[0], found[1], rtol=0.1, atol=0.02 * found[0].max().item())


# --- rows


def rows_of(field):
    return dict(field.named_parameters(recurse=False))


def test_halves_have_the_mean_and_the_covariance_that_the_paper_implies():
    field, count = growing(count=4), 50_000
    with torch.no_grad():
        field.log_scales.copy_(torch.tensor([[0.1, 0.4, 0.02]]).log().expand(4, 3))
    one = {
        name: value[:1].expand(count, *value.shape[1:]) for name, value in rows_of(field).items()
    }
    halves = split(one, generator(5))
    assert len(halves["means"]) == 2 * count
    turned = rotations(torch.nn.functional.normalize(field.quaternions[0], dim=-1))
    axes = turned * field.log_scales[0].exp()
    covariance = axes @ axes.T
    offsets = halves["means"] - field.means[0]
    assert_close(offsets.mean(0), torch.zeros(3).double(), atol=5e-3, rtol=0)
    # of the mixture: that of the centers, and that of each half
    assert_close(halves["log_scales"], (field.log_scales[0].exp() / 1.6).log().expand(2 * count, 3))
    mixture = offsets.T @ offsets / len(offsets) + covariance / 1.6**2
    assert_close(mixture, (1 + 1 / 1.6**2) * covariance, atol=2e-3, rtol=0.02)
    first, second = offsets.split(count)
    assert (first * second).sum(-1).mean().abs() < 2e-3  # drawn apart
    for name in ("quaternions", "opacity_logits", "color_logits"):
        assert torch.equal(halves[name], one[name].repeat(2, *[1] * (one[name].ndim - 1)))


def test_clones_are_copies_and_those_that_stay_are_in_their_order():
    rows = rows_of(growing(count=6))
    cloned = torch.tensor([False, True, False, False, True, False])
    halved = torch.tensor([True, False, False, True, False, False])
    grown = grow(rows, cloned, halved, generator())
    assert grown.origins.tolist() == [1, 2, 4, 5, NEW, NEW, NEW, NEW, NEW, NEW]
    for name, value in rows.items():
        assert torch.equal(grown.rows[name][:4], value[[1, 2, 4, 5]])
        assert torch.equal(grown.rows[name][4:6], value[[1, 4]])
        assert not grown.rows[name].requires_grad
    assert torch.equal(grown.rows["color_logits"][6:], rows["color_logits"][[0, 3, 0, 3]])


# --- which come and go


def test_small_ones_are_cloned_and_large_ones_are_split():
    field = growing(split_size=0.1)
    small = torch.arange(40) % 2 == 0
    with torch.no_grad():
        field.log_scales[small, 0] = math.log(0.09)
        field.log_scales[small, 1:] = math.log(0.08)
        field.log_scales[~small, 2] = math.log(0.11)
    gradients = torch.full((40,), 0.499).double()
    gradients[:10] = 0.5
    note(field, gradients)
    change = field.densifier.densify(rows_of(field), 0.5, generator())
    assert (change.n_cloned, change.n_split, change.n_pruned) == (5, 5, 0)
    assert str(change) == "40 -> 50 Gaussians: 5 cloned, 5 split, 0 removed"
    assert change.edited.origins.tolist()[:5] == [0, 2, 4, 6, 8]  # the odd ones are split
    assert not any(value.any() for value in field.densifier.buffers())
    assert all(len(value) == 50 for value in field.densifier.buffers())
    # the norm of three scales is larger than the largest
    field = growing(split_size=0.1, size_measure="norm")
    with torch.no_grad():
        field.log_scales.fill_(math.log(0.06))
    note(field, torch.ones(40))
    assert field.densifier.densify(rows_of(field), 0.5, generator()).n_split == 40


def test_transparent_ones_are_removed_and_large_ones_when_it_is_time():
    config = {"max_size": 0.9, "max_screen_radius": 20.0, "limits_start": 0.3}
    for progress, removed in ((0.3, {0, 1}), (0.31, {0, 1, 2, 3})):
        field = growing(**config)
        with torch.no_grad():
            field.opacity_logits.fill_(0.0)
            field.opacity_logits[:2] = logits_of(torch.tensor(0.0099).double())
            field.log_scales[2, 1] = math.log(0.91)
            field.log_scales[4, 1] = math.log(0.89)
        field.densifier.max_radii[3:5] = torch.tensor([20.1, 20.0]).double()
        change = field.densifier.densify(rows_of(field), progress, generator())
        assert set(range(40)) - set(change.edited.origins.tolist()) == removed
        assert (change.n_pruned, change.before) == (len(removed), 40)
    # halves of what was too large in a picture stay: how large they are is not known yet
    field = growing(split_size=0.01, **config)
    field.densifier.max_radii[:] = 50
    note(field, torch.cat([torch.ones(10), torch.zeros(30)]).double())
    assert len(field.densifier.densify(rows_of(field), 1.0, generator()).edited.origins) == 20


def test_the_four_most_opaque_ones_always_stay():
    field = growing(min_opacity=0.9)
    change = field.densifier.densify(rows_of(field), 0.5, generator())
    best = field.opacity_logits.topk(4).indices.sort().values
    assert torch.equal(change.edited.origins, best)


@pytest.mark.parametrize("most", [40, 43, 60])
def test_there_are_never_more_than_the_most(most):
    field = growing(max_gaussians=most)
    gradients = torch.rand(40, generator=generator()).double() + 0.5
    note(field, gradients)
    optimizer = adam(field)
    end_step(field, optimizer)
    assert len(field.means) == most
    grown = field.densifier.config.max_gaussians - 40
    field = growing(max_gaussians=most, split_size=1e-3)
    note(field, gradients)
    change = field.densifier.densify(rows_of(field), 0.5, generator())
    largest = set(gradients.argsort(descending=True)[:grown].tolist())
    assert set(range(40)) - set(change.edited.origins.tolist()) == largest  # all are split


@pytest.mark.parametrize(
    ("step", "progress", "due"),
    [(19, 0.2, False), (19, 0.21, True), (18, 0.3, False), (29, 0.6, True), (29, 0.61, False)],
)
def test_when_it_is_due(step, progress, due):
    field = growing(start=0.2, stop=0.6, interval=10)
    events = end_step(field, adam(field), step, progress)
    assert bool(events) == due
    assert not due or events[0].startswith(f"step {step + 1}: 40 -> ")


# --- the optimizer


def test_those_that_stay_keep_their_moments_and_new_ones_have_none():
    field = growing()
    optimizer = adam(field)
    former = rows_of(field)
    moments = {name: dict(optimizer.state[p]) for name, p in former.items()}
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    note(field, torch.linspace(0, 1, 40).double())
    with torch.no_grad():
        field.opacity_logits[3] = -9
    events = end_step(field, optimizer)
    origins = [i for i in range(20) if i != 3]
    count = 40 - 1 + 20
    assert events[0].startswith("step 1: 40 -> 59 Gaussians: ")
    assert [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups] == groups
    assert [g["params"] for g in optimizer.param_groups] == [p for p, _ in field.parameter_groups()]
    assert len(optimizer.state) == len(former)
    for name, parameter in rows_of(field).items():
        assert len(parameter) == count
        assert isinstance(parameter, torch.nn.Parameter)
        assert torch.equal(parameter[: len(origins)], former[name][origins])
        state = optimizer.state[parameter]
        assert state.keys() == moments[name].keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert state["step"] == 2
        for key in ("exp_avg", "exp_avg_sq"):
            before, after = moments[name][key], state[key]
            assert after.shape == parameter.shape
            assert torch.equal(after[: len(origins)], before[origins])
            assert not after[-20:].any()  # copies and halves are the last ones
            assert before.abs().min() > 0
    for parameter in field.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = [p.detach().clone() for p in field.parameters()]
    optimizer.step()
    assert all((a != b).all() for a, b in zip(before, field.parameters()))


def test_a_reset_limits_opacities_and_forgets_their_moments_alone():
    field = growing(interval=1000, reset_interval=3)
    optimizer = adam(field)
    with torch.no_grad():
        field.opacity_logits[:7] = -6.0
    before = opacity_of(field.opacity_logits.detach())
    assert end_step(field, optimizer, 1) == ()
    assert end_step(field, optimizer, 2) == ("step 3: opacities reset to 0.01 at most",)
    assert_close(opacity_of(field.opacity_logits.detach()), before.clamp_max(RESET_OPACITY))
    assert (before < RESET_OPACITY).sum() == 7
    for name, parameter in field.named_parameters():
        state = optimizer.state[parameter]
        assert bool(state["exp_avg"].any()) == bool(state["exp_avg_sq"].any())
        assert bool(state["exp_avg"].any()) == (name != "opacity_logits")
    assert end_step(growing(reset_interval=3, stop=0.4, interval=1000), optimizer, 2) == ()


def test_optimizers_that_cannot_follow_are_refused_and_nothing_changes():
    field = growing()
    optimizer = torch.optim.Adafactor(field.parameters())
    for parameter in field.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    note(field, torch.ones(40).double())
    before = list(field.parameters())
    with pytest.raises(ValueError, match=r"state 'row_var' of a Adafactor .* use Adam, AdamW"):
        end_step(field, optimizer)
    assert [p["params"] for p in optimizer.param_groups] == [before]
    assert all(a is b for a, b in zip(before, field.parameters()))
    foreign = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))])
    with pytest.raises(ValueError, match=r"of shape \(40, 3\) that the optimizer does not have"):
        exchange_parameters(foreign, {field.means: field.means}, torch.arange(40))


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adagrad])
def test_other_optimizers_follow(make):
    field = growing()
    optimizer = make(field.parameters(), lr=1e-9)
    for _ in range(2):
        for parameter in field.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        note(field, torch.ones(len(field.means)).double())
        end_step(field, optimizer)
    assert len(field.means) == 160


# --- runs


def fit(densification, steps=90) -> tuple[float, int]:
    """Error and number of Gaussians after fitting a picture of fine stripes, from 50."""
    side = 20
    cameras = orbit(torch.zeros(1), 0.0, 2.0, 40.0)
    columns = torch.arange(side) // 3 % 2
    target = torch.ones(1, 3, side, side)
    target[:, :, 2:18, 2:18] = torch.stack([columns, 1 - columns, columns * 0.0])[:, None, 2:18]
    field = GaussianField(50, generator=generator(), densification=densification)
    groups = [{"params": p, "lr": 0.05 * rate} for p, rate in field.parameter_groups()]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-15, weight_decay=0.0)
    for step in range(steps):
        field.begin_step(step, generator(step))
        views = field.render(cameras, side, background=torch.ones(1, 3), generator=generator())
        optimizer.zero_grad()
        views.backward(2 * (views.rgb - target) / target.numel(), RegularizerWeights())
        optimizer.step()
        field.end_step(
            step, progress=(step + 1) / steps, optimizer=optimizer, generator=generator(step)
        )
    seen = render_gaussians(field.gaussians(), cameras, side, side).rgb
    return (seen - target).square().mean().item(), len(field.means)


def test_a_picture_is_fitted_better_by_a_number_that_grows():
    growth = DensificationConfig(
        start=0.1,
        stop=0.7,
        interval=10,
        grad_threshold=1e-3,
        split_size=0.05,
        min_opacity=0.005,
        max_gaussians=250,
    )
    fixed, few = fit(None)
    grown, many = fit(growth)
    assert few == 50
    assert 80 < many <= 250
    assert grown < 0.6 * fixed


def test_a_run_goes_on_exactly_in_the_middle_of_an_interval():
    whole = build_vlm3d(tiny(**GROWING), RandomDenoiser(), redness)
    reports = [whole.step() for _ in range(6)]
    counts = [report.metrics["field/n_gaussians"] for report in reports]
    assert counts[:3] == [40] * 3
    assert 40 < counts[3] == counts[5] < 150
    assert [bool(report.events) for report in reports] == [False] * 3 + [True] + [False] * 2
    state = whole.state()
    assert state["field.densifier.gradient_sums"].any()
    assert len(state["adam.0.exp_avg"]) == counts[3]
    again = build_vlm3d(tiny(**GROWING), RandomDenoiser(), redness)
    again.load_state(state)
    for _ in range(6):
        assert whole.step() == again.step()
    assert len(whole.field.means) > counts[3]
    for name, value in whole.state().items():
        assert torch.equal(value, again.state()[name]), name
    # and back to where there were fewer
    whole.load_state(state)
    for name, value in whole.state().items():
        assert torch.equal(value, state[name]), name
    assert whole.step().step == 6


def test_a_fixed_number_has_no_statistics_and_takes_no_other_number():
    model = build_vlm3d(tiny(field="gaussians", field__n_gaussians=40), RandomDenoiser(), redness)
    report = model.step()
    assert report.metrics["field/n_gaussians"] == 40
    assert report.events == ()
    assert not any("densifier" in name for name in model.state())
    other = GaussianField(41, generator=generator())
    with pytest.raises(RuntimeError, match="size mismatch for means"):
        model.field.load_state_dict(other.state_dict())


# --- settings


@pytest.mark.parametrize("name", DENSIFICATIONS)
def test_known_settings_survive_json(name):
    config = tiny(field="gaussians", field__densification=DENSIFICATIONS[name])
    assert VLM3DConfig.from_json(config.to_json()) == config
    assert config.field.grows
    assert not tiny(field="gaussians").field.grows
    assert isinstance(Densifier(DENSIFICATIONS[name], 4).gradients, torch.Tensor)


BAD = {
    "start": -0.1,
    "stop": 1.5,
    "interval": 0,
    "grad_threshold": 0.0,
    "split_size": float("nan"),
    "size_measure": "volume",
    "min_opacity": 1.0,
    "max_size": 0.0,
    "max_screen_radius": -1.0,
    "limits_start": 2.0,
    "reset_interval": 0.5,
    "max_gaussians": 3,
}


def test_there_is_a_bad_value_of_every_setting():
    assert BAD.keys() == {field.name for field in dataclasses.fields(DensificationConfig)}


@pytest.mark.parametrize("setting", BAD)
def test_bad_settings_are_refused(setting):
    with pytest.raises(ValueError, match=rf"received {setting}=.*; expected .*; change {setting}"):
        dataclasses.replace(EVERY_STEP, **{setting: BAD[setting]})


def test_settings_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match=r"stop=0.2; expected a progress from start=0.4 on"):
        dataclasses.replace(EVERY_STEP, start=0.4, stop=0.2)
    with pytest.raises(ValueError, match=r"n_gaussians=2000; expected at most max_gaussians=1000"):
        tiny(field="gaussians", field__densification=EVERY_STEP)
    with pytest.raises(ValueError, match=r"densification=3; expected None or a Densif"):
        tiny(field="gaussians", field__densification=3)
    with pytest.raises(ValueError, match=r"cache_gradient=True; expected False beside field.dens"):
        tiny(**GROWING, vlm__weighting__cache_gradient=True)
    config = tiny(**GROWING)
    first, second = build_guidances(config, RandomDenoiser(), redness)
    kept = WeightedGuidance(second.guidance, WeightingConfig(cache_gradient=True))
    with pytest.raises(ValueError, match=r"cache_gradient=True for the guidance 'vlm' of a field"):
        VLM3D(config, [first, kept])
