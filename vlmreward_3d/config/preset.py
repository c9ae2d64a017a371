"""Presets: configurations without a prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from vlmreward_3d.config.camera import CameraConfig
from vlmreward_3d.config.fields import FieldConfig
from vlmreward_3d.config.guidance import GuidanceConfig, ScoreDistillationConfig
from vlmreward_3d.config.optimization import OptimizerConfig, RecoveryConfig, RegularizerConfig
from vlmreward_3d.config.run import VLM3DConfig
from vlmreward_3d.config.vlm import VLMConfig
from vlmreward_3d.schedule import Schedule

__all__ = ["QWEN", "VLMS", "Preset"]

QWEN = "Qwen/Qwen2.5-VL-7B-Instruct"
VLMS = {
    "qwen2.5-vl": QWEN,
    "qwen3-vl": "Qwen/Qwen3-VL-8B-Instruct",
    "paligemma": "google/paligemma2-3b-mix-448",
    "idefics": "HuggingFaceM4/idefics-9b-instruct",
    "idefics2": "HuggingFaceM4/idefics2-8b",
    "smolvlm": "HuggingFaceTB/SmolVLM-Instruct",
}
"""Checkpoints on the hub, by their families' short names."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A configuration without a prompt; call it with one.

    Attributes:
        steps: Default length of the run.
        camera: Settings of the rendered views.
        fields: The field's settings by its kind, a key of `vlmreward_3d.config.FIELDS`; the first
            is the default.
        score_distillation: The first guidance.
        vlm: The second guidance.
        uses_vlm: True if the VLM is used by default.
        further_guidances: Guidances after the first two.
        optimizer: Optimizer of the field's parameters.
        regularizers: Losses on opacities.
        recovery: Detection of a failed run, and its retries.
    """

    steps: int
    camera: CameraConfig
    fields: Mapping[str, FieldConfig]
    score_distillation: ScoreDistillationConfig
    vlm: VLMConfig
    uses_vlm: bool = True
    further_guidances: tuple[GuidanceConfig, ...] = ()
    optimizer: OptimizerConfig
    regularizers: RegularizerConfig = dataclasses.field(default_factory=RegularizerConfig)
    recovery: RecoveryConfig = dataclasses.field(default_factory=RecoveryConfig)

    def __call__(
        self,
        prompt: str,
        *,
        steps: int | None = None,
        seed: int = 0,
        field: str | None = None,
        denoiser: str | None = None,
        vlm: str | None = "default",
        vlm_weight_start: float | None = None,
    ) -> VLM3DConfig:
        """The configuration of a run.

        Args:
            prompt: Text prompt that the images are to match.
            steps: Length of the run, to which all schedules are relative; None for the preset's.
            seed: Seed of all random numbers.
            field: Kind of field, a key of `fields`: "dense_grid", "hash_grid" (for detail) or
                "gaussians"; None for the first key.
            denoiser: File, folder or hub id of the denoiser; None for the preset's.
            vlm: Short name (a key of `VLMS`), folder or hub id of the VLM; "default" for the
                preset's; None for no VLM: score distillation alone, without a ranking of noises.
            vlm_weight_start: First level of the VLM's weight; None for the preset's.

        Raises:
            ValueError: A setting has the wrong type or is out of range.
        """
        if field is None:
            field = next(iter(self.fields))
        if field not in self.fields:
            raise ValueError(f"received field={field!r}; expected one of {tuple(self.fields)}")
        reward = self.vlm if self.uses_vlm and vlm is not None else None
        if vlm is not None and vlm != "default":
            reward = dataclasses.replace(self.vlm, model=VLMS.get(vlm, vlm))
        if reward is not None and vlm_weight_start is not None:
            reward = _with_first_weight(reward, vlm_weight_start)
        distillation = self.score_distillation
        if denoiser is not None:
            distillation = dataclasses.replace(distillation, denoiser=denoiser)
        if reward is None:
            distillation = dataclasses.replace(distillation, selection=None)
        return VLM3DConfig(
            prompt=prompt,
            seed=seed,
            steps=self.steps if steps is None else steps,
            camera=self.camera,
            field=self.fields[field],
            score_distillation=distillation,
            vlm=reward,
            further_guidances=self.further_guidances,
            optimizer=self.optimizer,
            regularizers=self.regularizers,
            recovery=self.recovery,
        )


def _with_first_weight(vlm: VLMConfig, start: float) -> VLMConfig:
    (at, _), *later = vlm.weighting.weight.points
    weighting = dataclasses.replace(vlm.weighting, weight=Schedule(((at, start), *later)))
    return dataclasses.replace(vlm, weighting=weighting)
