"""Measures of a finished asset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import trimesh
from assets import views_of
from judge import COLOR_NAMES, KINDS, SHAPES, load_judge, target_of_prompt
from template_reader import TemplateReader, cameras_of_runs

from vlmreward import YesNoReward

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
VLM, which has taught. Roughness: mean angle between neighbouring faces of the mesh, in degrees.
"""
SHARES = ("network", "templates")
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
    """Mean angle between neighbouring faces of the run's mesh, in degrees."""
    mesh = trimesh.load(folder / "mesh.glb", force="mesh")
    return float(np.degrees(mesh.face_adjacency_angles).mean())


class Measuring:
    """The judges, ready to look at assets.

    Args:
        judge: weights of the network, made by judge.py.
    """

    def __init__(self, judge: Path) -> None:
        self.network = load_judge(judge)
        self.templates = TemplateReader(cameras_of_runs())
        self.content, self.geometry = (
            YesNoReward("builtin/blocks", question=f"paper/{part}")
            for part in ("content", "geometry")
        )

    @torch.no_grad()
    def __call__(self, folder: Path, prompt: str) -> dict[str, float | str]:
        """The values of `MEASURES`, and what each judge reads, in words."""
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
        }
