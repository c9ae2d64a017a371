"""The presets at paper scale: their tables, and runs with small random backbones."""

import math

import ldm_reference as ldm
import pytest
import torch
from stub_models import AttentiveDenoiser, RandomDenoiser, build_vlm3d, random_vlm, redness, tiny
from tiny_latent_models import build, checkpoint, randomized, stable, tokenizer
from torch.testing import assert_close

from vlmreward import YesNoReward
from vlmreward.rewards.questions import NAMED_QUESTIONS, QuestionTemplate
from vlmreward_3d import presets
from vlmreward_3d.cameras import Cameras, sample_groups
from vlmreward_3d.cli import parse
from vlmreward_3d.cli.settings import configuration
from vlmreward_3d.config import DENSIFICATIONS
from vlmreward_3d.fields.factory import build_field
from vlmreward_3d.guidance import loading as load
from vlmreward_3d.guidance.diffusion.mvdream import MVDream
from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion
from vlmreward_3d.guidance.diffusion.stable_diffusion import StableDiffusion
from vlmreward_3d.rendering.occupancy import OccupancyGrid
from vlmreward_3d.rendering.volume import render_rays
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.vlm3d import VLM3D

OF_SINGLE_VIEWS = ("dreamfusion", "prolificdreamer")
OF_LATENTS = ("sjc", "latent_nerf")
SMALL = {
    "steps": 4,
    "camera.resolution": Schedule.constant(16),
    "field.resolutions": (4, 8),
    "field.occupancy.resolution": 8,
    "field.rays.samples_per_ray": 6,
    "field.rays.rays_per_chunk": 500,
}


def evaluated(model, images):
    """The output of the model's second guidance."""
    cameras = Cameras.turntable(len(images))
    generator = model.generator
    return model.guidances(images, cameras, step=0, progress=0.0, generator=generator).outputs[1]


def at(config, step):
    """The numbers of a step that are in the table of the documentation."""
    p = step / config.steps
    camera, sds, vlm = config.camera, config.score_distillation, config.vlm.weighting
    shading = config.field.shading
    return (
        camera.n_groups(p) * camera.views_per_group,
        camera.resolution(p),
        round(vlm.weight(p), 6),
        round(sds.t_min(p), 6),
        round(sds.t_max(p), 6),
        round(config.field.orientation_weight(p), 6),
        p < vlm.stop_at,
        shading is not None and p >= shading.start,
    )


@pytest.mark.parametrize(
    ("preset", "rows"),
    [
        (
            "paper",
            {
                0: (8, 64, 300.0, 0.0, 1.0, 10.0, True, False),
                2500: (8, 64, 225.25, 0.0, 1.0, 505.0, True, False),
                5000: (8, 256, 150.5, 0.0, 1.0, 1000.0, True, False),
                10000: (8, 256, 1.0, 0.0, 1.0, 1000.0, True, False),
                14999: (8, 256, 1.0, 0.0, 1.0, 1000.0, True, False),
            },
        ),
        (
            "release",
            {
                0: (8, 64, 300.0, 0.98, 0.98, 10.0, True, False),
                4000: (8, 64, 180.4, 0.5, 0.74, 802.0, True, False),
                5000: (4, 256, 150.5, 0.38, 0.68, 1000.0, True, True),
                8000: (4, 256, 60.8, 0.02, 0.5, 1000.0, True, True),
                10000: (4, 256, 1.0, 0.02, 0.5, 1000.0, False, True),
            },
        ),
        (
            "mvdream",
            {
                0: (8, 64, 1.0, 0.98, 0.98, 10.0, True, False),
                4999: (8, 64, 1.0, 0.38012, 0.68006, 999.802, True, False),
                5000: (4, 256, 1.0, 0.38, 0.68, 1000.0, True, True),
                8000: (4, 256, 1.0, 0.02, 0.5, 1000.0, True, True),
            },
        ),
        (
            "mvadapter",
            {
                0: (6, 64, 1.0, 0.98, 0.98, 10.0, True, False),
                5000: (6, 256, 1.0, 0.38, 0.68, 1000.0, True, True),
                8000: (6, 256, 1.0, 0.02, 0.5, 1000.0, True, True),
            },
        ),
        (
            "dreamfusion",
            {
                0: (1, 64, 1.0, 0.02, 0.98, 10.0, True, False),
                2000: (1, 64, 1.0, 0.02, 0.98, 406.0, True, False),
                2001: (1, 64, 1.0, 0.02, 0.98, 406.198, True, True),
                5000: (1, 64, 1.0, 0.02, 0.98, 1000.0, True, True),
            },
        ),
        ("prolificdreamer", {0: (1, 256, 1.0, 0.02, 0.98, 0.0, True, False)}),
        (
            "dreamdpo",
            {
                0: (4, 64, 1.0, 0.98, 0.98, 10.0, False, False),
                5000: (4, 256, 1.0, 0.38, 0.68, 1000.0, False, False),
                8000: (4, 256, 1.0, 0.02, 0.5, 1000.0, False, False),
            },
        ),
        (
            "rewardsds",
            {
                0: (8, 64, 1.0, 0.98, 0.98, 10.0, False, False),
                5000: (4, 256, 1.0, 0.38, 0.68, 1000.0, False, True),
                8000: (4, 256, 1.0, 0.02, 0.5, 1000.0, False, True),
            },
        ),
    ],
)
def test_tables_of_the_documentation(preset, rows):
    config = presets.PRESETS[preset]("a cat", vlm="some")
    assert {step: at(config, step) for step in rows} == rows


