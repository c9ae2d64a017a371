"""Alignment of a reward's gradient at the pixels with the change that its question asks for.

``python -m vlmreward_3d.blocks.training.measure_alignment --data HELD_OUT``

Two scenes that differ in one thing, of a seed that training never used, are blended half and half.
The measure is the cosine between the gradient of the log-odds for the caption of one scene and the
difference of the two pictures, over all views together. At 1, the gradient paints that scene and
removes the other; at 0, it does neither. Prints means with 95 % intervals (Student), for the reward
alone and for its mean over random transformations.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from vlmreward import YesNoReward
from vlmreward.wrappers import ExpectationOverTransformations
from vlmreward_3d.blocks.training.alignment import pairs_of
from vlmreward_3d.blocks.training.evaluate_vlm import HELD_OUT_SEED
from vlmreward_3d.blocks.world.augment import augment_and_composite
from vlmreward_3d.blocks.world.dataset import RING, BlocksData, render_dataset
from vlmreward_3d.blocks.world.descriptions import caption

__all__ = ["cosines"]

MODELS = ["builtin/blocks", "builtin/robust", "builtin/aligned"]


def cosines(reward: Callable[..., Tensor], data: BlocksData, count: int) -> np.ndarray:
    """The cosines (count,) for some pairs of flawless scenes, of things in a relation or alone.

    Args:
        reward: A reward on images (1, V, 3, H, W) in [0, 1].
        data: Scenes and their counterparts.
        count: Number of pairs; of fewer, all.
    """
    found: list[float] = []
    whole = [(one, two) for one, two in pairs_of(data) if data.scenes[two].flaw is None]
    for one, two in tqdm(whole[:count], desc="pairs", leave=False):
        # the same background for both
        first, second = (
            augment_and_composite(
                data.rgba[[k], :RING], torch.Generator().manual_seed(one), strength=0.0
            )
            for k in (one, two)
        )
        blend = ((first + second) / 2).requires_grad_()
        odds = reward(blend, prompt=caption(data.scenes[one], np.random.default_rng(one)))
        (slope,) = torch.autograd.grad(odds.sum(), blend)
        found.append(F.cosine_similarity(slope.flatten(), (first - second).flatten(), 0).item())
    return np.array(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of held-out scenes")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--scenes", type=int, default=500, help="scenes to render or load")
    parser.add_argument("--pairs", type=int, default=100, help="pairs of them")
    parser.add_argument("--transformations", type=int, default=4, help="default: %(default)s")
    args = parser.parse_args(arguments)
    data = render_dataset(args.data, args.scenes, seed=HELD_OUT_SEED, counterparts=True)
    tqdm.write("| model | reward | cosine |\n|---|---|--:|")
    for name in args.models:
        alone = YesNoReward(name, question="yes-no")
        averaged = ExpectationOverTransformations(
            alone, num_samples=args.transformations, generator=torch.Generator().manual_seed(0)
        )
        kinds = {"alone": alone, f"mean of {args.transformations} transformations": averaged}
        for kind, reward in kinds.items():
            values = cosines(reward, data, args.pairs)
            half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
            tqdm.write(f"| `{name}` | {kind} | {values.mean():.3f} ± {half:.3f} |")


if __name__ == "__main__":
    main()
