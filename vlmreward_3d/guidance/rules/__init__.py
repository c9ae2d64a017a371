"""Distillation rules: each maps a denoiser's prediction to a gradient at the latents.

A new rule is one file with one function, and its line in `RULES`.
"""

from vlmreward_3d.guidance.rules import (
    cfd,
    clamped,
    csd,
    fsd,
    ism,
    nfsd,
    rfds,
    sdi,
    sds,
    sjc,
    ssd,
    vsd,
    x0,
)
from vlmreward_3d.guidance.rules.base import Gradient, Lesson, Prediction, Rule
from vlmreward_3d.guidance.rules.noising import Noising

__all__ = ["RULES", "Gradient", "Lesson", "Noising", "Prediction", "Rule"]

RULES: dict[str, Rule] = {
    "x0": Rule(x0.x0),
    "sds": Rule(sds.sds),
    "sjc": Rule(sjc.sjc),
    "csd": Rule(csd.csd),
    "nfsd": Rule(nfsd.nfsd, asks_empty=True),
    "ssd": Rule(ssd.ssd),
    "ism": Rule(ism.ism, noising=ism.interval_noise, draws=False),
    "fsd": Rule(sds.sds, noising=fsd.world_map_noise, draws=False),
    "cfd": Rule(sjc.sjc, noising=cfd.transported_noise, draws=False, asks_surface=True),
    "semantic-sds": Rule(sds.sds, asks_regions=True),
    "sdi": Rule(x0.x0, noising=sdi.inverted_noise),
    "rfds": Rule(rfds.rfds),
    "rfds-rev": Rule(rfds.rfds, noising=rfds.reversed_noise),
    "clamped-sds": Rule(clamped.clamped_sds),
    "vsd": Rule(vsd.vsd, lesson=Lesson()),
    "esd": Rule(vsd.esd, lesson=Lesson(), asks_free=True),
    "asd": Rule(vsd.vsd, lesson=Lesson(repulsion=-1.0)),
}
"""The rules by the names that `ScoreDistillationConfig.rule` takes."""
