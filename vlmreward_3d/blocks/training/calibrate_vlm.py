"""Calibration curves of a built-in VLM's answers.

``python -m vlmreward_3d.blocks.training.calibrate_vlm --data HELD_OUT --out calibration.png``

Left: share of questions whose true answer is Yes, over the probability of Yes that the model
gives; a calibrated model is on the diagonal. Middle: probability of Yes for blends of two scenes,
over the probability that is right (`vlmreward_3d.blocks.world.mixtures.truth_of`); it should be
low where the scene that the question is about is not there, and rise. Right: probability of Yes to
the caption of a scene, asked once about four views, over the share of views that show the scene
while the others show a scene that differs in one thing; it should be low until all views show it.
The scenes have a seed that training never used; views are damaged as in training, except for the
right curve; each question is a query of its own through ``YesNoReward``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from vlmreward import YesNoReward
from vlmreward_3d.blocks.training.alignment import pairs_of
from vlmreward_3d.blocks.training.evaluate_vlm import HELD_OUT_SEED
from vlmreward_3d.blocks.world.augment import augment_and_composite
from vlmreward_3d.blocks.world.dataset import RING, BlocksData, render_dataset
from vlmreward_3d.blocks.world.descriptions import caption
from vlmreward_3d.blocks.world.questions import QuestionSampler

BINS = 10


@torch.no_grad()
def answers(
    reward: YesNoReward, data: BlocksData, batches: int, *, mixtures: float
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true probabilities of Yes of all questions about some batches of 8 scenes.

    Args:
        reward: Reward with the question ``"{prompt}"``.
        data: Scenes and their counterparts.
        batches: Number of batches.
        mixtures: 0 for scenes without blends; 1 for blends, and questions about them alone.
    """
    sampler = QuestionSampler(data, HELD_OUT_SEED, mixtures=mixtures)
    said: list[float] = []
    true: list[float] = []
    for number in tqdm(range(batches), desc="blends" if mixtures else "scenes"):
        batch = sampler.draw(number, 8)
        generator = torch.Generator().manual_seed(number)
        images = augment_and_composite(batch.rgba, generator, fade=batch.fade)
        asked = [
            (view, question)
            for view, questions in zip(images, batch.questions)
            for question in questions
            if (question.probability is not None) == (mixtures > 0)
        ]
        views = torch.stack([view for view, _ in asked])
        odds = reward(views, prompt=[question.text for _, question in asked])
        said += odds.sigmoid().tolist()
        true += [question.truth for _, question in asked]
    return np.array(said), np.array(true)


@torch.no_grad()
def answers_by_views(reward: YesNoReward, data: BlocksData) -> dict[str, list[float]]:
    """Mean probability of Yes to the caption of a scene, by the share of the views that show it."""
    rng = np.random.default_rng(0)
    pairs = [(one, two) for one, two in pairs_of(data) if data.scenes[two].flaw is None]
    said: list[list[float]] = []
    for one, two in tqdm(pairs, desc="views"):
        order = rng.permutation(RING)
        views = data.rgba[one, :RING].repeat(RING + 1, 1, 1, 1, 1)
        for k in range(RING + 1):
            views[k, order[k:]] = data.rgba[two, order[k:]]
        images = augment_and_composite(views, torch.Generator().manual_seed(one), strength=0.0)
        odds = reward(images, prompt=f"Does this image show {caption(data.scenes[one])}?")
        said.append(odds.sigmoid().tolist())
    shares = [k / RING for k in range(RING + 1)]
    return {"at": shares, "mean": np.mean(said, 0).tolist(), "n": [len(pairs)] * len(shares)}


def curve(at: np.ndarray, values: np.ndarray) -> dict[str, list[float]]:
    """Means of `at` and `values` in ten equally wide bins of `at` in [0, 1]; no empty bins."""
    which = np.clip((at * BINS).astype(int), 0, BINS - 1)
    filled = [b for b in range(BINS) if (which == b).any()]
    return {
        "at": [float(at[which == b].mean()) for b in filled],
        "mean": [float(values[which == b].mean()) for b in filled],
        "n": [int((which == b).sum()) for b in filled],
    }


def calibration_error(said: np.ndarray, true: np.ndarray) -> float:
    """Expected calibration error (Guo et al., 2017): mean distance of the curve to the diagonal."""
    bins = curve(said, true)
    gaps = np.abs(np.array(bins["at"]) - np.array(bins["mean"]))
    return float(np.average(gaps, weights=bins["n"]))


def draw(measured: dict[str, dict], path: Path) -> None:
    """Draw the curves of every model as a picture."""
    figure = Figure(figsize=(12.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    yes = "mean probability of Yes"
    parts = (
        ("scenes", "held-out questions", "probability of Yes", "share of Yes"),
        ("blends", "blends of two scenes", "right probability of Yes", yes),
        ("views", "views of two scenes, asked about once", "share of its views", yes),
    )
    axes = figure.subplots(1, len(parts))
    for axis, (part, title, x, y) in zip(axes, parts):
        axis.plot((0, 1), (0, 1), color="0.7", linewidth=1)
        for name, curves in measured.items():
            axis.plot(curves[part]["at"], curves[part]["mean"], marker="o", ms=3, label=name)
        axis.set(title=title, xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of held-out scenes")
    parser.add_argument("--models", nargs="+", default=["builtin/blocks", "builtin/robust"])
    parser.add_argument("--scenes", type=int, default=500, help="scenes to render or load")
    parser.add_argument("--batches", type=int, default=40, help="of 8 scenes, for each curve")
    parser.add_argument("--out", type=Path, required=True, help="the picture; a .json beside it")
    args = parser.parse_args(arguments)
    data = render_dataset(args.data, args.scenes, seed=HELD_OUT_SEED, counterparts=True)
    measured = {}
    for name in args.models:
        reward = YesNoReward(name, question="{prompt}")
        said, true = answers(reward, data, args.batches, mixtures=0.0)
        blended, shares = answers(reward, data, args.batches, mixtures=1.0)
        measured[name] = {
            "scenes": curve(said, true),
            "blends": curve(shares, blended),
            "views": answers_by_views(reward, data),
            "calibration error": calibration_error(said, true),
            "accuracy": float(((said > 0.5) == (true > 0.5)).mean()),
        }
        error, accuracy = (measured[name][k] for k in ("calibration error", "accuracy"))
        tqdm.write(f"{name}: {accuracy:.1%} right, calibration error {error:.3f}")
    draw(measured, args.out)
    args.out.with_suffix(".json").write_text(json.dumps(measured, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
