"""A judge of fronts without learning: how many handles, backs, pairs of lamps or faces there are.

An asset with one front is a sound one. With none the front is lost, with several it has the "Janus
problem". The color classes of all views are compared with those of ray-cast objects with none, one
and several fronts at all angles, and the nearest one counts:

    python examples/evaluation/front_templates.py --objects 100

The command prints how many clean objects are counted right.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from template_reader import (
    NAMES,
    OTHER,
    cameras_of_runs,
    centered,
    classes_of,
    on_white,
    overlap,
)
from torch import Tensor
from tqdm import tqdm

from vlmreward_3d.blocks.world.scenes import (
    COMPOUNDS,
    Scene,
    SceneObject,
    arrange,
    pick,
    several_fronts,
)
from vlmreward_3d.cameras import Cameras

YAWS = 32
"""Angles at which the templates stand."""


def layouts(shape: str) -> list[tuple[int, ...]]:
    """The sets of fronts that a shape may have, in quarters of a turn: none, one, several."""
    return [(), (0,), *several_fronts(shape)]


def with_fronts(
    shape: str, color: str, quarters: tuple[int, ...], yaw: float, size: float = 0.6
) -> Scene:
    """An object with its fronts at quarters of a turn from ``yaw``, in radians."""
    fronts = tuple(math.pi / 2 * quarter for quarter in quarters)
    thing = SceneObject(shape, color, size, yaw, fronts=fronts)
    return Scene(arrange([thing], None, np.random.default_rng(0)))


class FrontTemplates:
    """Counts the fronts of single objects in views of known cameras.

    Args:
        cameras: V cameras.
    """

    def __init__(self, cameras: Cameras) -> None:
        self.cameras = cameras
        self._known: dict[str, tuple[list[int], Tensor]] = {}

    def _templates(self, shape: str) -> tuple[list[int], Tensor]:
        """Numbers of fronts, and masks (T, V, 2, H, W), of the templates of a shape."""
        if shape not in self._known:
            counts, masks = [], []
            for quarters in layouts(shape):
                for k in range(YAWS):
                    scene = with_fronts(shape, "blue", quarters, 2 * math.pi * k / YAWS)
                    counts.append(len(quarters))
                    masks.append(self._masks(on_white(scene, self.cameras), "blue"))
            self._known[shape] = counts, torch.stack(masks)
        return self._known[shape]

    @staticmethod
    def _masks(images: Tensor, color: str) -> Tensor:
        """(V, 2, H, W): the whole object, and its parts in other colors than its own, centered."""
        classes = classes_of(images)
        there = classes <= OTHER
        others = there & (classes != NAMES.index(color))
        return centered(torch.stack([there, others], 1).float(), there)

    def count(self, images: Tensor, shape: str, color: str) -> int:
        """Fronts of the object of a shape and a color in the images (V, 3, H, W) on white."""
        counts, templates = self._templates(shape)
        return counts[int(overlap(self._masks(images, color), templates).argmax())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=100, help="of each shape")
    parser.add_argument("--seed", type=int, default=505)
    options = parser.parse_args()
    cameras = cameras_of_runs()
    reader, rng = FrontTemplates(cameras), np.random.default_rng(options.seed)
    for shape in COMPOUNDS:
        right = []
        for _ in tqdm(range(options.objects), desc=shape, leave=False):
            quarters = pick(layouts(shape), rng)
            color = str(rng.choice(NAMES))
            scene = with_fronts(
                shape, color, quarters, rng.uniform(0, 2 * math.pi), rng.uniform(0.54, 0.65)
            )
            found = reader.count(on_white(scene, cameras), shape, color)
            right.append(found == len(quarters))
        print(f"{shape}: {sum(right)} of {len(right)} right")


if __name__ == "__main__":
    main()
