"""Measures of a finished asset."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import trimesh
from assets import resources, views_of
from front_judge import load_front_judge
from front_templates import FrontTemplates
from judge import COLOR_NAMES, KINDS, SHAPES, load_judge, target_of_prompt
from template_reader import TemplateReader, cameras_of_runs
from torch import Tensor

from vlmreward import YesNoReward
from vlmreward_3d.blocks.world.scenes import COMPOUNDS

MEASURES = {
    "network": ".0%",
    "templates": ".0%",
    "network's error": ".2%",
    "content": ".2f",
    "geometry": ".2f",
    "roughness": ".2f",
}
"""The format of each measure.

Network, templates: 1 where that judge reads what was asked for, else 0. Network's error: the share
of its votes that other things got; it tells arms apart where all are right. Content, geometry:
log-odds of "Yes" to `paper/content` and `paper/geometry` about four of the views, by the built-in
VLM, which has taught. Roughness: mean angle between neighboring faces of the mesh, in degrees,
where there is a mesh.
"""
FRONT_MEASURES = {
    f"{count}, {judge}": ".0%"
    for count in ("one front", "several", "none")
    for judge in ("network", "templates")
}
"""The measures of an object that must have one front: 1 where that judge counts so many, else 0."""
COSTS = {"CPU seconds": ".0f", "memory": ".0f"}
"""The costs of an asset: seconds of all threads together, and the peak memory in MiB."""
SHARES = ("network", "templates", *FRONT_MEASURES)
"""The measures that are 0 or 1."""


def describe(reading: list[int] | None) -> str:
    """A judge's reading in words."""
    if reading is None:
        return "nothing"
    kind, *rest = reading
    names = [
        f"{COLOR_NAMES[c]} {SHAPES[s]}" for c, s in zip(rest[::2], rest[1::2]) if c >= 0 and s >= 0
    ]
    return f" {KINDS[kind]} ".join(names) if KINDS[kind] else names[0]


def roughness(folder: Path) -> float:
    """Mean angle between neighboring faces of the run's mesh, in degrees; NaN without a mesh."""
    if not (folder / "mesh.glb").exists():  # Gaussians have none
        return math.nan
    mesh = trimesh.load(folder / "mesh.glb", force="mesh")
    return float(np.degrees(mesh.face_adjacency_angles).mean())


class Measuring:
    """The judges, ready to look at assets.

    Args:
        judge: weights of the network, made by judge.py.
        front_judge: weights of the network that counts fronts, made by front_judge.py; without them
            fronts are not counted.
    """

    def __init__(self, judge: Path, front_judge: Path | None = None) -> None:
        self.network = load_judge(judge)
        self.templates = TemplateReader(cameras_of_runs())
        self.front_network = front_judge and load_front_judge(front_judge)
        self.front_templates = FrontTemplates(cameras_of_runs())
        self.content, self.geometry = (
            YesNoReward("builtin/blocks", question=f"paper/{part}")
            for part in ("content", "geometry")
        )

    @torch.no_grad()
    def __call__(self, folder: Path, prompt: str) -> dict[str, float | str]:
        """The values of `MEASURES`, what each judge reads, in words, `FRONT_MEASURES`, `COSTS`."""
        views, target = views_of(folder), target_of_prompt(prompt)
        (read,), matched = self.network.read(views[None]), self.templates.read(views)
        query = views[None, ::2]
        return {
            "network": float(read == target),
            "templates": float(matched == target),
            "network's error": 1 - self.network.share(views[None], target)[0],
            "content": self.content(query, prompt=prompt).item(),
            "geometry": self.geometry(query).item(),
            "roughness": roughness(folder),
            "network reads": describe(read),
            "templates read": describe(matched),
            **self.fronts(views, target),
            **resources(folder),
        }

    def fronts(self, views: Tensor, target: list[int]) -> dict[str, float]:
        """The values of `FRONT_MEASURES`, where they are measured and the object has a front."""
        _, color, shape, *_ = target
        if self.front_network is None or SHAPES[shape] not in COMPOUNDS:
            return {}
        counted = {
            "network": self.front_network.count(views),
            "templates": self.front_templates.count(views, SHAPES[shape], COLOR_NAMES[color]),
        }
        return {
            f"{name}, {judge}": float(min(count, 2) == wanted)
            for name, wanted in (("one front", 1), ("several", 2), ("none", 0))
            for judge, count in counted.items()
        }
