"""A judge of compositions without learning: does the prompt fit better than what is nearly it?

The prompt and its minimal changes (another color or number, exchanged sizes, ...) are ray-cast many
times, in all directions and with all that a prompt leaves open. Of all these pictures the one that
overlaps most with the views of the known cameras, color by color, tells what the asset shows:

    python examples/evaluation/caption_templates.py --scenes 60

The command prints how many clean compositions are recognized.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from template_reader import NOTHING, cameras_of_runs, centered, classes_of, on_white
from torch import Tensor
from tqdm import tqdm

from vlmreward_3d.blocks.world.compositions import KINDS, place, sample_composition
from vlmreward_3d.blocks.world.descriptions import caption, false_captions, plural
from vlmreward_3d.blocks.world.scenes import (
    COLORS,
    COUNTS,
    EXTENTS,
    INSIDE,
    LACKS,
    LANDMARK_RELATIONS,
    PATTERNS,
    RELATIONS,
    SHAPES,
    Scene,
    SceneObject,
)
from vlmreward_3d.cameras import Cameras

LINKS = (*RELATIONS, *LANDMARK_RELATIONS, INSIDE)
SINGULAR = {plural(shape): shape for shape in SHAPES}
DRAWS = 16
"""Pictures of each description, turned by equal angles."""
ALTERNATIVES = 3
"""Number of draws of the minimal changes of a prompt."""


def _thing(text: str) -> SceneObject:
    said, _, lack = text.partition(" without ")
    words = said.split()
    shape = SINGULAR.get(words[-1], words[-1])
    if shape not in SHAPES or (lack and lack != LACKS.get(shape)):
        raise ValueError(f"no object of the blocks world: {text!r}")
    color = next(w for w in words if w in COLORS)
    pattern = next((w for w in words if w in PATTERNS), "")
    extent = next((w for w in words if w in EXTENTS), "")
    fronts = () if lack else (0.0,)
    return SceneObject(shape, color, 1.0, fronts=fronts, pattern=pattern, extent=extent)


def scene_of(text: str) -> Scene:
    """The things and relations of a description; sizes and places are not meant."""
    links, parts = [], []
    rest = text
    while found := [(rest.index(f" {k} "), k) for k in LINKS if f" {k} " in rest]:
        at, link = min(found)
        links.append(link)
        parts.append(rest[:at])
        rest = rest[at + len(link) + 2 :]
    things = [_thing(part) for part in (*parts, rest)]
    first = text.split()[0]
    number = COUNTS.index(first) + 1 if first in COUNTS else 1
    relation, then = (*links, None, None)[:2]
    return Scene(tuple(things * number if not links else things), relation, then=then)


def placed(scene: Scene, turn: float, rng: np.random.Generator) -> Scene:
    """A scene of the same description, turned by an angle in radians."""
    c, s = math.cos(turn), math.sin(turn)
    things = []
    for thing in place(scene.things, scene.links, rng):
        x, y, z = thing.position
        things.append(replace(thing, position=(c * x - s * y, s * x + c * y, z), yaw=turn))
    return replace(scene, things=tuple(things), seed=int(rng.integers(2**31)))


def descriptions(prompt: str, rng: np.random.Generator) -> list[str]:
    """The prompt, and descriptions of what is nearly it.

    Of several things, missing fronts are left out: the faces of small snowmen are a few pixels.
    """
    scene = scene_of(prompt)
    found = {
        text
        for _ in range(ALTERNATIVES)
        for kind, text in false_captions(scene, rng, rich=True)
        if kind != "front" or len(scene.things) == 1
    }
    return [prompt, *sorted(found)]


def colored(images: Tensor) -> Tensor:
    """(V, C, H, W): where each class but the background is seen, centered."""
    classes = classes_of(images)
    there = classes < NOTHING
    masks = F.one_hot(classes, NOTHING + 1)[..., :NOTHING].movedim(-1, 1).float()
    return centered(masks, there)


def overlap(seen: Tensor, templates: Tensor) -> Tensor:
    """Intersection over union of all colors and views: (V, C, H, W), (T, V, C, H, W) -> (T,)."""
    both = torch.minimum(seen, templates).sum((1, 2, 3, 4))
    return both / torch.maximum(seen, templates).sum((1, 2, 3, 4)).clamp_min(1e-6)


class CaptionTemplates:
    """Says which of a prompt and its minimal changes the views of known cameras show.

    Args:
        cameras: V cameras.
        draws: pictures of each description.
    """

    def __init__(self, cameras: Cameras, draws: int = DRAWS) -> None:
        self.cameras, self.draws = cameras, draws
        self._known: dict[str, Tensor] = {}

    def _templates(self, text: str) -> Tensor:
        if text not in self._known:
            rng = np.random.default_rng(0)
            turns = 2 * math.pi * np.arange(self.draws) / self.draws
            scenes = [placed(scene_of(text), float(turn), rng) for turn in turns]
            masks = [colored(on_white(scene, self.cameras)) for scene in scenes]
            self._known[text] = torch.stack(masks).to(torch.float16)
        return self._known[text].float()

    def best(self, images: Tensor, texts: list[str]) -> str:
        """The text whose templates overlap most with the images (V, 3, H, W) on white."""
        seen = colored(images)
        scores = [float(overlap(seen, self._templates(text)).max()) for text in texts]
        return texts[int(np.argmax(scores))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--seed", type=int, default=508)
    options = parser.parse_args()
    cameras, rng = cameras_of_runs(), np.random.default_rng(options.seed)
    marks: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for number in tqdm(range(options.scenes), desc="scenes"):
        kind = list(KINDS)[number % len(KINDS)]
        drawn = sample_composition(rng, kind)
        scene = placed(drawn, float(rng.uniform(0, 2 * math.pi)), rng)
        prompt = caption(drawn)
        found = CaptionTemplates(cameras).best(on_white(scene, cameras), descriptions(prompt, rng))
        marks[kind].append(found == prompt)
        if found != prompt:
            tqdm.write(f"{prompt}: {found}")
    for kind, right in marks.items():
        print(f"{kind}: {sum(right)} of {len(right)} right")


if __name__ == "__main__":
    main()
