"""Configurations in threestudio's layout, written for these tests, as configurations here."""

import dataclasses
import math
from pathlib import Path

import pytest
from torch.testing import assert_close

from vlmreward_3d import presets
from vlmreward_3d.config import HashGridConfig, VLM3DConfig
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.threestudio import import_threestudio

FOLDER = Path(__file__).parent
DREAMFUSION, MVDREAM, SJC, PROLIFIC = (
    (FOLDER / f"{name}.yaml").read_text()
    for name in ("dreamfusion", "mvdream", "sjc", "prolificdreamer")
)
ALL = {"dreamfusion": DREAMFUSION, "mvdream": MVDREAM, "sjc": SJC, "prolific": PROLIFIC}


def names(lines):
    return [line.partition(" = ")[0] for line in lines]


def test_dreamfusion():
    found = import_threestudio(DREAMFUSION, prompt="a red cube")
    ours = presets.dreamfusion("a red cube", seed=3, field="hash_grid", denoiser="some/diffusion")
    middle = math.tan(math.radians(27.5))
    expected = ours.replace(
        {
            "camera.elevation_deg": (-10.0, 90.0),
            "camera.object_radius": (round(1.5 * middle, 4), round(2 * middle, 4)),
            "field.bound": 2.0,
            "field.shading.start": 0.2001,
            "score_distillation.guidance_scale": 101.0,
            "score_distillation.shared_timestep": False,
            "score_distillation.guidance_rescale": 0.0,
        }
    )
    assert expected.differences(found.config.to_json()) == []
    assert found.left_out == tuple(
        f"system.geometry.pos_encoding_config.{name} = {value}"
        for name, value in (("start_level", 8), ("start_step", 2000), ("update_steps", 500))
    )
    assert names(found.changed) == [
        "system.guidance.guidance_scale",
        "data.camera_perturb",
        "data.center_perturb",
        "data.up_perturb",
        "data.camera_distance_range",
        "system.background_type",
        "system.renderer.num_samples_per_ray",
        "system.material.soft_shading",
        "system.optimizer.params.geometry.lr",
    ]


def test_mvdream_is_our_preset():
    found = import_threestudio(MVDREAM)
    ours = presets.mvdream("a red cube", field="hash_grid", vlm=None)
    expected = ours.replace({"score_distillation.negative_prompt": "ugly"})
    assert expected.differences(found.config.to_json()) == []
    assert found.left_out == ()
    assert names(found.changed) == ["system.background_type", "system.renderer.num_samples_per_ray"]


def test_sjc_is_our_preset_but_for_camera_and_denoiser():
    found = import_threestudio(SJC, prompt="a fish")
    radius = round(1.5 * math.tan(math.radians(27.5)), 4)
    expected = presets.sjc("a fish").replace(
        {
            "steps": found.config.steps,
            "camera": found.config.camera,
            "field.emptiness_weight": found.config.field.emptiness_weight,
            "field.occupancy.resolution": 64,
            "score_distillation.denoiser": found.config.score_distillation.denoiser,
            "score_distillation.guidance_scale": 101.0,
            "score_distillation.shared_timestep": False,
            "recovery.patience": found.config.steps // 10,
        }
    )
    assert expected.differences(found.config.to_json()) == []
    assert found.config.camera.object_radius == (radius, radius)
    weight = found.config.field.emptiness_weight
    share = 1 / found.config.steps
    assert [weight(step * share) for step in (0, 5000, 5001)] == [1e4, 1e4, 2e5]
    assert set(names(found.left_out)) == {
        "system.loss.center_ratio",
        "system.prompt_processor.view_dependent_prompt_front",
    }
    assert not {
        "system.optimizer.name",
        "system.material.n_output_dims",
        "system.geometry.density_bias",
        "system.geometry.grid_size",
    } & set(names(found.changed))


def test_parts_of_sjc_without_a_counterpart_are_said():
    changes = ["system.geometry.grid_size=[100, 100, 50]", "system.optimizer.args.weight_decay=0.1"]
    found = import_threestudio(SJC, prompt="a fish", overrides=changes)
    assert found.config.field.resolutions == (6, 12, 25, 50, 100)
    assert found.config.optimizer.weight_decay == 0
    changed = names(found.changed)
    assert "system.geometry.grid_size" in changed
    assert "system.optimizer.args.weight_decay" in changed


def test_prolificdreamer():
    found = import_threestudio(PROLIFIC)
    config = found.config
    assert isinstance(config.field, HashGridConfig)
    assert config.field.resolution_range == (16, 4096)
    assert config.prompt == "a pineapple"
    assert config.camera.resolution == Schedule.constant(256)
    distillation = config.score_distillation
    assert distillation.rule == "vsd"
    assert distillation.guidance_scale == 7.5
    assert [distillation.t_max(step / 25000) for step in (0, 4999, 5000)] == [0.98, 0.98, 0.5]
    assert distillation.student.learning_rate == 0.0002
    assert config.optimizer.weight_decay == 0.01
    assert config.optimizer.eps == 1e-15  # a text to YAML 1.1
    entropy = config.regularizers.entropy_weight
    assert [entropy(step / 25000) for step in (0, 10000, 10001)] == [0, 0, 1000]
    assert names(found.left_out) == [
        "system.prompt_processor.front_threshold",
        "system.prompt_processor.back_threshold",
    ]


