"""The presets that render latents: their numbers, runs across stages, resumption and exports."""

import dataclasses
import functools
import itertools
import math

import imageio.v3 as iio
import pytest
import torch
from exported_meshes import read_mesh, srgb_colors
from stub_models import build_vlm3d, redness, shrink_exports, tiny
from tiny_latent_models import stable
from torch.testing import assert_close

from vlmreward_3d import presets
from vlmreward_3d.config import LatentRenderingConfig, OptimizerConfig, ShadingConfig, VLM3DConfig
from vlmreward_3d.export.mesh import marching_cubes
from vlmreward_3d.export.run_artifacts import export_all
from vlmreward_3d.fields import build_field
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vlmreward_3d.training.profiling import phases

SMALL = {
    "steps": 6,
    "camera.resolution": Schedule.constant(8),
    "field.resolutions": (4, 8),
    "field.rays.samples_per_ray": 6,
    "field.occupancy.resolution": 8,
}


@pytest.fixture(scope="module")
def denoiser():
    return stable()


def small(name, **changes):
    config = presets.PRESETS[name]("a red cube", vlm="stub").replace(SMALL)
    return config.replace({name.replace("__", "."): value for name, value in changes.items()})


def test_sjc_has_the_numbers_of_its_sources():
    config = presets.sjc("a cat")
    field, sds, adamax = config.field, config.score_distillation, config.optimizer
    assert (config.steps, sds.rule, sds.guidance_scale, sds.view_prompts) == (
        10_000,
        "sjc",
        100,
        True,
    )
    # timesteps 10 to 969 of 1,000, as in its authors' code
    assert (sds.t_min(0.3), sds.t_max(0.3)) == (0.01, 0.97)
    assert (field.resolutions, field.density_bias, field.blob_density) == ((100,), -1, 0)
    assert field.learned_gain
    assert field.latents == LatentRenderingConfig(refine_at=None)
    rows = {step: field.emptiness_weight(step / 10_000) for step in (0, 4999, 5000, 9999)}
    assert rows == {0: 1e4, 4999: 1e4, 5000: 2e5, 9999: 2e5}
    assert (field.emptiness_scale, field.orientation_weight(0.5)) == (10, 0)
    expected = OptimizerConfig(
        name="adamax", learning_rate=Schedule.constant(0.05), betas=(0.9, 0.999), eps=1e-8
    )
    assert adamax == expected
    camera = config.camera
    assert (camera.views_per_group, camera.resolution(0.5), camera.fov_deg) == (1, 64, (40, 70))
    assert config.vlm is None


def test_sjc_begins_as_haze_that_no_cell_is_without():
    config = presets.sjc("a cat").replace({"field.resolutions": (10,)})
    field = build_field(config.field, torch.Generator().manual_seed(0))
    points = torch.rand(20, 3) * 2 - 1
    density = field.representation.bake().density(points)
    assert_close(density, torch.full((20,), math.log1p(math.exp(-1))))
    with torch.no_grad():
        field.representation.levels[0][:, 0] = -20  # nearly nothing is still looked at
    field.update_occupancy()
    assert field.occupancy_fraction == 1


def rate_of_threestudio(step):
    """Learning rate of threestudio's two schedulers, which begin anew every 10,000 steps."""
    step %= 10_000
    if step <= 100:
        return 0.01 * (0.1 + 0.9 * step / 100)
    return 0.01 * 0.1 ** ((step - 100) / 9900)


def test_latent_nerf_has_the_numbers_of_threestudio():
    config = presets.latent_nerf("a cat")
    sds, field = config.score_distillation, config.field
    assert (config.steps, sds.rule, sds.guidance_scale) == (20_000, "sds", 100)
    assert (sds.t_min(0.7), sds.t_max(0.7), sds.view_prompts) == (0.02, 0.98, True)
    assert field.latents.refine_at == 0.5
    assert field.shading is None
    assert field.orientation_weight(0.3) == field.emptiness_weight(0.3) == 0
    assert config.regularizers.sparsity_weight(0.3) == 5e-4
    assert (config.optimizer.betas, config.optimizer.eps) == ((0.9, 0.99), 1e-15)
    assert config.optimizer.weight_decay == 0
    for step in range(0, 20_000, 7):
        expected = rate_of_threestudio(step)
        assert config.optimizer.learning_rate(step / 20_000) == pytest.approx(expected, rel=7e-3)
    assert [(phase.first, phase.steps) for phase in phases(config)] == [
        (0, 10_000),
        (10_000, 10_000),
    ]
    assert presets.latent_nerf("a cat", field="hash_grid").field.latents == field.latents


