"""A folder of renders in GPTEval3D's layout whose frames are plain, and a judge who likes light."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from tournament.judges import Answer
from tournament.layout import Asset, asset_folder, frame

PROMPTS = ("a cup", "a <b>boat</b>", 'a "red" hat', "a dog")
LEVELS = {"dark": 60, "light & airy": 200, "middle": 130}
"""Gray levels of the methods' frames."""


def write_tournament(
    root: Path,
    *,
    levels: Mapping[str, int] = LEVELS,
    prompts: tuple[str, ...] = PROMPTS,
    frames: int = 4,
    size: int = 8,
) -> Path:
    """Write frames of one gray level a method, a bit different for each prompt and frame."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "prompts.json").write_text(json.dumps(prompts))
    for method, level in levels.items():
        for number in range(len(prompts)):
            folder = asset_folder(root, method, number)
            folder.mkdir(parents=True)
            for i in range(frames):
                for kind in ("rgb", "normal"):
                    gray = np.full((size, size, 3), level + 4 * number + i, np.uint8)
                    Image.fromarray(gray).save(frame(folder, kind, i))
    return root


def asset(root: Path, method: str, number: int = 0) -> Asset:
    return Asset(method, number, asset_folder(root, method, number))


class LightJudge:
    """Prefers the lighter asset, and the left side by some log-odds; noisy, but reproducible.

    Args:
        slope: log-odds of the whole range of gray levels.
        bias: log-odds in favor of the left side.
        noise: standard deviation of log-odds that depend on the picture alone.
        pause: seconds before each answer.
        name: identity of the judge.
    """

    def __init__(
        self,
        *,
        slope: float = 8.0,
        bias: float = 0.0,
        noise: float = 0.0,
        pause: float = 0.0,
        name: str = "light",
    ) -> None:
        self.slope, self.bias, self.noise, self.pause = slope, bias, noise, pause
        self.identity = {"kind": "test", "name": name}
        self.asked = 0

    def ask(self, question: str, images: Tensor) -> Answer:
        self.asked += 1
        time.sleep(self.pause)
        seed = hashlib.sha256(images.numpy().tobytes() + question.encode()).digest()
        odds = self.noise * float(np.random.default_rng(list(seed)).normal())
        if len(images) == 1:  # two assets in one picture
            half = images.shape[-1] // 2 - 8
            left, right = images[..., :half].mean(), images[..., -half:].mean()
            return Answer(odds + self.bias + self.slope * float(left - right))
        return Answer(odds + self.slope * (float(images.mean()) - 0.5))