@pytest.mark.parametrize(
    ("preset", "side"),
    [
        *((preset, 256) for preset in ("paper", "release", "mvdream", *OF_SINGLE_VIEWS)),
        ("blocks", 20),
    ],
)
def test_the_vlm_is_shown_256_pixels_whatever_is_rendered(preset, side):
    shapes = []

    def reward(images, prompt):
        shapes.append(tuple(images.shape[3:]))
        return redness(images, prompt)

    small = {**SMALL, "camera.resolution": Schedule.constant(20)}
    config = presets.PRESETS[preset]("a red cube", vlm="some").replace(small)
    model = build_vlm3d(config, AttentiveDenoiser(), reward)
    pixels = torch.rand(4, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    assert evaluated(model, pixels).gradient.shape == pixels.shape
    assert shapes == [(side, side)]


def test_one_timestep_for_all_views_and_the_elevations_of_the_sources():
    for preset in (presets.paper, presets.release, presets.mvdream):
        config = preset("a cat")
        assert config.score_distillation.shared_timestep
        camera = config.camera
        assert (camera.elevation_deg, camera.elevations) == ((0.0, 30.0), "mvdream")
    blocks = presets.blocks("a cat")
    assert not blocks.score_distillation.shared_timestep
    assert blocks.camera.elevations == "uniform"


def test_steps_of_the_presets_have_one_timestep_and_low_elevations_in_half_of_them():
    class Recorder(RandomDenoiser):
        def predict_noise(self, noisy, t, text, cameras):
            seen.append((set(t.tolist()), cameras.view(-1, 4, 4)[:, 2, 3]))
            return super().predict_noise(noisy, t, text, cameras)

    seen = []
    config = presets.release("a red cube", vlm=None)
    small = {**SMALL, "steps": 10_000, "field.rays.rays_per_chunk": None}
    small["camera.resolution"] = Schedule.constant(8)
    model = build_vlm3d(config.replace(small), Recorder())
    model.step_index = 2400  # with noise levels to choose from
    for _ in range(30):
        model.step()
    assert all(len(times) == 1 for times, _ in seen)
    assert len({time for times, _ in seen for time in times}) > 10
    # heights of cameras at unit distance: the sine is below 1/3 in half of the steps
    high = [bool((heights > 1 / 3).any()) for _, heights in seen]
    assert 2 < sum(high) < 22


def test_the_paper_s_other_numbers():
    config = presets.paper("a cat")
    sds, regularizers = config.score_distillation, config.regularizers
    assert (config.steps, sds.guidance_scale, sds.rule) == (15_000, 50.0, "sds")
    assert regularizers.entropy_weight(0.5) == regularizers.sparsity_weight(0.5) == 0
    assert config.vlm.question == "paper/selected"
    assert sds.negative_prompt == ""
    assert presets.paper("a cat", vlm_weight_start=800).vlm.weighting.weight == Schedule.ramp(
        800, 1, until=2 / 3
    )
    assert presets.paper("a cat", vlm=None).vlm is None


def soft_ball(points):
    """The initial density of MVDream's and the authors' configurations."""
    return torch.nn.functional.softplus(10 * (1 - points.norm(dim=-1) / 0.5))


@pytest.mark.parametrize("preset", ["paper", "release", "mvdream", *OF_SINGLE_VIEWS])
@pytest.mark.parametrize("kind", ["dense_grid", "hash_grid"])
def test_the_initial_density_at_scale_is_that_of_the_sources(preset, kind):
    config = presets.PRESETS[preset]("a cat", field=kind)
    if kind == "hash_grid":
        config = config.replace({"field.table_size": 2**12})
    field = build_field(config.field, torch.Generator().manual_seed(0))
    axis = torch.linspace(-1, 1, 128)[::9]
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
    density = field.representation.bake().density(points)
    # the hash field's network adds what tables within 1e-4 give, and lattices miss the tip
    assert_close(density, soft_ball(points), atol=2e-3, rtol=2e-3)
    assert 9 < density.max() < 10


def rays_seen_by_marching(density, cameras, side):
    """Rays with a sample left in threestudio's renderer: 512 steps a diagonal of the box, samples
    that take less than 0.01 of the light, or than the mean of nerfacc's grid, dropped."""
    step = 1.732 * 2 / 512
    axis = (torch.arange(32) + 0.5) / 16 - 1
    cells = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    cells = density(cells.view(-1, 3)).view(32, 32, 32) * step
    least = min(0.01, cells.mean().item())
    origins, directions = (x.reshape(-1, 3) for x in cameras.rays(side, side))
    first = (origins.norm(dim=1) - 3**0.5).clamp_min(0)
    points = (
        origins[:, None]
        + directions[:, None] * (first[:, None] + step * torch.arange(520))[..., None]
    )
    index = ((points + 1) * 16).long().clamp(0, 31)
    occupied = cells[index.unbind(-1)] > least
    alpha = 1 - torch.exp(-density(points.view(-1, 3)).view(occupied.shape) * step)
    inside = (points.abs() < 1).all(dim=-1)
    return int((inside & occupied & (alpha >= least)).any(dim=1).sum())


@pytest.mark.parametrize("density_scale", [1.0, 20.0])
def test_as_many_rays_are_visible_as_in_the_sources(density_scale):
    """The occupancy threshold is the mean in a thin field and 0.01 in a solid one."""
    config = presets.paper("a cat").replace({"field.density_scale": density_scale})
    field = build_field(config.field)
    generator = torch.Generator().manual_seed(0)
    grid = OccupancyGrid(config.field.occupancy.resolution)
    baked = field.representation.bake()
    grid.update(baked.density, generator)
    cameras = sample_groups(
        2,
        4,
        fov_deg=config.camera.fov_deg,
        elevation_deg=config.camera.elevation_deg,
        object_radius=config.camera.object_radius,
        generator=generator,
    )
    origins, directions = (x.reshape(-1, 3) for x in cameras.rays(16, 16))
    with torch.no_grad():
        rays = render_rays(
            baked,
            grid,
            origins,
            directions,
            n_samples=config.field.rays.samples_per_ray,
            background=torch.ones(3),
            generator=generator,
        )
        expected = rays_seen_by_marching(baked.density, cameras, 16)
    assert 500 < expected < 1000
    assert abs(int(rays.visible.any(dim=1).sum()) - expected) < 0.03 * expected


def test_the_optimizer_and_the_hash_tables_of_the_sources():
    decays = {
        "paper": 0,
        "release": 0.01,
        "mvdream": 0.01,
        "dreamfusion": 0,
        "prolificdreamer": 0.01,
        "dreamdpo": 0.01,
        "rewardsds": 0.01,
    }
    for preset, decay in decays.items():
        config = presets.PRESETS[preset]("a cat", field="hash_grid")
        adam, field = config.optimizer, config.field
        assert adam.weight_decay == decay
        assert (adam.betas, adam.eps) == ((0.9, 0.99), 1e-15)
        # 16 levels that grow by 1.447 each
        coarsest, finest = field.resolution_range
        assert (finest / coarsest) ** (1 / (field.levels - 1)) == pytest.approx(1.447269237)


def test_the_question_of_the_release_ends_its_lines_as_there():
    ours, text = presets.release("a cat"), "paper/selected"
    lines = ours.vlm.question.split("\n")
    assert [line.endswith(" ") for line in lines] == [True, True, True, False]
    assert [line.rstrip() for line in lines] == NAMED_QUESTIONS[text].split("\n")
    assert (ours.vlm.pixel_mode, presets.paper("a cat").vlm.pixel_mode) == ("float", "clamp")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A single file of MVDream, a folder of Stable Diffusion, and a folder of a VLM: all small."""
    root = tmp_path_factory.mktemp("models")
    sizes = {"channels": 32, "mult": (1, 2), "blocks": 1, "context": 24, "head_channels": 8}
    words = len(tokenizer())
    whole = checkpoint(
        randomized(ldm.MVDreamUNet(**sizes)),
        randomized(ldm.Autoencoder((32, 32), blocks=1)),
        randomized(ldm.OpenClipText(words, 24, layers=2, heads=3, length=12)),
    )
    torch.save(whole, root / "small.pt")
    build(root / "small.pt").save_pretrained(root / "mvdream")
    stable().save_pretrained(root / "sd")
    for part in random_vlm():
        part.save_pretrained(root / "vlm")
    return root


def test_a_name_tells_which_denoiser_it_is(sources, tmp_path):
    assert type(load.load_denoiser(str(sources / "mvdream"))) is MVDream
    assert type(load.load_denoiser(str(sources / "sd"))) is StableDiffusion
    assert type(load.load_denoiser("builtin/blocks")) is PixelDiffusion
    PixelDiffusion.from_pretrained("builtin/blocks").save_pretrained(tmp_path / "blocks")
    assert type(load.load_denoiser(str(tmp_path / "blocks"))) is PixelDiffusion
    with pytest.raises(OSError, match="cannot load the denoiser 'no/such-model'"):
        load.load_denoiser("no/such-model")
    with pytest.raises(FileNotFoundError, match=r"there is no file none\.pt"):
        load.load_denoiser("none.pt")


VLMS = {
    "qwen2.5-vl": "qwen2_5_vl",
    "qwen3-vl": "qwen3_vl",
    "paligemma": "paligemma2",
    "idefics": "idefics",
    "idefics2": "idefics2",
    "smolvlm": "smolvlm",
}


@pytest.mark.parametrize("name", presets.VLMS)
def test_every_vlm_with_a_short_name_teaches(name, sources, tmp_path, monkeypatch):
    for part in random_vlm(VLMS[name]):
        part.save_pretrained(tmp_path)
    monkeypatch.setitem(presets.VLMS, name, str(tmp_path))
    words = ["a red cube", "--preset", "paper", "--denoiser", str(sources / "mvdream")]
    config = configuration(parse([*words, "--vlm", name])).replace(SMALL)
    report = VLM3D(config, load.load_guidances(config)).step()
    assert report.metrics["vlm/grad_norm"] > 0


FLAGS = {
    "selected": [],
    "A": ["--question", "A"],
    "B": ["--question", "B"],
    "yes-no": ["--question", "yes-no"],
    "no geometry question": ["--no-geometry-question"],
    "separate questions": ["--separate-questions"],
    "single view": ["--single-view"],
    "no VLM": ["--no-vlm"],
    "precision": ["--denoiser-precision", "autocast"],
    "best of noises": ["--noise-candidates", "2", "--separate-questions"],
    "transformations": ["--vlm-transformations", "2", "--vlm-max-grad-ratio", "4"],
    "view-by-view": ["--vlm-views-per-question", "1"],
    "log-probability": ["--vlm-objective", "log-probability", "--vlm-weight", "30"],
}


@pytest.mark.parametrize("preset", ["paper", "release", "mvdream", *OF_SINGLE_VIEWS, *OF_LATENTS])
def test_presets_run_with_small_random_backbones(preset, sources):
    single = preset in (*OF_SINGLE_VIEWS, *OF_LATENTS)
    denoiser = str(sources / ("sd" if single else "mvdream"))
    config = presets.PRESETS[preset]("a red cube", denoiser=denoiser, vlm=str(sources / "vlm"))
    later = [(at, 24) for at in config.camera.resolution.jumps]
    config = config.replace({**SMALL, "camera.resolution": Schedule.steps(16, *later)})
    model = VLM3D(config, load.load_guidances(config))
    before = [level.detach().clone() for level in model.field.representation.levels]
    reports = [model.step() for _ in range(config.steps)]
    assert all((a != b).any() for a, b in zip(before, model.field.representation.levels))
    asked = ["vlm/reward" in report.metrics for report in reports]
    assert asked == [i / config.steps < config.vlm.weighting.stop_at for i in range(config.steps)]


def test_prolificdreamer_is_its_first_stage_as_threestudio_has_it():
    config = presets.prolificdreamer("a cat")
    sds = config.score_distillation
    assert (config.steps, sds.rule, sds.guidance_scale) == (25_000, "vsd", 7.5)
    assert (sds.student.learning_rate, sds.student.camera_dropout) == (1e-4, 0.1)
    assert sds.view_prompts
    assert config.regularizers.sparsity_weight(0.5) == 10
    assert config.vlm is None


def test_dreamgaussian_is_its_first_stage(sources):
    config = presets.dreamgaussian("a cat")
    assert (config.steps, config.field.n_gaussians) == (500, 5000)
    assert config.field.densification == DENSIFICATIONS["dreamgaussian"]
    camera, sds = config.camera, config.score_distillation
    assert [camera.resolution(p) for p in (0, 0.29, 0.3, 0.6)] == [128, 128, 256, 512]
    (radius, _), (fov, _) = camera.object_radius, camera.fov_deg
    assert radius / math.tan(math.radians(fov / 2)) == pytest.approx(2.5, abs=1e-3)
    assert (sds.rule, sds.guidance_scale, sds.view_prompts) == ("sds", 100, True)
    for step in range(500):  # its timestep is 1,000 times what is left, within 20 and 980
        left = min(0.98, max(0.02, 1 - step / 500))
        assert sds.t_min(step / 500) == sds.t_max(step / 500) == pytest.approx(left)
    small = {"steps": 60, "camera.resolution": Schedule.constant(16), "field.n_gaussians": 20}
    config = presets.dreamgaussian("a cat", denoiser=str(sources / "sd")).replace(small)
    model = VLM3D(config, load.load_guidances(config))
    counts = [model.step().metrics["field/n_gaussians"] for _ in range(51)]
    assert set(counts[:49]) == {20}
    assert counts[50] != 20
    grid = presets.dreamgaussian("a cat", field="dense_grid")
    assert grid.field == presets.dreamfusion("a cat").field


def test_backgrounds_are_black_or_white():
    config = tiny(camera__background="black-or-white", camera__n_groups=Schedule.constant(40))
    colors = build_vlm3d(config, RandomDenoiser(), redness)._background(40)
    levels = colors.view(40, -1, 3)
    assert (levels == levels[:, :1, :1]).all()
    assert set(levels.unique().tolist()) == {0.0, 1.0}


def test_presets_that_rank_noises_are_as_their_authors_have_them():
    preference, min_max = (
        preset("a cat").score_distillation for preset in (presets.dreamdpo, presets.rewardsds)
    )
    assert (preference.rule, preference.guidance_scale) == ("sds", 7.5)
    assert (preference.selection.n_candidates, preference.selection.ranking) == (2, "preference")
    assert (preference.selection.stop_at, preference.selection.margin) == (1.0, 0.0)
    assert (min_max.rule, min_max.guidance_scale, min_max.guidance_rescale) == ("x0", 50, 0.5)
    assert (min_max.selection.n_candidates, min_max.selection.ranking) == (7, "min-max")
    assert min_max.selection.stop_at == 0.7


@pytest.mark.parametrize("name", ["dreamdpo", "rewardsds"])
def test_a_ranking_needs_the_vlm_and_not_its_gradient(name, sources):
    preset = presets.PRESETS[name]
    config = preset("a red cube", denoiser=str(sources / "mvdream"), vlm=str(sources / "vlm"))
    model = VLM3D(config.replace(SMALL), load.load_guidances(config.replace(SMALL)))
    metrics = [model.step().metrics for _ in range(4)]
    for step in metrics:
        assert "vlm/reward" not in step
        assert step["sds/grad_norm"] > 0
    ranked = ["sds/selection_gain" in step for step in metrics]
    assert ranked == [i / 4 < config.score_distillation.selection.stop_at for i in range(4)]
    alone = preset("a red cube", vlm=None)
    assert alone.vlm is None
    assert alone.score_distillation.selection is None


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_flags_run_with_small_random_backbones(flags, sources):
    words = ["a red cube", "--preset", "paper", "--denoiser", str(sources / "mvdream")]
    vlm = [] if "--no-vlm" in flags else ["--vlm", str(sources / "vlm")]
    options = parse([*words, *vlm, *flags])
    config = configuration(options).replace({**SMALL, "steps": 2})
    guidances = load.load_guidances(config)
    assert (guidances[0].guidance.denoiser.autocast == torch.bfloat16) == ("autocast" in flags)
    report = VLM3D(config, guidances).step()
    assert ("vlm/reward" not in report.metrics) == ("--no-vlm" in flags)
    if "--question" in flags:
        name = "yes-no" if "yes-no" in flags else f"paper/{flags[1]}"
        assert guidances[1].guidance.reward.question == QuestionTemplate(NAMED_QUESTIONS[name])
    if "--separate-questions" in flags:
        single = YesNoReward(
            sources / "vlm", question="paper/content", pixel_mode=config.vlm.pixel_mode
        )
        views = torch.rand(1, 2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
        each = [single, single.ask("paper/geometry")]
        reward = guidances[1].guidance.reward
        expected = (each[0](views, prompt="a cat") + each[1](views)) / 2
        assert_close(reward(views, prompt="a cat"), expected)


def test_the_single_view_alone_gets_the_reward_s_gradient():
    config = tiny(camera__n_groups=2, vlm__weighting__n_views=1)
    seen = []

    def reward(images, prompt):
        seen.append(images.shape[:2])
        return redness(images, prompt)

    model = build_vlm3d(config, RandomDenoiser(), reward)
    pixels = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    chosen = set()
    for _ in range(12):
        verdict = evaluated(model, pixels)
        (index,) = verdict.gradient.abs().amax((1, 2, 3)).nonzero()[:, 0].tolist()
        assert_close(verdict.value, redness(pixels[None, [index]], config.prompt)[0])
        chosen.add(index)
    assert set(seen) == {(1, 1)}
    assert len(chosen) > 3


def test_shading_is_drawn_in_its_shares():
    config = tiny(
        field__shading=(0.25, 0.375, 0.375), field__orientation_weight=Schedule.constant(1.0)
    )
    model = build_vlm3d(config, RandomDenoiser(), redness)
    from vlmreward_3d.rendering.base import FieldSamples

    generator = torch.Generator().manual_seed(0)
    points = torch.randn(50, 3, generator=generator)
    normals = torch.nn.functional.normalize(torch.randn(50, 3, generator=generator), dim=-1)
    field = FieldSamples(torch.ones(50), torch.rand(50, 3, generator=generator), normals)
    kinds = {"albedo": 0, "textureless": 0, "diffuse": 0}
    for _ in range(400):
        shader = model.field.sample_shader(Cameras.turntable(4), 4, 0.0, model.generator)
        colors = shader(field, points, torch.arange(50) % 4)
        if torch.equal(colors, field.rgb):
            kinds["albedo"] += 1
            continue
        assert colors.min() >= 0
        assert colors.max() <= 1
        gray = (colors - colors[:, :1]).abs().max() == 0
        kinds["textureless" if gray else "diffuse"] += 1
    assert abs(kinds["albedo"] - 100) < 35
    assert abs(kinds["textureless"] - 150) < 40
    assert model.step().step == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"field.shading": (0.5, 0.5, 0.5)}, "three probabilities that add up to 1"),
        ({"optimizer.weight_decay": -0.1}, r"expected a number in \[0, 1\)"),
        ({"camera.elevations": "sphere"}, r"received elevations='sphere'; expected one of"),
        ({"camera.elevation_deg": (30.0, 0.0)}, "-90 <= lowest <= highest <= 90"),
        ({"camera.elevation_deg": (0.0, 120.0)}, "-90 <= lowest <= highest <= 90"),
        ({"field.rays.rays_per_chunk": 0}, "None or a whole number >= 1"),
        ({"score_distillation.precision": "half"}, r"None or one of \('float32', 'autocast', "),
        ({"vlm.weighting.n_views": 0}, "None or a whole number >= 1"),
        ({"vlm.objective": "odds"}, r"expected one of \('log-odds', 'log-probability'\)"),
        ({"score_distillation.student.rank": 0}, "expected a whole number >= 1"),
        ({"score_distillation.student.learning_rate": 0.0}, "expected a finite number > 0"),
        ({"score_distillation.student.camera_dropout": 2}, r"expected a number in \[0, 1\]"),
        ({"vlm.views_per_question": 0}, "None or a whole number >= 1"),
        ({"vlm.views_per_question": 3}, r"a divisor of the numbers of views .*, \[4\]"),
        (
            {"vlm.views_per_question": 2, "vlm.weighting.n_views": 1},
            r"received views_per_question=2; expected None or a divisor .*, \[1\]",
        ),
        ({"camera.n_groups": Schedule.steps(1, (0.5, 0))}, "steps between whole numbers >= 1"),
        ({"camera.n_groups": Schedule.ramp(1, 2)}, "steps between whole numbers >= 1"),
        ({"camera.resolution": Schedule.constant(64.5)}, "steps between whole numbers >= 1"),
        ({"vlm.question": ()}, "a question or several"),
        *(
            ({"vlm.resolution": x}, r"received resolution=.*; expected None or .* \[8, 4096\]")
            for x in (0, -1, 4, 5000, 2.5, "256", True)
        ),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=message):
        tiny(**change)
