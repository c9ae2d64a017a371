"""Conversion of threestudio configurations to `VLM3DConfig`, with lists of differences."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmreward_3d.config import (
    OptimizerConfig,
    RecoveryConfig,
    RegularizerConfig,
    VLM3DConfig,
    VLMConfig,
    WeightingConfig,
)
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.threestudio.guidance import distillation_of
from vlmreward_3d.threestudio.scene import camera_of, field_of
from vlmreward_3d.threestudio.settings import Settings

__all__ = ["ThreestudioImport", "import_threestudio"]

_SYSTEMS = (
    "dreamfusion-system",
    "magic3d-system",
    "mvdream-system",
    "prolificdreamer-system",
    "sjc-system",
)
_HOUSEKEEPING = (
    r"name|tag|exp_root_dir|exp_dir|trial_dir|trial_name|description|timestamp|use_timestamp|n_gpus",
    r"resume|data_type|system_type",
    r"data\.(eval_.*|n_(val|test)_views|width|num_workers)",
    r"trainer\.(?!max_steps|precision).*",
    r"checkpoint(\..*)?",
    r"system\.loggers(\..*)?",
    r"system\.(geometry|material|background|renderer|prompt_processor|guidance)_type",
    r"system\.(cleanup_after_.*|exporter_type|exporter\..*)",
)
"""Settings of folders, logs, checkpoints and evaluation, which do not affect the outcome."""


@dataclass(frozen=True)
class ThreestudioImport:
    """Result of the import of a configuration of threestudio.

    Attributes:
        config: The configuration of the run.
        changed: Lines about settings that are imported with another meaning or number.
        left_out: Lines about settings that have no counterpart here, each "name = value".
    """

    config: VLM3DConfig
    changed: tuple[str, ...]
    left_out: tuple[str, ...]

    def report(self) -> str:
        """Both lists as readable text."""
        parts = [
            ("Taken over with changes", self.changed),
            ("Without a counterpart", self.left_out),
        ]
        return "\n".join(
            line
            for title, lines in parts
            for line in [f"{title}:", *(f"  {entry}" for entry in lines or ["nothing"])]
        )


def import_threestudio(
    source: str | os.PathLike[str],
    *,
    prompt: str | None = None,
    overrides: Sequence[str] = (),
) -> ThreestudioImport:
    """Read a configuration of threestudio (or of its extension for MVDream).

    Args:
        source: A YAML file's path, or its text if it has several lines.
        prompt: Text prompt that the images are to match; None takes the file's
            `system.prompt_processor.prompt`.
        overrides: Settings as on threestudio's command line, such as
            "system.guidance.guidance_scale=50".

    Returns:
        The configuration, with lists of changed settings and of settings without a counterpart. A
        setting of the file is in one of the lists unless it means the same here or does not affect
        the outcome, such as folders and logs.

    Raises:
        OSError: The file cannot be read.
        ValueError: Not a configuration of threestudio, a value that is none of threestudio's, a
            method that has no counterpart at all, or no prompt.
    """
    text = os.fspath(source)
    if "\n" not in text:
        text = Path(text).read_text(encoding="utf-8")
    settings = Settings(text, overrides)
    changed: list[str] = []
    _check_system(settings)
    steps = settings.take("trainer.max_steps")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"received trainer.max_steps={steps!r}; expected a whole number >= 1")
    distillation = distillation_of(settings, steps, changed)
    config = VLM3DConfig(
        prompt=_prompt(settings, prompt),
        seed=int(settings.number("seed", 0)),
        steps=steps,
        camera=camera_of(settings, steps, changed),
        field=field_of(settings, steps, changed),
        score_distillation=distillation,
        vlm=_vlm(settings, steps),
        optimizer=_optimizer(settings, changed),
        regularizers=RegularizerConfig(
            entropy_weight=settings.schedule("system.loss.lambda_opaque", 0, steps),
            sparsity_weight=settings.schedule("system.loss.lambda_sparsity", 0, steps),
        ),
        recovery=_recovery(settings, steps),
    )
    settings.take("trainer.precision")  # that of each model is its own here
    for pattern in _HOUSEKEEPING:
        settings.skip(pattern)
    left = {
        name: value for name, value in settings.left().items() if not _says_nothing(name, value)
    }
    return ThreestudioImport(
        config, tuple(changed), tuple(f"{name} = {value!r}" for name, value in left.items())
    )


def _says_nothing(name: str, value: Any) -> bool:
    """True for settings that are switched off: None, False, and weights and shifts of 0."""
    weight = ".lambda_" in name or name.endswith("_perturb")
    return value is None or value is False or (weight and value == 0)


def _check_system(settings: Settings) -> None:
    kind = settings.values.get("system_type")
    if kind not in _SYSTEMS:
        raise ValueError(
            f"received system_type={kind!r}, which has no counterpart; expected one of {_SYSTEMS}: "
            "text to 3D in one stage, by score distillation"
        )
    for name, first in (("stage", "coarse"), ("refinement", False)):
        found = settings.take(f"system.{name}", first)
        if found != first:
            raise ValueError(
                f"received system.{name}={found!r}; expected {first!r}, the first stage: meshes "
                "and their textures are not optimized here"
            )


def _prompt(settings: Settings, given: str | None) -> str:
    prompt = settings.take("system.prompt_processor.prompt")
    if given is not None:
        return given
    if not isinstance(prompt, str) or prompt == "???":
        raise ValueError(
            f"received system.prompt_processor.prompt={prompt!r}; expected a prompt in the file or "
            "by prompt="
        )
    return prompt


def _recovery(settings: Settings, steps: int) -> RecoveryConfig:
    """The default recovery; more patience, a tenth of the steps, for SJC, which begins as haze."""
    if settings.values.get("system_type") != "sjc-system":
        return RecoveryConfig()
    return RecoveryConfig(patience=max(50, steps // 10))


def _optimizer(settings: Settings, changed: list[str]) -> OptimizerConfig:
    where = "system.optimizer"
    name = settings.take(f"{where}.name", "Adam")
    if name not in ("Adam", "AdamW", "Adamax"):
        changed.append(f"{where}.name = {name!r}: Adam")
    decay = settings.number(f"{where}.args.weight_decay", 0.01 if name == "AdamW" else 0.0)
    general = settings.take(f"{where}.args.lr", 1e-3)
    names = [f"{where}.params.geometry{part}.lr" for part in ("", ".encoding")]
    rates = [rate for each in names if (rate := settings.take(each)) is not None]
    networks = [f"{where}.params.geometry.{part}_network.lr" for part in ("density", "feature")]
    rate = float(rates[0] if rates else general)
    for each in networks:  # the hash grid's network is optimized at a tenth of the rate here
        if each in settings.values and float(settings.values[each]) == rate / 10:
            settings.take(each)
    hashed = settings.values.get("system.geometry_type") == "implicit-volume"
    if hashed and names[1] not in settings.values:
        changed.append(f"{names[0]} = {rate:g}: of the tables, with a tenth for their network")
    if name == "Adamax" and decay:
        changed.append(f"{where}.args.weight_decay = {decay:g}: none with Adamax")
        decay = 0.0
    return OptimizerConfig(
        name="adamax" if name == "Adamax" else "adamw",
        learning_rate=Schedule.constant(rate),
        betas=settings.pair(f"{where}.args.betas", (0.9, 0.999)),
        eps=settings.number(f"{where}.args.eps", 1e-8),
        weight_decay=decay,
    )


def _vlm(settings: Settings, steps: int) -> VLMConfig | None:
    """The settings of this project's own guidance for threestudio, if that is used."""
    if settings.values.get("system.guidance_type") != "vlm-reward-guidance":
        return None
    where = "system.guidance"
    size = settings.take(f"{where}.size", 256)
    settings.skip(rf"{where}\.base_type")
    return VLMConfig(
        model=settings.take(f"{where}.model", "Qwen/Qwen2.5-VL-7B-Instruct"),
        question=settings.take(f"{where}.question", "paper/selected"),
        views_per_question=int(settings.number(f"{where}.n_views", 1)),
        resolution=size,
        weighting=WeightingConfig(
            weight=settings.schedule("system.loss.lambda_vlm", 0, steps),
            interval=int(settings.number(f"{where}.every", 1)),
        ),
    )
