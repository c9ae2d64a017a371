"""A tournament of the built-in world, for a first look: three methods of known quality."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from tournament.layout import METHODS, PROMPTS, asset_folder, frame
from tournament.pictures import save_png
from vlmreward.utils.output import write_atomically
from vlmreward_3d.blocks.world.descriptions import caption, other
from vlmreward_3d.blocks.world.raycast import raycast
from vlmreward_3d.blocks.world.scenes import COLORS, Scene, sample_scene
from vlmreward_3d.cameras import Cameras

FRAMES = 4
_WHOLE, _COLOR, _FLOATERS = "right", "wrong-color", "with-floaters"


def draw_tournament(root: Path, *, prompts: int = 6, size: int = 128, seed: int = 0) -> Path:
    """Ray-cast scenes that are right, have an object of a wrong color, or pieces around them.

    Args:
        root: the folder; one that is there is drawn again where it is not whole.
        prompts: number of scenes.
        size: height and width of a frame in pixels.
        seed: Seed of the scenes.

    Returns:
        The folder, in GPTEval3D's layout.
    """
    rng = np.random.default_rng(seed)
    cameras = Cameras.turntable(FRAMES, elevation=15.0, distance=2.5)
    texts = []
    for number in range(prompts):
        scene = sample_scene(rng)
        texts.append(caption(scene))
        for method, drawn in variants(scene, rng).items():
            folder = asset_folder(root, method, number)
            files = [frame(folder, "rgb", i) for i in range(FRAMES)]
            if all(file.exists() for file in files):
                continue
            folder.mkdir(parents=True, exist_ok=True)
            rgba = raycast(drawn, cameras, size).rgba.movedim(-1, 1)
            for file, view in zip(files, rgba):
                save_png(file, view[:3] + 1 - view[3:])
    (root / METHODS).mkdir(parents=True, exist_ok=True)
    write_atomically(root / PROMPTS, json.dumps(texts, indent=1) + "\n")
    return root


def variants(scene: Scene, rng: np.random.Generator) -> dict[str, Scene]:
    """The scene by each of the three methods."""
    first = scene.things[0]
    wrong = replace(first, color=other(COLORS, first.color, rng))
    return {
        _WHOLE: scene,
        _COLOR: replace(scene, things=(wrong, *scene.things[1:])),
        _FLOATERS: replace(scene, flaw="floaters"),
    }