@pytest.mark.parametrize("name", ["sjc", "latent_nerf"])
def test_a_run_goes_on_bit_for_bit_from_any_step(name, denoiser, tmp_path):
    """The checkpoints are of steps before, at and after the switch to RGB."""
    config = small(name)
    model = build_vlm3d(config, denoiser, redness)
    reports, states = [], [model.state()]
    for _ in range(config.steps):
        reports.append(model.step())
        states.append(model.state())
    rendered = ["RGB is rendered" in "".join(report.events) for report in reports]
    assert rendered == [name == "latent_nerf" and step == 2 for step in range(6)]
    assert reports[0].metrics["vlm/grad_norm"] > 0
    for start in (2, 3, 4):
        file = tmp_path / "checkpoint.safetensors"
        save_checkpoint(file, Checkpoint(start, config.to_json(), states[start], ()))
        other = build_vlm3d(config, denoiser, redness)
        other.step()  # what was done before is forgotten
        other.load_state(load_checkpoint(file).state)
        assert [other.step() for _ in range(start, config.steps)] == reports[start:]
        after, expected = other.state(), states[-1]
        assert after.keys() == expected.keys()
        assert all(torch.equal(after[key], expected[key]) for key in after)


def test_the_decoder_is_trained_in_the_refinement_alone(denoiser):
    model = build_vlm3d(small("latent_nerf"), denoiser, redness)
    decoders = [model.field.representation.head.decoder.detach().clone()]
    for _ in range(6):
        model.step()
        decoders.append(model.field.representation.head.decoder.detach().clone())
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(decoders)]
    assert moved == [False] * 3 + [True] * 3


def test_what_a_run_of_latents_leaves_is_rgb(denoiser, monkeypatch, tmp_path):
    shrink_exports(monkeypatch)
    coarse = functools.partial(marching_cubes.carve, size=24, n_views=4)
    monkeypatch.setattr(marching_cubes, "carve", coarse)
    model = build_vlm3d(small("sjc", steps=2), denoiser, redness)
    with torch.no_grad():  # a solid, whose latents are large
        model.field.representation.levels[0][:, 0] += 8 - 4 * _radius(4)
        model.field.representation.levels[0][:, 1:] += torch.randn(4, 4, 4, 4) * 3
    reports = [model.step() for _ in range(2)]
    files = {file.name: file for file in export_all(tmp_path, model, reports)}
    assert iio.imread(files["views.png"]).shape == (32, 8 * 16, 3)
    colors = srgb_colors(files["mesh.glb"])
    assert colors.shape[1] >= 3
    assert 0 <= colors.min() < colors.max() <= 255
    assert len(read_mesh(files["mesh_textured.glb"]).faces) > 20
    assert files["report.html"].stat().st_size > 1000


def _radius(side):
    axis = torch.linspace(-1, 1, side)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return 4 * (x * x + y * y + z * z).sqrt()


def test_adamax_follows_its_definition(denoiser):
    """The first step moves every parameter with a gradient by the learning rate."""
    model = build_vlm3d(small("sjc"), denoiser, redness)
    before = [p.detach().clone() for p in model.field.parameters()]
    model.step()
    assert type(model.optimizer) is torch.optim.Adamax
    for old, new in zip(before, model.field.parameters()):
        moved = (new - old)[new.grad.abs() > 1e-4].abs()
        assert_close(moved, torch.full_like(moved, 0.05), rtol=1e-3, atol=0)
    assert len(before) == 3  # two levels and the gain


def test_hash_grids_of_latents_run_in_both_stages(denoiser):
    config = presets.latent_nerf("a red cube", field="hash_grid", vlm="stub")
    changes = {name: x for name, x in SMALL.items() if name != "field.resolutions"}
    changes |= {"field.levels": 2, "field.resolution_range": (4, 8), "field.table_size": 64}
    model = build_vlm3d(config.replace(changes), denoiser, redness)
    before = [p.detach().clone() for p in model.field.parameters()]
    for _ in range(6):
        model.step()
    assert all((a != b).any() for a, b in zip(before, model.field.parameters()))


def test_settings_of_latents_survive_json():
    for refine_at in (None, 0.25):
        config = tiny(field__latents=LatentRenderingConfig(refine_at=refine_at))
        assert VLM3DConfig.from_json(config.to_json()) == config
        assert config.field.renders_latents
        assert config.field.changes_at == (() if refine_at is None else (0.25,))
    assert not tiny().field.renders_latents
    assert not tiny(field="gaussians").field.renders_latents


@pytest.mark.parametrize("value", [0, 1, 1.5, -0.1, "0.5", True, float("nan")])
def test_a_refinement_begins_within_the_run(value):
    with pytest.raises(
        ValueError, match=r"received refine_at=.*; expected None or a number between"
    ):
        LatentRenderingConfig(refine_at=value)


def test_settings_that_do_not_go_together_are_refused():
    latents = LatentRenderingConfig(refine_at=0.5)
    shading = ShadingConfig(probabilities=(0.2, 0.4, 0.4))
    with pytest.raises(ValueError, match="expected None beside latents, which have no shading"):
        tiny(field__latents=latents, field__shading=shading)
    cached = {"vlm.weighting.cache_gradient": True}
    message = r"cache_gradient=True; expected False beside field\.latents\.refine_at, which changes"
    with pytest.raises(ValueError, match=message):
        tiny(field__latents=latents, **cached)
    assert tiny(field__latents=LatentRenderingConfig(), **cached).field.expires_gradients is None
    adamax = dataclasses.replace(tiny().optimizer, name="adamax")
    with pytest.raises(ValueError, match='expected 0 with name="adamax"; change weight_decay'):
        dataclasses.replace(adamax, weight_decay=0.01)
