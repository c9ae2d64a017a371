"""One step of Algorithm 1 against the same thing written as one loss."""

import copy
import threading

import pytest
import torch
from solids import cast
from stub_models import OracleDenoiser, RandomDenoiser, build_vlm3d, redness, tiny
from torch.testing import assert_close

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import WeightingConfig
from vlmreward_3d.guidance.base import GuidanceOutput
from vlmreward_3d.rendering.evaluation import evaluation_cameras
from vlmreward_3d.rendering.occupancy import OccupancyGrid
from vlmreward_3d.rendering.volume import render
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.vlm3d import VLM3D, DivergenceError


def raw_gradients(model: VLM3D) -> list[torch.Tensor]:
    model.step()
    return [p.grad.clone() for p in model.field.parameters()]


def test_gradients_at_the_pixels_equal_one_big_loss():
    weight = 3.0
    changes = {
        "vlm.objective": "log-odds",
        "vlm.weighting.weight": Schedule.constant(weight),
        "vlm.weighting.max_grad_ratio": None,
    }
    config = tiny(regularizers__entropy_weight=Schedule.constant(0.2), **changes)
    both = raw_gradients(build_vlm3d(config, RandomDenoiser(), redness))

    # the monolithic route: sds as a fixed linear loss, the reward through the whole graph
    model = build_vlm3d(config, RandomDenoiser())
    seen = {}
    term = model.guidances.terms[0]
    distillation = term.guidance

    def spy(images, cameras, progress, generator):
        seen["sds"] = distillation(images, cameras, progress, generator)
        return seen["sds"]

    term.guidance = spy
    model.step()
    again = build_vlm3d(config, RandomDenoiser())
    views = rendered(again)
    loss = (views.rgb * seen["sds"].gradient).sum()
    loss = loss - weight * redness(views.rgb[None], config.prompt).sum()
    p = views.opacity.clamp(1e-3, 1 - 1e-3)
    loss = loss + 0.2 * -(p * p.log() + (1 - p) * (1 - p).log()).mean()
    loss.backward()
    for ours, parameter in zip(both, again.field.parameters()):
        assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-6)
        assert ours.abs().sum() > 0


def rendered(model: VLM3D):
    """Views of the model's first step, rendered from the same random state."""
    caught = []

    def catch(images, cameras, progress, generator):
        caught.append(cameras)
        raise StopIteration

    state = model.generator.get_state()
    term = model.guidances.terms[0]
    distillation, term.guidance = term.guidance, catch
    with pytest.raises(StopIteration):
        model.step()
    term.guidance = distillation
    model.generator.set_state(state)
    baked = model.field.representation.bake()
    occupancy = model.config.field.occupancy
    grid = OccupancyGrid(occupancy.resolution, threshold=occupancy.threshold, decay=occupancy.decay)
    grid.update(baked.density, model.generator)
    torch.rand(4, 1, generator=model.generator)  # the group
    background = torch.rand(1, 3, generator=model.generator).expand(4, 3)
    side = int(model.config.camera.resolution(0))
    return render(
        baked,
        grid,
        Cameras(caught[0].c2w, caught[0].fov),
        side,
        side,
        n_samples=model.config.field.rays.samples_per_ray,
        background=background,
        generator=model.generator,
    )


def test_the_limit_caps_the_norm_of_the_rewards_part_at_the_pixels():
    def weight(hand, norms, **settings):
        config = tiny(vlm__weighting=WeightingConfig(weight=Schedule.constant(hand), **settings))
        reference, term = build_vlm3d(config, RandomDenoiser(), redness).guidances.terms
        reference.norm, term.norm = torch.tensor(norms)
        return term.weight(0.0, reference.norm)

    # lambda * 0.1 may be half of 8 at most
    assert weight(300.0, [8.0, 0.1], max_grad_ratio=0.5) * 0.1 == pytest.approx(4.0)
    assert weight(41.0, [8.0, 0.1], max_grad_ratio=0.5) * 0.1 == pytest.approx(4.0)
    assert weight(39.0, [8.0, 0.1], max_grad_ratio=0.5) == 39.0
    assert weight(300.0, [8.0, 0.0], max_grad_ratio=0.5) == 300.0
    assert weight(300.0, [8.0, 0.1], max_grad_ratio=None) == 300.0


def test_balance_gives_the_reward_its_share_whatever_its_scale():
    def loud(images, prompt):
        return 50 * redness(images, prompt)

    for reward in (redness, loud):
        config = tiny(vlm__weighting__max_grad_ratio=None, vlm__weighting__grad_ratio=0.7)
        report = build_vlm3d(config, RandomDenoiser(), reward).step()
        assert report.metrics["vlm/weight"] * report.metrics["vlm/grad_norm"] == pytest.approx(
            0.7 * report.metrics["sds/grad_norm"]
        )
    model = build_vlm3d(
        config, RandomDenoiser(), lambda images, prompt: 0 * redness(images, prompt)
    )
    assert model.step().metrics["vlm/weight"] == 0
    with pytest.raises(ValueError, match=r"grad_ratio=0\.7; expected None beside a max_grad_ratio"):
        tiny(vlm__weighting__max_grad_ratio=1.0, vlm__weighting__grad_ratio=0.7)


