"""A judge that has learnt to count fronts: a convolutional network that looks at a turntable.

It shares neither architecture, nor weights, nor training objects with the models that make the
assets. It says whether an object has no front, one, or several ("Janus problem"):

    python examples/evaluation/front_judge.py --data DATA --out FRONTS

The command renders mugs, chairs, cars and snowmen with none to four fronts, trains, prints how many
unseen objects are counted right, and writes FRONTS/front_judge.safetensors.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from front_templates import layouts, with_fronts
from judge import COLOR_NAMES, Block
from judge_training import fit
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from vlmreward_3d.blocks.training.trainer import command_line
from vlmreward_3d.blocks.world.augment import augment_and_composite
from vlmreward_3d.blocks.world.dataset import CAMERA_SCALE, ELEVATION_DEG, FOV_DEG, VIEW_SIZE
from vlmreward_3d.blocks.world.raycast import raycast
from vlmreward_3d.blocks.world.scenes import COMPOUNDS, pick
from vlmreward_3d.cameras import Cameras

COUNTS = ("none", "one", "several")
VIEWS = 8
TRAIN_SEED, TEST_SEED = 506, 507


class FrontJudge(nn.Module):
    """Views (N, 8, 3, 64, 64) in [0, 1] of turntables, 45 degrees apart, to logits of `COUNTS`.

    The logits are the same from wherever the turntable begins.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        w = width
        self.stem = nn.Conv2d(3, w, 5, 2, 2)
        self.trunk = nn.Sequential(
            nn.GroupNorm(4, w),
            nn.ReLU(),
            Block(w, 2 * w, 2),
            Block(2 * w, 4 * w, 2),
            Block(4 * w, 4 * w, 2),
        )
        self.view = nn.Linear(16 * 4 * w, 8 * w)
        self.around = nn.ModuleList(
            nn.Conv1d(8 * w, 8 * w, 3, padding=1, padding_mode="circular") for _ in range(2)
        )
        self.head = nn.Linear(16 * w, len(COUNTS))

    def forward(self, images: Tensor) -> Tensor:
        n, v = images.shape[:2]
        cells = self.trunk(self.stem(images.flatten(0, 1) * 2 - 1)).flatten(1)
        hidden = F.relu(self.view(cells)).reshape(n, v, -1).transpose(1, 2)
        for layer in self.around:
            hidden = hidden + F.relu(layer(hidden))
        return self.head(torch.cat([hidden.mean(-1), hidden.amax(-1)], -1))

    @torch.no_grad()
    def count(self, images: Tensor) -> int:
        """Fronts in the views (8, 3, 64, 64) of one object: 0, 1, or 2 for several."""
        return int(self(images[None]).argmax())


def load_front_judge(path: Path) -> FrontJudge:
    judge = FrontJudge()
    judge.load_state_dict(load_file(path))
    return judge.eval()


def render_objects(path: Path, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Turntables (N, 8, 64, 64, 4) uint8 of random objects, and classes (N,); kept in a file."""
    if not path.exists():
        rng = np.random.default_rng(seed)
        rgba, classes = [], []
        for _ in tqdm(range(count), desc="render objects"):
            shape, wanted = str(rng.choice(COMPOUNDS)), int(rng.integers(len(COUNTS)))
            fitting = [x for x in layouts(shape) if min(len(x), 2) == wanted]
            quarters = pick(fitting, rng)
            scene = with_fronts(
                shape,
                str(rng.choice(COLOR_NAMES)),
                quarters,
                float(rng.uniform(0, 2 * np.pi)),
                float(rng.uniform(0.54, 0.65)),
            )
            fov = rng.uniform(*FOV_DEG)
            distance = rng.uniform(*CAMERA_SCALE) / np.tan(np.radians(fov) / 2)
            cameras = Cameras.turntable(
                VIEWS, elevation=rng.uniform(*ELEVATION_DEG), distance=distance, fov=fov
            )
            views = raycast(scene, cameras, VIEW_SIZE).rgba
            rgba.append((views * 255).round().to(torch.uint8))
            classes.append(wanted)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        save_file({"rgba": torch.stack(rgba), "classes": torch.tensor(classes)}, draft)
        os.replace(draft, path)
    kept = load_file(path)
    return kept["rgba"], kept["classes"]


@torch.no_grad()
def accuracy(judge: FrontJudge, rgba: Tensor, classes: Tensor) -> float:
    """Share of clean objects whose fronts are counted right."""
    generator = torch.Generator().manual_seed(0)
    found = [
        judge(augment_and_composite(part, generator, strength=0)).argmax(-1)
        for part in rgba.split(16)
    ]
    return float((torch.cat(found) == classes).float().mean())


def train(args: argparse.Namespace) -> None:
    """Train, or go on from ``args.out/state.pt``; writes ``args.out/front_judge.safetensors``."""
    rgba, classes = render_objects(
        args.data / f"train-{args.seed}.safetensors", args.scenes, args.seed
    )

    def draw(rng: np.random.Generator, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
        rows = rng.choice(len(rgba), args.batch, replace=False)
        return [augment_and_composite(rgba[rows], generator, strength=0.5)], classes[rows]

    torch.manual_seed(args.seed)
    judge = FrontJudge()
    layers = [judge.trunk, judge.view, judge.around]
    trained = fit(judge, layers, args, draw, F.cross_entropy, warmup=50, name="fronts")
    test = render_objects(args.data / f"test-{TEST_SEED}.safetensors", 300, TEST_SEED)
    print(f"{accuracy(trained, *test):.1%} of {len(test[0])} unseen objects counted right")
    save_file(trained.state_dict(), args.out / "front_judge.safetensors")


def main() -> None:
    parser = command_line(
        __doc__, steps=1200, batch="objects a step", batch_size=16, lr=1e-3, matrix_lr=4e-3
    )
    parser.set_defaults(scenes=3000, seed=TRAIN_SEED)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
