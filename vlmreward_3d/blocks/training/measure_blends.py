"""Share of blends of two scenes about which a VLM gives the right answer.

``python -m vlmreward_3d.blocks.training.measure_blends --data HELD_OUT_BLENDS``

Two scenes that differ in one thing, of a seed that training never used, are blended as in
`vlmreward_3d.blocks.world.mixtures`: parts with borders, hazes, other views. The caption of a scene
is right where at least nine tenths of it are left in every view, and wrong where a view has at
most six tenths of it; blends between the two are not asked about. Prints the share of Yes among the
right captions and of No among the wrong ones, with 95 % intervals (Wilson), and the probability
that a right caption has higher log-odds than a wrong one (area under the ROC curve).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from tqdm import tqdm

from vlmreward import YesNoReward
from vlmreward_3d.blocks.training.alignment import pairs_of
from vlmreward_3d.blocks.training.evaluate_vlm import HELD_OUT_SEED
from vlmreward_3d.blocks.world.augment import augment_and_composite
from vlmreward_3d.blocks.world.dataset import RING, BlocksData, render_dataset
from vlmreward_3d.blocks.world.descriptions import caption
from vlmreward_3d.blocks.world.mixtures import blend_weights, shares, truth_of

__all__ = ["answers", "auc"]

MODELS = ["builtin/blocks", "builtin/robust", "builtin/aligned", "builtin/strict"]


@torch.no_grad()
def answers(reward: YesNoReward, data: BlocksData, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds for right captions and for wrong ones, of the blends of some pairs.

    Args:
        reward: The reward.
        data: Scenes and their counterparts.
        count: Number of pairs of flawless scenes; all if there are fewer.
    """
    right: list[float] = []
    wrong: list[float] = []
    whole = [(one, two) for one, two in pairs_of(data) if data.scenes[two].flaw is None]
    for one, two in tqdm(whole[:count], desc="pairs", leave=False):
        rng = np.random.default_rng(one)
        first, second = (data.rgba[k, :RING].float() for k in (one, two))
        weights = blend_weights(RING, first.shape[1], rng, borders=True)
        blend = torch.lerp(first, second, weights).round().to(torch.uint8)
        views = augment_and_composite(blend[None], torch.Generator().manual_seed(one), strength=0.0)
        for scene, share in zip((one, two), shares(first, second, weights)):
            truth = truth_of(share)
            if truth in (0.0, 1.0):
                odds = reward(views, prompt=caption(data.scenes[scene], rng)).item()
                (right if truth else wrong).append(odds)
    return np.array(right), np.array(wrong)


def auc(right: np.ndarray, wrong: np.ndarray) -> float:
    """Probability that a value of the first array exceeds one of the second, ties by half."""
    above = right[:, None] > wrong[None]
    equal = right[:, None] == wrong[None]
    return float((above + 0.5 * equal).mean())


def _share(hits: np.ndarray) -> str:
    interval = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return f"{hits.mean():.0%} [{interval.low:.0%}, {interval.high:.0%}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of held-out scenes")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--scenes", type=int, default=500, help="scenes to render or load")
    parser.add_argument("--pairs", type=int, default=200, help="pairs of them")
    args = parser.parse_args(arguments)
    data = render_dataset(args.data, args.scenes, seed=HELD_OUT_SEED, counterparts=True)
    tqdm.write(
        "| model | right, and Yes | wrong, and No | area under the curve |\n|---|--:|--:|--:|"
    )
    for name in args.models:
        right, wrong = answers(YesNoReward(name, question="yes-no"), data, args.pairs)
        shown = f"{_share(right > 0)} | {_share(wrong < 0)} | {auc(right, wrong):.3f}"
        tqdm.write(f"| `{name}` | {shown} |")


if __name__ == "__main__":
    main()
