"""The settings of a complete run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmreward_3d.config._checks import (
    COUNT,
    TEXT,
    Rule,
    are,
    check,
    instance_of,
    is_whole,
    or_none,
    require,
)
from vlmreward_3d.config.camera import CameraConfig
from vlmreward_3d.config.fields import FieldConfig, VolumeConfig
from vlmreward_3d.config.guidance import GuidanceConfig, ScoreDistillationConfig
from vlmreward_3d.config.optimization import OptimizerConfig, RecoveryConfig, RegularizerConfig
from vlmreward_3d.config.serialization import flatten, from_object, replace_settings, to_object
from vlmreward_3d.config.vlm import VLMConfig

__all__ = ["VLM3DConfig"]


@dataclass(frozen=True, kw_only=True)
class VLM3DConfig:
    """Everything that decides the outcome of a run; `vlmreward_3d.presets` makes complete ones.

    Attributes:
        prompt: Text prompt that the images are to match.
        seed: Seed of all random numbers, in [0, 2^63).
        steps: Length of the run; every `Schedule` is relative to it.
        camera: Settings of the rendered views.
        field: Settings of the field, the optimized representation of the object.
        score_distillation: The first guidance.
        vlm: The second guidance; None for score distillation alone.
        further_guidances: Guidances after the first two, in order.
        optimizer: Optimizer of the field's parameters.
        regularizers: Losses on opacities.
        recovery: Detection of a failed run, and its retries.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    prompt: str
    seed: int = 0
    steps: int
    camera: CameraConfig
    field: FieldConfig
    score_distillation: ScoreDistillationConfig
    vlm: VLMConfig | None = None
    further_guidances: tuple[GuidanceConfig, ...] = ()
    optimizer: OptimizerConfig
    regularizers: RegularizerConfig = dataclasses.field(default_factory=RegularizerConfig)
    recovery: RecoveryConfig = dataclasses.field(default_factory=RecoveryConfig)

    def __post_init__(self) -> None:
        check(
            self,
            prompt=TEXT,
            seed=Rule(lambda x: is_whole(x, 0) and x < 2**63, "a whole number in [0, 2^63)"),
            steps=COUNT,
            camera=instance_of(CameraConfig),
            field=instance_of(FieldConfig),
            score_distillation=instance_of(ScoreDistillationConfig),
            vlm=or_none(instance_of(VLMConfig)),
            further_guidances=Rule(
                lambda x: x == () or (isinstance(x, tuple) and are(x, _is_guidance)),
                "a tuple of records of guidances",
            ),
            optimizer=instance_of(OptimizerConfig),
            regularizers=instance_of(RegularizerConfig),
            recovery=instance_of(RecoveryConfig),
        )
        require(
            self.score_distillation.selection is None or self.vlm is not None,
            self,
            "vlm",
            "a VLMConfig, whose reward selects noises, beside score_distillation.selection",
        )
        self._require_fresh_gradients()
        if isinstance(self.field, VolumeConfig):
            bound = self.field.bound
            expected = f"boxes that have a part in the field's, [-{bound:g}, {bound:g}]^3"
            boxes = self.score_distillation.regions
            inside = all(box.reaches(bound) for box in boxes)
            require(inside, self.score_distillation, "regions", expected)
        if self.vlm is not None:
            asked = self.vlm.weighting.n_views
            views = [int(n) * self.camera.views_per_group for _, n in self.camera.n_groups.points]
            shown = sorted({min(asked or n, n) for n in views})
            divides = all(n % (self.vlm.views_per_question or n) == 0 for n in shown)
            expected = f"None or a divisor of the numbers of views that are shown, {shown}"
            require(divides, self.vlm, "views_per_question", expected)

    def _require_fresh_gradients(self) -> None:
        """Refuse cached gradients for a field that invalidates gradients of earlier steps."""
        if self.field.expires_gradients is None:
            return
        expected = f"False beside {self.field.expires_gradients}"
        for guidance in (self.score_distillation, self.vlm, *self.further_guidances):
            if guidance is not None:
                kept = guidance.weighting.cache_gradient
                require(not kept, guidance.weighting, "cache_gradient", expected)

    def replace(self, settings: Mapping[str, Any]) -> VLM3DConfig:
        """A copy with other settings.

        Args:
            settings: Values by dotted name.

        Raises:
            ValueError: There is no such setting, or a value does not suit it.

        Examples:
            >>> from vlmreward_3d import presets
            >>> config = presets.blocks("a red cube")
            >>> config.replace({"steps": 50, "vlm.weighting.interval": 4}).vlm.weighting.interval
            4
        """
        return replace_settings(self, settings)

    def flat(self) -> dict[str, Any]:
        """Every setting's value, in JSON's types, by its dotted name."""
        return flatten(to_object(self))

    def to_json(self) -> str:
        """One nested JSON object; schedules as {"points": [[progress, value], ...]}."""
        return json.dumps(to_object(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> VLM3DConfig:
        """The configuration that `to_json` wrote.

        Raises:
            ValueError: The text is not such a configuration.
        """
        return from_object(cls, _parse(text))

    def differences(self, other_json: str) -> list[str]:
        """The settings that differ from a configuration written by `to_json`.

        Returns:
            Lines such as "vlm.weighting.interval: 1 -> 4": theirs, then ours.

        Raises:
            ValueError: The other text is not a nested configuration.
        """
        ours, theirs = self.flat(), flatten(_parse(other_json))
        return [
            f"{name}: {theirs.get(name)!r} -> {ours.get(name)!r}"
            for name in dict.fromkeys([*ours, *theirs])
            if ours.get(name) != theirs.get(name)
        ]


def _is_guidance(value: Any) -> bool:
    return isinstance(value, GuidanceConfig)


def _parse(text: str) -> dict[str, Any]:
    """The object of a nested configuration; the flat settings of former versions are refused."""
    try:
        read = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"received settings that are not JSON ({error}); expected what `to_json` writes"
        ) from None
    if not isinstance(read, dict) or not isinstance(read.get("camera"), dict):
        raise ValueError(
            "received settings without the record 'camera'; expected those of this version, which "
            "are nested; they were written by another version or program"
        )
    return read