def test_a_held_gradient_is_followed_until_the_next_answer():
    config = tiny(
        vlm__weighting__interval=3,
        vlm__weighting__cache_gradient=True,
        field__occupancy__interval=100,
    )
    model = build_vlm3d(config, RandomDenoiser(), redness)
    asking = build_vlm3d(tiny(field__occupancy__interval=100), RandomDenoiser(), redness)
    for ours, expected in zip(raw_gradients(model), raw_gradients(asking)):
        assert_close(ours, expected, rtol=1e-4, atol=1e-7)
    term = model.guidances.terms[1]
    held = [part.clone() for part in term.cache]
    assert all(part.abs().sum() > 0 for part in held)
    for _ in range(2):
        alone = build_vlm3d(config, RandomDenoiser())
        alone.load_state(model.state())
        report = model.step()
        ours = [p.grad.clone() for p in model.field.parameters()]
        assert "vlm/reward" not in report.metrics
        assert report.metrics["vlm/weight"] > 0
        for total, sds, part in zip(ours, raw_gradients(alone), held):
            assert_close(total, sds + report.metrics["vlm/weight"] * part)
    assert "vlm/reward" in model.step().metrics
    assert not torch.equal(term.cache[0], held[0])


def test_a_held_gradient_survives_a_checkpoint():
    config = tiny(
        vlm__weighting__interval=4,
        vlm__weighting__cache_gradient=True,
        vlm__weighting__stop_at=0.7,
        field__rays__rays_per_chunk=100,
    )
    whole = build_vlm3d(config, RandomDenoiser(), redness)
    for _ in range(2):
        whole.step()
    again = build_vlm3d(config, RandomDenoiser(), redness)
    again.load_state(whole.state())
    for _ in range(10):
        assert whole.step() == again.step()
    for ours, theirs in zip(whole.field.parameters(), again.field.parameters()):
        assert torch.equal(ours, theirs)


def test_the_vlm_answers_while_the_denoiser_works():
    meet = threading.Barrier(2, timeout=60)

    class Waiting(RandomDenoiser):
        def predict_noise(self, *given):
            meet.wait()
            return super().predict_noise(*given)

    def reward(images, prompt):
        meet.wait()
        return redness(images, prompt)

    config = tiny(vlm__weighting__n_views=2)
    together = build_vlm3d(config, Waiting(), reward, concurrent=True)
    in_turn = build_vlm3d(config, RandomDenoiser(), redness)
    for _ in range(3):
        assert together.step() == in_turn.step()
    for ours, theirs in zip(together.field.parameters(), in_turn.field.parameters()):
        assert torch.equal(ours, theirs)


def test_an_error_of_a_vlm_that_works_beside_is_not_lost():
    def reward(images, prompt):
        raise ZeroDivisionError("of the VLM")

    with pytest.raises(ZeroDivisionError, match="of the VLM"):
        build_vlm3d(tiny(), RandomDenoiser(), reward, concurrent=True).step()


def test_the_reward_climbs_when_it_teaches_and_the_report_says_so():
    config = tiny(
        steps=40,
        vlm__weighting__weight=Schedule.constant(1e6),
        vlm__weighting__max_grad_ratio=20.0,
        camera__background="white",
    )
    model = build_vlm3d(config, RandomDenoiser(), redness)
    reports = [model.step() for _ in range(40)]
    assert reports[-1].metrics["vlm/reward"] > reports[0].metrics["vlm/reward"] + 0.3
    last = reports[-1]
    assert last.metrics["vlm/prob_yes"] == pytest.approx(
        torch.tensor(last.metrics["vlm/reward"]).sigmoid().item()
    )
    assert [r.step for r in reports] == list(range(40))


def test_the_vlm_is_asked_every_k_steps_and_never_without_one():
    asked = []

    def reward(images, prompt):
        asked.append(prompt)
        assert images.shape == (1, 4, 3, 16, 16)
        assert images.min() >= 0
        assert images.max() <= 1
        return redness(images, prompt)

    model = build_vlm3d(tiny(vlm__weighting__interval=3), RandomDenoiser(), reward)
    reports = [model.step() for _ in range(7)]
    assert ["vlm/reward" in r.metrics for r in reports] == [
        True,
        False,
        False,
        True,
        False,
        False,
        True,
    ]
    assert asked == ["a red cube"] * 3
    alone = build_vlm3d(tiny(), RandomDenoiser()).step()
    assert "vlm/reward" not in alone.metrics
    assert "vlm/weight" not in alone.metrics


