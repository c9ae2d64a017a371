"""Configurations: frozen, nested, written as JSON and read again."""

import dataclasses
import json

import pytest
from stub_models import tiny

from vlmreward_3d import presets
from vlmreward_3d.config import FIELDS, ShadingConfig, VLM3DConfig, WeightingConfig
from vlmreward_3d.schedule import Schedule


@pytest.mark.parametrize(
    ("name", "field"),
    [(name, field) for name, preset in presets.PRESETS.items() for field in preset.fields],
)
def test_json_and_back(name, field):
    for vlm in ("default", "some/model", None):
        config = presets.PRESETS[name]("a cat", field=field, vlm=vlm)
        assert VLM3DConfig.from_json(config.to_json()) == config
        assert config.differences(config.to_json()) == []


def test_presets_have_every_kind_of_field_but_those_of_latents():
    kinds = {name: set(preset.fields) for name, preset in presets.PRESETS.items()}
    assert kinds.pop("sjc") == {"dense_grid"}
    assert kinds.pop("latent_nerf") == {"dense_grid", "hash_grid"}
    assert all(found == set(FIELDS) for found in kinds.values())
    with pytest.raises(ValueError, match=r"field='gaussians'; expected one of \('dense_grid',\)"):
        presets.sjc("a cat", field="gaussians")


def test_json_is_nested_and_names_the_kind_of_field():
    read = json.loads(tiny(field="hash_grid", vlm__question=("a?", "b?")).to_json())
    assert read["field"]["kind"] == "hash_grid"
    assert read["vlm"]["question"] == ["a?", "b?"]
    assert read["camera"]["n_groups"] == {"points": [[0.0, 1.0]]}
    assert read["vlm"]["weighting"]["interval"] == 1


def test_differences_have_dotted_names():
    config = tiny()
    other = config.replace({"seed": 3, "vlm.weighting.interval": 4, "field.shading": None})
    assert other.differences(config.to_json()) == ["seed: 0 -> 3", "vlm.weighting.interval: 1 -> 4"]
    alone = config.replace({"vlm": None})
    assert "vlm.model: 'stub' -> None" in alone.differences(config.to_json())
    gaussians = dataclasses.replace(config, field=tiny(field="gaussians").field)
    assert "field.kind: 'dense_grid' -> 'gaussians'" in gaussians.differences(config.to_json())


def test_replacing_leaves_the_first_as_it_was():
    config = tiny()
    before = config.to_json()
    shading = ShadingConfig(probabilities=(1, 0, 0))
    changed = config.replace({"field.shading": shading, "field.shading.start": 0.5})
    assert changed.field.shading == ShadingConfig(probabilities=(1, 0, 0), start=0.5)
    assert config.to_json() == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.camera.background = "white"


def test_a_replaced_setting_is_checked():
    with pytest.raises(ValueError, match=r"received interval=0; expected .*; change interval"):
        tiny().replace({"vlm.weighting.interval": 0})
    with pytest.raises(ValueError, match=r"setting 'camera\.rings'; expected one of camera\.n"):
        tiny().replace({"camera.rings": 2})


def test_the_first_weight_of_a_preset_can_be_another():
    config = presets.paper("a cat", vlm_weight_start=800)
    assert config.vlm.weighting == WeightingConfig(weight=Schedule.ramp(800, 1, until=2 / 3))
    assert presets.mvdream("a cat", vlm_weight_start=2).vlm is None


def test_names_of_vlms_and_denoisers_reach_the_configuration():
    config = presets.mvdream("a cat", vlm="paligemma", denoiser="my/denoiser")
    assert config.vlm.model == presets.VLMS["paligemma"]
    assert config.score_distillation.denoiser == "my/denoiser"
    assert presets.mvdream("a cat").vlm is None
    assert presets.paper("a cat", vlm="mine").vlm.model == "mine"
