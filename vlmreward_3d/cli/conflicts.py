"""Checks for options of `vlm3d` that exclude each other or have no effect together."""

from __future__ import annotations

import argparse

from vlmreward_3d.presets import PRESETS

__all__ = ["ABOUT_THE_VLM", "refuse_without_effect"]

ABOUT_THE_VLM = (
    *("vlm", "single_view", "question", "no_geometry_question", "separate_questions"),
    *("vlm_interval", "vlm_cache_gradient", "vlm_grad_ratio", "vlm_device", "vlm_resolution"),
    *("vlm_max_grad_ratio", "vlm_transformations", "noise_candidates", "noise_ranking"),
    *("vlm_views_per_question", "vlm_objective", "vlm_weight"),
)
"""Options that have an effect only in runs with a VLM."""


def refuse_without_effect(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with an error if an option would have no effect, and fill in the preset's field.

    Args:
        parser: Parser of `vlm3d`, which reports the error and ends the process with exit code 2.
        options: Options that `parser` has read.
    """
    without = "--no-vlm" if options.no_vlm else f"--preset {options.preset}"
    if options.no_vlm or not PRESETS[options.preset].uses_vlm:
        for name in ABOUT_THE_VLM:
            if getattr(options, name):
                parser.error(
                    f"received --{name.replace('_', '-')}, which means nothing with {without}; "
                    "expected a run that asks a VLM; leave one of them out"
                )
    if options.vlm_cache_gradient and (options.vlm_interval or 1) == 1:
        parser.error(
            "received --vlm-cache-gradient, but the VLM is asked at every step; expected "
            "--vlm-interval K with K > 1; add it, or leave --vlm-cache-gradient out"
        )
    if options.vlm_weight and options.vlm_grad_ratio:
        parser.error(
            "received --vlm-weight with --vlm-grad-ratio, which chooses lambda at every step; "
            "expected one of the two; --vlm-max-grad-ratio would limit it"
        )
    if options.region and options.rule != "semantic-sds":
        parser.error(
            "received --region without --rule semantic-sds, which composes regions; expected both"
        )
    if options.rule == "semantic-sds" and not options.region:
        parser.error(
            'received --rule semantic-sds without regions; expected --region "PROMPT: X,Y,Z to '
            'X,Y,Z" for at least one; add it, or leave --rule out'
        )
    if options.region and options.perp_neg:
        parser.error(
            "received --perp-neg with --region, whose prompt has no negatives; expected one of the "
            "two; leave one of them out"
        )
    if options.noise_ranking and not options.noise_candidates:
        parser.error(
            "received --noise-ranking without --noise-candidates K, the number of noises that are "
            "ranked; expected both"
        )
    options.field = options.field or next(iter(PRESETS[options.preset].fields))
    if options.grow and options.field != "gaussians":
        parser.error(
            f"received --grow with --field {options.field}, which does not grow; expected --field "
            "gaussians; add it, or leave --grow out"
        )
    if options.grow and options.vlm_cache_gradient:
        parser.error(
            "received --vlm-cache-gradient with --grow, which changes the shapes of the parameters "
            "that gradients are kept at; expected one of the two; leave one of them out"
        )
    if options.max_gaussians and not options.grow:
        parser.error(
            "received --max-gaussians without --grow; expected both, as the number of Gaussians "
            "stays the same without it"
        )
    if options.field == "gaussians":
        if options.export:
            parser.error(
                "received --export with --field gaussians, which have no mesh; expected one of the "
                "two; leave --export out: splats.ply is written"
            )
        if options.rays_per_chunk:
            parser.error(
                "received --rays-per-chunk with --field gaussians, which are not sampled along "
                "rays; expected one of the two; leave --rays-per-chunk out"
            )
