"""A judge of assets that takes no part in any optimisation: a convolutional network.

It shares neither architecture, nor weights, nor training scenes with the models that make the
assets. From several views it reads the kind of scene and what is where:

    python tests/evaluation/judge.py --data DIR --out judge.safetensors
"""

from __future__ import annotations

import argparse
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from vlmreward_3d.blocks.augment import compose
from vlmreward_3d.blocks.dataset import BlocksData, render_dataset
from vlmreward_3d.blocks.scenes import COLORS, SHAPES, Scene

KINDS = (None, "on top of", "next to")
COLOR_NAMES = tuple(COLORS)
TRAIN_SEED, TEST_SEED = 501, 502


def target(relation: str | None, words: list[tuple[str, str]]) -> list[int]:
    """Kind, then colour and shape of the first and the second thing (-100: there is none).

    Things that stand next to each other have no order: they are sorted.
    """
    numbers = [(COLOR_NAMES.index(c), SHAPES.index(s)) for c, s in words]
    if relation == "next to":
        numbers.sort()
    second = numbers[1] if len(numbers) > 1 else (-100, -100)
    return [KINDS.index(relation), *numbers[0], *second]


def target_of(scene: Scene) -> list[int]:
    return target(scene.relation, [t.words for t in scene.things])


def target_of_prompt(prompt: str) -> list[int]:
    relation = next((k for k in KINDS if k and k in prompt), None)
    words = prompt.split()
    things = [(a, b) for a, b in pairwise(words) if a in COLORS and b in SHAPES]
    return target(relation, things)


class Block(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(out) for _ in range(2))
        self.skip = nn.Conv2d(inside, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(y)) + self.skip(x))


class Judge(nn.Module):
    """Views (N, V, 3, 64, 64) in [0, 1] to logits of the five parts of a target."""

    SIZES = (len(KINDS), len(COLORS), len(SHAPES), len(COLORS), len(SHAPES))

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        w = width
        self.trunk = nn.Sequential(
            nn.Conv2d(3, w, 5, 2, 2, bias=False),
            nn.BatchNorm2d(w),
            nn.ReLU(),
            Block(w, 2 * w, 2),
            Block(2 * w, 3 * w, 2),
            Block(3 * w, 4 * w, 1),
        )
        # rows are kept apart: what is on top is a matter of height
        self.view = nn.Sequential(nn.Linear(4 * w * 8 * 2, 256), nn.ReLU())
        self.scene = nn.Sequential(nn.Linear(512, 256), nn.ReLU())
        # the two things of a row and of a stack are read by different heads
        self.heads = nn.ModuleList(nn.Linear(256, sum(self.SIZES[1:])) for _ in KINDS)
        self.kind = nn.Linear(256, len(KINDS))

    def features(self, images: Tensor) -> Tensor:
        n, v = images.shape[:2]
        x = self.trunk(images.flatten(0, 1) * 2 - 1)
        rows = torch.cat([x.mean(3), x.amax(3)], 1).flatten(1)
        x = self.view(rows).reshape(n, v, -1)
        return self.scene(torch.cat([x.mean(1), x.amax(1)], -1))

    def forward(self, images: Tensor, kinds: Tensor | None = None) -> list[Tensor]:
        """Logits; the heads are those of ``kinds`` (N,), or of the kind found likeliest."""
        x = self.features(images)
        kind = self.kind(x)
        chosen = kind.argmax(-1) if kinds is None else kinds
        every = torch.stack([head(x) for head in self.heads], 1)
        parts = every[torch.arange(len(x)), chosen].split(self.SIZES[1:], -1)
        return [kind, *parts]

    @torch.no_grad()
    def read(self, images: Tensor) -> list[list[int]]:
        """Targets that the views are most likely of."""
        found = torch.stack([part.argmax(-1) for part in self(images)], -1)
        found[found[:, 0] == 0, 3:] = -100
        return found.tolist()


def load_judge(path: Path) -> Judge:
    judge = Judge()
    judge.load_state_dict(load_file(path))
    return judge.eval()


def accuracy(judge: Judge, data: BlocksData, views: int = 8) -> dict[str, float]:
    """Share of clean, flawless scenes that are read without any mistake, of singles and pairs."""
    marks: dict[str, list[bool]] = {"singles": [], "pairs": []}
    rows = [i for i, s in enumerate(data.scenes) if s.flaw is None]
    generator = torch.Generator().manual_seed(0)
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        found = judge.read(compose(data.rgba[part, :views], generator, strength=0))
        for i, reading in zip(part, found):
            kind = "pairs" if data.scenes[i].relation else "singles"
            marks[kind].append(reading == target_of(data.scenes[i]))
    everything = marks["singles"] + marks["pairs"]
    return {k: float(np.mean(v)) for k, v in {**marks, "all": everything}.items()}


def train(args: argparse.Namespace) -> None:
    data = render_dataset(args.data / "train", args.scenes, seed=TRAIN_SEED, flawed=0.0)
    torch.manual_seed(TRAIN_SEED)
    judge = Judge()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.05)
    targets = torch.tensor([target_of(s) for s in data.scenes])
    for step in (bar := tqdm(range(args.steps), desc="judge")):
        rng = np.random.default_rng([TRAIN_SEED, step])
        rate = min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * rate
        rows = rng.choice(len(data), args.batch, replace=False)
        first = int(rng.integers(2)) * 4
        generator = torch.Generator().manual_seed(step)
        images = compose(data.rgba[rows, first : first + 4], generator, strength=0.6)
        wanted = targets[rows]
        logits = judge(images, wanted[:, 0])
        loss = sum(
            (
                F.cross_entropy(part, wanted[:, i], ignore_index=-100)
                for i, part in enumerate(logits)
            ),
            torch.zeros(()),
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    judge.eval()
    test = render_dataset(args.data / "test", 500, seed=TEST_SEED, flawed=0.0)
    print({k: round(v, 4) for k, v in accuracy(judge, test).items()}, "on", len(test), "scenes")
    save_file(judge.state_dict(), args.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder for rendered scenes")
    parser.add_argument("--out", type=Path, required=True, help="file of the judge's weights")
    parser.add_argument("--scenes", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=24)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
