"""A guidance of one's own by its record in a configuration."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
from stub_models import tiny

from vlmreward_3d import VLM3D, presets
from vlmreward_3d.config import GuidanceConfig, VLM3DConfig, WeightingConfig
from vlmreward_3d.guidance import ImageRewardGuidance, load_guidance, load_guidances
from vlmreward_3d.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class BrightnessConfig(GuidanceConfig):
    kind: ClassVar[str] = "brightness"
    level: float = 0.5


@load_guidance.register
def _(config: BrightnessConfig, prompt, *, device="cpu"):
    def reward(images):
        return -(images - config.level).square().mean((1, 2, 3))

    return ImageRewardGuidance(reward, name="brightness")


def test_a_record_and_a_loader_are_enough():
    weighting = WeightingConfig(weight=Schedule.constant(10), interval=2)
    further = (BrightnessConfig(level=0.25, weighting=weighting),)
    config = presets.blocks("a red cube").replace({"further_guidances": further})
    assert VLM3DConfig.from_json(config.to_json()) == config
    model = VLM3D(config, load_guidances(config))
    reports = [model.step() for _ in range(2)]
    assert ["brightness/reward" in report.metrics for report in reports] == [True, False]
    assert reports[0].metrics["brightness/weight"] == 10
    assert reports[0].metrics["vlm/grad_norm"] > 0


def test_what_is_no_record_or_has_no_loader_is_refused():
    class NeverLoaded(GuidanceConfig):
        pass

    with pytest.raises(TypeError, match="NeverLoaded among the further guidances; expected a rec"):
        load_guidance(NeverLoaded(), "a cat")
    with pytest.raises(ValueError, match="expected a tuple of records of guidances"):
        tiny(further_guidances=("brightness",))
