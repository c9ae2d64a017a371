"""Conversion of the options of `vlm3d` to the configuration of a run."""

from __future__ import annotations

import argparse
from typing import Any

from vlmreward_3d.config import DENSIFICATIONS, NoiseSelectionConfig, VLM3DConfig
from vlmreward_3d.presets import PRESETS, with_builtin_models
from vlmreward_3d.schedule import Schedule

__all__ = ["QUESTIONS", "changes", "configuration", "distillation_rule", "question"]

QUESTIONS = {
    "A": "paper/A",
    "B": "paper/B",
    "selected": "paper/selected",
    "yes-no": "yes-no",
}
"""Values of --question, and the names of the rewards' questions for them."""


def configuration(options: argparse.Namespace) -> VLM3DConfig:
    """The settings of the run: those of its preset, with the changes by the options."""
    preset = PRESETS[options.preset]
    if options.builtin_models:
        preset = with_builtin_models(preset)
    config = preset(
        options.prompt,
        steps=options.steps,
        seed=options.seed,
        field=options.field,
        denoiser=options.denoiser,
        vlm=None if options.no_vlm else options.vlm or "default",
    )
    return config.replace(changes(options, config))


def changes(options: argparse.Namespace, config: VLM3DConfig) -> dict[str, Any]:
    """Settings that the options change in a configuration, by their dotted names."""
    asked = {
        "score_distillation.rule": distillation_rule(options),
        "score_distillation.regions": tuple(options.region or ()),
        "score_distillation.view_prompts": options.perp_neg,
        "score_distillation.perp_neg": options.perp_neg,
        "score_distillation.precision": options.denoiser_precision,
        "score_distillation.adapter": options.adapter,
        "vlm.weighting.interval": options.vlm_interval,
        "vlm.weighting.cache_gradient": options.vlm_cache_gradient,
        "vlm.weighting.grad_ratio": options.vlm_grad_ratio,
        "vlm.weighting.max_grad_ratio": options.vlm_max_grad_ratio,
        "vlm.n_transformations": options.vlm_transformations,
        "vlm.objective": options.vlm_objective,
        "vlm.views_per_question": options.vlm_views_per_question,
        "vlm.weighting.n_views": 1 if options.single_view else None,
        "vlm.resolution": options.vlm_resolution,
        "vlm.question": question(options),
        "field.rays.rays_per_chunk": options.rays_per_chunk,
        "field.densification": DENSIFICATIONS.get(options.grow),
        "field.densification.max_gaussians": options.max_gaussians,
    }
    changed = {name: value for name, value in asked.items() if value}
    if options.t_max_end is not None:
        levels = config.score_distillation.t_max
        changed["score_distillation.t_max"] = levels.ending(options.t_max_end)
    if options.vlm_weight:
        changed["vlm.weighting.weight"] = Schedule.constant(options.vlm_weight)
    if options.vlm_grad_ratio:
        changed["vlm.weighting.max_grad_ratio"] = None
    if options.noise_candidates:
        ranking = options.noise_ranking or "best"
        selection = NoiseSelectionConfig(n_candidates=options.noise_candidates, ranking=ranking)
        changed["score_distillation.selection"] = selection
    if options.no_collapse_detection:
        changed["recovery.patience"] = None
    return changed


def distillation_rule(options: argparse.Namespace) -> str | None:
    """The name of the rule, refused before models are loaded; None for the preset's."""
    from vlmreward_3d.guidance.rules import RULES

    if options.rule is not None and options.rule not in RULES:
        raise ValueError(f"--rule: received {options.rule!r}; expected one of {', '.join(RULES)}")
    return options.rule


def question(options: argparse.Namespace) -> str | tuple[str, str] | None:
    """The name of the question, or the names of two questions; None for the preset's."""
    if options.separate_questions:
        return ("paper/content", "paper/geometry")
    if options.no_geometry_question:
        return "paper/content"
    return options.question and QUESTIONS[options.question]
