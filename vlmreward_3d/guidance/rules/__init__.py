"""Distillation rules: each maps a denoiser's prediction to a gradient at the latents.

A new rule is one file with one function, and its line in `RULES`.
"""

from vlmreward_3d.guidance.rules import csd, sds, x0
from vlmreward_3d.guidance.rules.base import Prediction, Rule

__all__ = ["RULES", "Prediction", "Rule"]

RULES: dict[str, Rule] = {
    "x0": x0.x0,
    "sds": sds.sds,
    "csd": csd.csd,
}
"""The rules by the names that `VLM3DConfig.distillation` takes."""
