"""A configuration in words: its values, and the weights that a run applied."""

from __future__ import annotations

import json
from typing import Any

from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.schedule import Schedule

__all__ = ["readable_settings", "weight_note"]


def readable_settings(config: VLM3DConfig) -> dict[str, str]:
    """Every setting's value for readers, by its dotted name."""
    return {name: _readable(value) for name, value in config.flat().items()}


def _readable(value: Any) -> str:
    if isinstance(value, str):
        return value or "(empty)"
    if not isinstance(value, dict):
        return json.dumps(value)
    return str(Schedule(value["points"]))


def weight_note(config: VLM3DConfig) -> str:
    """The reason why the weight that was applied is not the configured one, if it is not.

    Returns:
        A sentence for each guidance whose weight follows the norm of another gradient; empty
        where all weights are those of the configuration.
    """
    said = []
    for guidance in (config.score_distillation, config.vlm, *config.further_guidances):
        if guidance is None:
            continue
        name, weighting = guidance.kind, guidance.weighting
        first = "the norm of the score distillation's gradient"
        if weighting.grad_ratio is not None:
            said.append(
                f"{name}: grad_ratio chooses the weight at each step so that the weighted gradient "
                f"has {weighting.grad_ratio:g} times {first}; the configured weight "
                f"({weighting.weight}) is not used."
            )
        elif weighting.max_grad_ratio is not None:
            said.append(
                f"{name}: the configured weight ({weighting.weight}) is lowered at each step where "
                f"the weighted gradient would exceed {weighting.max_grad_ratio:g} times {first} "
                "(max_grad_ratio)."
            )
    return " ".join(said)