@pytest.mark.parametrize("name", ALL)
def test_every_setting_is_taken_or_named(name):
    """A setting that nobody knows is named, wherever it stands."""
    overrides = ["data.wobble=2", "system.guidance.style=bold", "system.loss.lambda_style=3."]
    found = import_threestudio(ALL[name], prompt="x", overrides=overrides)
    plain = import_threestudio(ALL[name], prompt="x")
    assert found.config == plain.config
    assert set(found.left_out) - set(plain.left_out) == {
        "data.wobble = 2",
        "system.guidance.style = 'bold'",
        "system.loss.lambda_style = 3.0",
    }
    assert VLM3DConfig.from_json(found.config.to_json()) == found.config


def test_overrides_and_files(tmp_path):
    path = tmp_path / "mvdream.yaml"
    path.write_text(MVDREAM)
    changes = [
        "system.guidance.guidance_scale=20",
        "trainer.max_steps=4000",
        "system.prompt_processor.prompt=a chair",
        "data.resolution_milestones=[2000]",
    ]
    found = import_threestudio(path, overrides=changes)
    assert found.config.prompt == "a chair"
    assert found.config.score_distillation.guidance_scale == 20
    assert found.config.camera.n_groups == Schedule.steps(2, (0.5, 1))
    # a ramp of 8,000 steps in a run of 4,000 is cut off where the run ends
    assert_close(found.config.score_distillation.t_max(1.0), 0.74)
    assert "Without a counterpart:\n  nothing" in found.report()
    assert "  system.background_type = 'mvdream-neural" in found.report()


def test_perp_neg_and_weights_that_are_uniform():
    changes = [
        "system.prompt_processor.use_perp_neg=true",
        "system.guidance.weighting_strategy=uniform",
    ]
    config = import_threestudio(DREAMFUSION, prompt="a cat", overrides=changes).config
    assert config.score_distillation.perp_neg
    assert config.score_distillation.guidance_scale == 100  # which that branch counts from e_n
    assert config.score_distillation.rule == "sjc"  # w = 1


def test_our_own_guidance_of_threestudio():
    ours = [
        "system.guidance_type=vlm-reward-guidance",
        "system.guidance={n_views: 1, model: some/vlm, every: 2, base_type: "
        "stable-diffusion-guidance, base: {pretrained_model_name_or_path: some/diffusion, "
        "guidance_scale: 100.}}",
        "system.loss.lambda_vlm=[0, 300., 1., 10000]",
    ]
    found = import_threestudio(DREAMFUSION, prompt="a cat", overrides=ours)
    vlm = found.config.vlm
    assert vlm.model == "some/vlm"
    assert vlm.views_per_question == 1
    assert vlm.resolution == 256
    assert vlm.weighting.interval == 2
    assert vlm.weighting.weight == Schedule.ramp(300, 1)
    alone = import_threestudio(DREAMFUSION, prompt="a cat")
    assert found.left_out == alone.left_out
    assert dataclasses.replace(found.config, vlm=None) == alone.config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("system_type=zero123-system", "system_type='zero123-system', which has no counterpart"),
        ("system.stage=texture", "system.stage='texture'; expected 'coarse'"),
        ("system.refinement=true", "system.refinement=True; expected False"),
        ("system.geometry_type=tetrahedra-sdf-grid", "geometry_type='tetrahedra-sdf-grid', which"),
        ("system.guidance_type=deep-floyd-guidance", "guidance_type='deep-floyd-guidance', which"),
        ("data_type=co3d-datamodule", "data_type='co3d-datamodule', which"),
        ("trainer.max_steps=0", "trainer.max_steps=0; expected a whole number"),
        ("trainer.max_steps=${a.b}", "expected a reference to a setting of the file"),
        ("system.guidance.guidance_scale=big", "guidance_scale='big'; expected a number"),
        ("data.fovy_range=[40]", r"expected \[lowest, highest\]"),
        ("system.loss.lambda_orient=[0, 1., 2., 3.]", "with a whole number at the end"),
        ("data.height=[64, 256]", "with 0 milestones; expected a whole number"),
        ("data.fovy_range=[70, 40]", "fov_deg"),
        ("nothing", "expected name=value"),
        ("a={", "not YAML"),
    ],
)
def test_what_is_refused(override, said):
    with pytest.raises(ValueError, match=said):
        import_threestudio(DREAMFUSION, prompt="a cat", overrides=[override])


def test_files_that_are_something_else(tmp_path):
    with pytest.raises(ValueError, match=r"prompt='\?\?\?'; expected a prompt in the file or by"):
        import_threestudio(DREAMFUSION)
    with pytest.raises(ValueError, match="without a mapping 'system'"):
        import_threestudio("a: 1\nb: 2\n")
    with pytest.raises(ValueError, match="not YAML"):
        import_threestudio("a: [\n")
    with pytest.raises(OSError, match=r"none\.yaml"):
        import_threestudio(tmp_path / "none.yaml")
    batch = "data.batch_size=6"
    with pytest.raises(ValueError, match=r"multiples of data\.n_view=4"):
        import_threestudio(MVDREAM, overrides=[batch])
