"""A judge of compositions that has learnt: which of several descriptions do the views show?

A convolutional network reads the views, and a small text network asks it, word by word, how well a
description fits. It shares neither weights nor training scenes with the models that make assets:

    python examples/evaluation/caption_judge.py --data DATA --out CAPTIONS

An asset shows its prompt where no minimal change of the prompt (another color or number, exchanged
sizes, ...) fits better. The command prints for how many unseen scenes that is so, and writes
CAPTIONS/caption_judge.safetensors.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from judge import Judge
from judge_training import fit
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlmreward.models.vocabulary import words_of
from vlmreward_3d.blocks.training.trainer import command_line
from vlmreward_3d.blocks.world.augment import augment_and_composite
from vlmreward_3d.blocks.world.captions import known_words
from vlmreward_3d.blocks.world.dataset import RING, BlocksData, render_dataset
from vlmreward_3d.blocks.world.descriptions import caption, false_captions, same_meaning

WORDS = ("", *known_words(captions=True, rich=True))
"""Words of descriptions; the first stands for none."""
LENGTH = 24
CELLS = 16
COMPOSED = 0.6
"""Share of compositions among the scenes."""
DESCRIPTIONS = 8
"""Descriptions of each training scene, of which the first is true."""
TRAIN_SEED, TEST_SEED = 509, 510


def encode(texts: Sequence[str]) -> Tensor:
    """Numbers (K, 24) of the words of each text, 0 behind its end."""
    rows = [[WORDS.index(word) for word in words_of(text)] for text in texts]
    return torch.tensor([row + [0] * (LENGTH - len(row)) for row in rows])


class CaptionJudge(nn.Module):
    """Views (N, V, 3, 64, 64) in [0, 1] and K encoded texts for each to scores (N, K).

    The order of the views does not matter.
    """

    def __init__(self, width: int = 32, size: int = 128, layers: int = 2) -> None:
        super().__init__()
        eyes = Judge(width)
        self.stem, self.trunk = eyes.stem, eyes.trunk
        self.cells = nn.Linear(16 * width, size)
        self.where = nn.Parameter(0.02 * torch.randn(CELLS, size))
        self.words = nn.Embedding(len(WORDS), size)
        self.order = nn.Parameter(0.02 * torch.randn(LENGTH, size))
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(size, 4, 2 * size, 0.0, batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.head = nn.Linear(size, 1)

    def look(self, images: Tensor) -> Tensor:
        """The features of the cells of all views: (N, V * 16, D)."""
        n, v = images.shape[:2]
        cells = self.trunk(self.stem(images.flatten(0, 1) * 2 - 1)).flatten(2).transpose(1, 2)
        return (self.cells(cells) + self.where).reshape(n, v * CELLS, -1)

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        n, k = texts.shape[:2]
        seen = self.look(images).repeat_interleave(k, 0)
        flat = texts.flatten(0, 1)
        nothing = flat == 0
        hidden = self.words(flat) + self.order
        for layer in self.layers:
            hidden = layer(hidden, seen, tgt_key_padding_mask=nothing)
        kept = hidden.masked_fill(nothing[..., None], 0).sum(1) / (~nothing).sum(1, keepdim=True)
        return self.head(kept).reshape(n, k)

    @torch.no_grad()
    def best(self, images: Tensor, texts: Sequence[str]) -> str:
        """The text that fits the views (V, 3, 64, 64) best."""
        scores = self(images[None], encode(texts)[None])
        return texts[int(scores.argmax())]


def load_caption_judge(path: Path) -> CaptionJudge:
    judge = CaptionJudge()
    judge.load_state_dict(load_file(path))
    return judge.eval()


def descriptions_of(data: BlocksData, row: int, rng: np.random.Generator) -> list[str]:
    """A true description of a scene, then false ones: minimal changes, and other scenes'."""
    scene = data.scenes[row]
    truth = caption(scene, rng)
    changes = [text for _, text in false_captions(scene, rng, rich=True)]
    changes = [changes[i] for i in rng.permutation(len(changes))][: DESCRIPTIONS - 2]
    out = [truth, *changes]
    while len(out) < DESCRIPTIONS:
        other = data.scenes[int(rng.integers(len(data)))]
        text = caption(other, rng)
        if text not in out and not same_meaning(other, scene):
            out.append(text)
    return out


def accuracy(judge: CaptionJudge, data: BlocksData) -> float:
    """Share of clean scenes whose description fits better than its minimal changes."""
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    right = []
    for row, scene in enumerate(data.scenes):
        views = augment_and_composite(data.rgba[row : row + 1], generator, strength=0)[0]
        truth = caption(scene)
        changes = [text for _, text in false_captions(scene, rng, rich=True)]
        right.append(judge.best(views, [truth, *changes]) == truth)
    return float(np.mean(right))


def train(args: argparse.Namespace) -> None:
    """Train, or go on from ``args.out/state.pt``; writes ``args.out/caption_judge.safetensors``."""
    data = render_dataset(
        args.data / "train", args.scenes, seed=args.seed, flawed=0.0, composed=COMPOSED
    )

    def draw(rng: np.random.Generator, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
        rows = rng.choice(len(data), args.batch, replace=False)
        first = int(rng.integers(2)) * RING
        views = data.rgba[rows, first : first + RING]
        images = augment_and_composite(views, generator, strength=0.5)
        texts = torch.stack([encode(descriptions_of(data, int(row), rng)) for row in rows])
        return [images, texts], torch.zeros(len(rows), dtype=torch.long)

    torch.manual_seed(args.seed)
    judge = CaptionJudge()
    layers = [judge.trunk, judge.cells, judge.layers]
    trained = fit(judge, layers, args, draw, F.cross_entropy, warmup=100, name="captions")
    test = render_dataset(
        args.data / "test", args.test_scenes, seed=TEST_SEED, flawed=0.0, composed=COMPOSED
    )
    print(f"{accuracy(trained, test):.1%} of {len(test)} unseen scenes recognized")
    save_file(trained.state_dict(), args.out / "caption_judge.safetensors")


def main() -> None:
    parser = command_line(
        __doc__, steps=4000, batch="scenes a step", batch_size=16, lr=1e-3, matrix_lr=4e-3
    )
    parser.add_argument("--test-scenes", type=int, default=500, help="unseen scenes at the end")
    parser.set_defaults(scenes=6000, seed=TRAIN_SEED)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
