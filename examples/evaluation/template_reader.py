"""A judge of assets without learning: colors by their hue, shapes by the nearest silhouette.

It shares nothing with the networks: each pixel gets the name of the color it is a shade of, and the
scene is the one, of all single objects and pairs, whose ray-cast templates overlap most with what
the known cameras see:

    python examples/evaluation/template_reader.py --scenes 200

The command prints how many clean scenes are read without any mistake.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from judge import KINDS, target, target_of
from torch import Tensor
from tqdm import tqdm

from vlmreward_3d.blocks.world.raycast import raycast
from vlmreward_3d.blocks.world.scenes import (
    COLORS,
    SHAPES,
    Scene,
    SceneObject,
    arrange,
    sample_scene,
)
from vlmreward_3d.cameras import Cameras
from vlmreward_3d.presets import blocks
from vlmreward_3d.rendering import evaluation_cameras

NAMES = tuple(COLORS)
SIDE = 64
"""Height and width of the images that are compared, in pixels."""
OTHER = len(NAMES)
"""Class of pixels of an object that are a shade of no named color, such as wheels and lamps."""
NOTHING = OTHER + 1
"""Class of pixels of the background."""
_SHADES = torch.linspace(0.45, 1.05, 13)
_FAR = 0.2
"""Distance in RGB from which on a pixel is a shade of no color."""
_GRAY = 0.12
"""Difference of the channels below which a pixel has no color."""
_WHITE = 0.12
"""Distance in RGB from white below which a pixel is background."""
_LEAST = 0.12
"""Share of the colored pixels that a second color must have."""
FILL = 0.8
"""Share of the picture that the longer side of the object fills once it is centered."""


def cameras_of_runs(views: int = 8) -> Cameras:
    """The turntable from which views.png of the `blocks` preset shows an asset."""
    return evaluation_cameras(blocks("any").camera, views)


def on_white(scene: Scene, cameras: Cameras) -> Tensor:
    """Views (V, 3, 64, 64) of a scene on white."""
    rgba = raycast(scene, cameras, SIDE).rgba.permute(0, 3, 1, 2)
    return rgba[:, :3] + 1 - rgba[:, 3:]


def classes_of(images: Tensor) -> Tensor:
    """Images (V, 3, H, W) in [0, 1] on white -> the class (V, H, W) of each pixel."""
    colors = torch.tensor(list(COLORS.values()))
    shades = (colors[:, None] * _SHADES[:, None]).clamp(max=1)  # (colors, shades, 3)
    pixels = images.movedim(1, -1)
    distance = (pixels[..., None, None, :] - shades).norm(dim=-1).amin(-1)
    nearest, which = distance.min(-1)
    gray = pixels.amax(-1) - pixels.amin(-1) < _GRAY
    which = torch.where((nearest > _FAR) | gray, torch.full_like(which, OTHER), which)
    white = (pixels - 1).norm(dim=-1) < _WHITE
    return torch.where(white, torch.full_like(which, NOTHING), which)


def centered(masks: Tensor, there: Tensor) -> Tensor:
    """Masks (V, C, H, W) of the object, moved to the middle and zoomed by one factor for all.

    Args:
        masks: float in [0, 1].
        there: (V, H, W) bool, where the object is.
    """
    size = there.shape[-1]
    boxes = []
    for view in there:
        rows, columns = view.any(1).nonzero()[:, 0], view.any(0).nonzero()[:, 0]
        if len(rows) == 0:
            return torch.zeros_like(masks)
        boxes.append([int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1])
    box = torch.tensor(boxes, dtype=torch.float)
    extent = torch.stack([box[:, 1] - box[:, 0], box[:, 3] - box[:, 2]]).amax()
    zoom = extent / (FILL * size)
    theta = torch.zeros(len(there), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, 0, 2] = (box[:, 2] + box[:, 3]) / size - 1
    theta[:, 1, 2] = (box[:, 0] + box[:, 1]) / size - 1
    grid = F.affine_grid(theta, list(masks.shape), align_corners=False)
    return F.grid_sample(masks, grid, align_corners=False)


def masks_of(classes: Tensor, first: int, second: int | None) -> Tensor:
    """(V, 3, H, W): the first color, the second one, and the whole object, centered."""
    there = classes < NOTHING
    parts = [classes == first, classes == (first if second is None else second), there]
    return centered(torch.stack(parts, 1).float(), there)


@dataclass(frozen=True)
class Template:
    """Masks of one shape, or of two in a relation, in all views.

    Attributes:
        relation: relation of a pair; None for a single object.
        shapes: shapes of the first and, in a pair, the second object.
        masks: `masks_of` things of different colors.
        joined: `masks_of` things of one color.
    """

    relation: str | None
    shapes: tuple[str, ...]
    masks: Tensor
    joined: Tensor


class TemplateReader:
    """Reads scenes from views of known cameras.

    Args:
        cameras: V cameras.
        shapes: The shapes that things may have.
    """

    def __init__(self, cameras: Cameras, shapes: Sequence[str] = SHAPES) -> None:
        self.cameras = cameras
        self.templates = [self._single(shape) for shape in shapes]
        pairs = [(a, b) for a in shapes for b in shapes]
        self.templates += [
            self._pair(relation, pair)
            for relation in KINDS
            if relation
            for pair in tqdm(pairs, desc=f"templates: {relation}", leave=False)
        ]
        self._masks = torch.stack([t.masks for t in self.templates])
        self._joined = torch.stack([t.joined for t in self.templates])

    def _views(self, things: list[SceneObject], relation: str | None) -> Tensor:
        scene = Scene(arrange(things, relation, np.random.default_rng(0)), relation)
        return on_white(scene, self.cameras)

    def _single(self, shape: str) -> Template:
        classes = classes_of(self._views([SceneObject(shape, "blue", 0.6)], None))
        masks = masks_of(classes, NAMES.index("blue"), None)
        return Template(None, (shape,), masks, masks)

    def _pair(self, relation: str, shapes: tuple[str, str]) -> Template:
        red, blue = NAMES.index("red"), NAMES.index("blue")
        things = [SceneObject(s, c, 0.365) for s, c in zip(shapes, ("red", "blue"))]
        classes = classes_of(self._views(things, relation))
        joined = torch.where(classes == red, torch.full_like(classes, blue), classes)
        return Template(
            relation, shapes, masks_of(classes, red, blue), masks_of(joined, blue, None)
        )

    def read(self, images: Tensor) -> list[int] | None:
        """The scene that the images (V, 3, H, W) in [0, 1] on white show, as a `judge.target`.

        Returns:
            None where it sees no named color.
        """
        classes = classes_of(images)
        counts = torch.bincount(classes.flatten(), minlength=NOTHING + 1)[:OTHER]
        if counts.sum() == 0:
            return None
        first, second = counts.topk(2).indices.tolist()
        choices: list[tuple[float, list[int]]] = []
        if counts[second] >= _LEAST * counts.sum():
            for one, two in ((first, second), (second, first)):
                scores = overlap(masks_of(classes, one, two), self._masks)
                choices += self._choices(scores, one, two, single=False)
        else:
            scores = overlap(masks_of(classes, first, None), self._joined)
            choices += self._choices(scores, first, first, single=True)
        return max(choices)[1]

    def _choices(
        self, scores: Tensor, one: int, two: int, *, single: bool
    ) -> list[tuple[float, list[int]]]:
        found = []
        for template, score in zip(self.templates, scores.tolist()):
            if len(template.shapes) == 1 and not single:
                continue
            words = list(zip((NAMES[one], NAMES[two]), template.shapes))
            found.append((score, target(template.relation, words)))
        return found


def overlap(seen: Tensor, templates: Tensor) -> Tensor:
    """Intersection over union of (V, C, H, W) with (T, V, C, H, W), the mean over masks: (T,)."""
    both = torch.minimum(seen, templates).sum((1, 3, 4))
    either = torch.maximum(seen, templates).sum((1, 3, 4))
    return (both / either.clamp_min(1e-6)).mean(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=503)
    options = parser.parse_args()
    cameras = cameras_of_runs()
    reader = TemplateReader(cameras)
    rng = np.random.default_rng(options.seed)
    marks: dict[str, list[bool]] = {"singles": [], "pairs": []}
    for _ in tqdm(range(options.scenes), desc="scenes"):
        scene = sample_scene(rng)
        truth, read = target_of(scene), reader.read(on_white(scene, cameras))
        marks["pairs" if scene.relation else "singles"].append(read == truth)
        if read != truth:
            tqdm.write(f"{truth} read as {read}")
    for name, right in marks.items():
        print(f"{name}: {sum(right)} of {len(right)} right")


if __name__ == "__main__":
    main()
