"""Do pictures that were optimized under ExpectationOverTransformations mean more to others?

    python examples/evaluation/evaluate_image_optimization.py \\
        --out DIR

Runs the two arms of ``examples/optimize_image.py`` on pictures of one object that become
another one. Two judges that take no part look at the results: a convolutional network (judge.py)
and the built-in denoiser as a classifier. Prints a table of the means and
of the paired differences, with 95 % intervals (Student).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from evaluate_fooling import pictures, read_right, votes
from judge import WEIGHTS, load_judge
from scipy import stats
from torch import Tensor
from torchvision.utils import save_image
from tqdm import tqdm

from vlmreward import YesNoReward

sys.path.insert(0, str(Path(__file__).parents[1]))
import optimize_image
from judges import DenoiserJudge


def interval(values: Tensor) -> str:
    """Mean and 95 % interval of independent values."""
    half = stats.t.ppf(0.975, len(values) - 1) * float(values.std()) / len(values) ** 0.5
    return f"{float(values.mean()):.2f} ± {half:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--judge", type=Path, default=WEIGHTS, help="weights made by judge.py; default: %(default)s"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="builtin/blocks", help="default: %(default)s")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--arms", nargs="*", help="beginnings of names; default: all")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    convolutional, denoiser = load_judge(options.judge), DenoiserJudge()
    vlm = YesNoReward(options.model, device="cpu")
    start, wanted = pictures(options.pictures)
    prompts = [f"a {color} {shape}" for color, shape in wanted]
    found = {"before": start}
    for name, reward in optimize_image.arms(vlm, samples=4, strength=2.0).items():
        if options.arms and not any(name.startswith(arm) for arm in options.arms):
            continue
        with tqdm(total=options.steps, desc=name, unit="step") as bar:
            found[name] = optimize_image.optimize(
                reward, start, prompts, steps=options.steps, report=lambda *_, bar=bar: bar.update()
            )

    columns = ("reward", "CNN: color", "CNN: shape", "CNN: both", "denoiser")
    values = {}
    for name, images in found.items():
        save_image(images, options.out / f"{name.replace(' ', '-')}.png", nrow=8)
        with torch.no_grad():
            values[name] = [
                vlm(images, prompt=prompts),
                *votes(convolutional, images, wanted),
                read_right(convolutional, images, wanted),
                denoiser(images, prompt=prompts),
            ]
    if values.keys() >= {"augmented", "reward alone"}:
        pairs = zip(values["augmented"], values["reward alone"])
        values["augmented - alone"] = [with_ - without for with_, without in pairs]
    print("| | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, row in values.items():
        print(f"| {name} | " + " | ".join(interval(column) for column in row) + " |")


if __name__ == "__main__":
    main()