@pytest.mark.parametrize("culprit", ["vlm", "sds"])
def test_a_gradient_that_is_not_finite_stops_before_anything_moves(culprit):
    def broken(images, prompt):
        return redness(images, prompt) * (torch.nan if culprit == "vlm" else 1.0)

    model = build_vlm3d(tiny(), RandomDenoiser(), broken)
    if culprit == "sds":
        model.guidances.terms[0].guidance = lambda images, *rest: GuidanceOutput(
            torch.tensor(1.0), torch.full_like(images, torch.inf)
        )
    before = copy.deepcopy(dict(model.field.named_parameters()))
    with pytest.raises(
        DivergenceError, match=f"step 0: the gradient of the guidance '{culprit}' is not"
    ):
        model.step()
    for name, value in model.field.named_parameters():
        assert torch.equal(value, before[name])


def test_an_empty_field_is_named():
    model = build_vlm3d(tiny(), RandomDenoiser())
    with torch.no_grad():
        model.field.representation.levels[0][:, 0] = -50
    model.field.occupancy.peak.zero_()
    with pytest.raises(DivergenceError, match="the field became empty"):
        model.step()


def test_state_brings_another_model_to_the_same_future():
    config = tiny(field__orientation_weight=Schedule.constant(0.1))
    one = build_vlm3d(config, RandomDenoiser(), redness)
    for _ in range(4):
        one.step()
    two = build_vlm3d(config, RandomDenoiser(), redness)
    two.load_state(one.state())
    for _ in range(5):
        assert one.step() == two.step()
    ours, theirs = one.state(), two.state()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_the_learning_rate_follows_its_schedule():
    rate = Schedule(((0.0, 0.05), (0.5, 0.05), (0.5, 0.0)))
    model = build_vlm3d(tiny(steps=4, optimizer__learning_rate=rate), RandomDenoiser())
    moved = []
    for _ in range(4):
        before = model.field.representation.levels[0].detach().clone()
        model.step()
        moved.append((model.field.representation.levels[0] - before).abs().max().item())
    # Adam's first steps are as long as the rate
    assert moved[0] == pytest.approx(0.05, rel=1e-3)
    assert moved[2:] == [0.0, 0.0]


def test_weight_decay_is_adamw_s():
    rate, decay = 0.05, 0.2
    settings = {"optimizer.learning_rate": Schedule.constant(rate), "field.occupancy.interval": 100}
    after = []
    for config in (tiny(**settings), tiny(optimizer__weight_decay=decay, **settings)):
        model = build_vlm3d(config, RandomDenoiser())
        with torch.no_grad():
            model.field.representation.levels[1].fill_(2.0)
        model.step()
        after.append(model.field.representation.levels[1].detach())
    # the same gradient moves both, and decay takes its share before
    assert_close(after[0] - after[1], torch.full_like(after[0], rate * decay * 2.0))


def test_seeds_differ():
    first = build_vlm3d(tiny(seed=1), RandomDenoiser()).step()
    assert first == build_vlm3d(tiny(seed=1), RandomDenoiser()).step()
    assert (
        first.metrics["sds/loss"]
        != build_vlm3d(tiny(seed=2), RandomDenoiser()).step().metrics["sds/loss"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "received steps=0; expected a whole number >= 1"),
        ({"prompt": "  "}, "expected some text"),
        ({"camera.background": "black"}, r"expected one of .*'black-or-white', 'white'\)"),
        ({"seed": -1}, "received seed=-1"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        tiny(**change)


def test_the_whole_loop_makes_the_solids_from_32_pixel_latents():
    """Field, sampler, renderer, teachers and optimizer together recover a known scene."""
    fov, scale = OracleDenoiser.fov_deg, OracleDenoiser.scale
    config = tiny(
        steps=60,
        camera__resolution=40,
        field__resolutions=(8, 16, 32),
        field__occupancy__resolution=32,
        field__rays__samples_per_ray=24,
        camera__fov_deg=(fov, fov),
        camera__object_radius=(scale, scale),
        camera__background="white",
        vlm=None,
    )
    model = build_vlm3d(config, OracleDenoiser(20))
    psnr = [fidelity(model)]
    for _ in range(config.steps):
        model.step()
    psnr.append(fidelity(model))
    assert psnr[0] < 15
    assert psnr[1] > 22


@torch.no_grad()
def fidelity(model: VLM3D) -> float:
    """PSNR in dB from views between the training views' elevations."""
    cameras = evaluation_cameras(model.config.camera, 4)
    seen = render(
        model.field.representation.bake(), model.field.occupancy, cameras, 40, 40, n_samples=64
    )
    error = (seen.rgb - cast(cameras, 40, torch.ones(4, 3))).square().mean()
    return -10 * error.log10().item()
