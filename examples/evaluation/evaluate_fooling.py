"""Transfer of pixels optimized for the built-in VLM: does another model see what it sees?

Pictures of one object are changed, pixel by pixel, towards the name of another one, with and
without the wrappers of ``vlmreward.wrappers``; then others look at them:

    python examples/evaluation/evaluate_fooling.py --out fooling
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from judge import COLOR_NAMES, SHAPES, WEIGHTS, Judge, load_judge, target
from torch import Tensor
from torchvision.utils import save_image

from vlmreward import YesNoReward
from vlmreward.wrappers import ExpectationOverTransformations, GradientBlur, QuestionEnsemble
from vlmreward_3d.blocks.world.dataset import sample_cameras
from vlmreward_3d.blocks.world.raycast import raycast
from vlmreward_3d.blocks.world.scenes import Scene, SceneObject, arrange

OTHER_WORDING = "Do the views show {prompt}?"
WORDINGS = ["Does this image show {prompt}? Answer Yes or No.", "Is this {prompt}?"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def arms(vlm: YesNoReward) -> dict[str, Callable[..., Tensor]]:
    def augmented() -> ExpectationOverTransformations:
        return ExpectationOverTransformations(
            vlm, num_samples=4, micro_batch_size=4, generator=seeded(1)
        )

    return {
        "the reward alone": vlm,
        "QuestionEnsemble, 2 wordings": QuestionEnsemble(vlm, WORDINGS),
        "GradientBlur, sigma 1.5": GradientBlur(vlm, 1.5),
        "EOT, 4 samples": augmented(),
        "EOT and GradientBlur": GradientBlur(augmented(), 1.5),
    }


def pictures(count: int) -> tuple[Tensor, list[tuple[str, str]]]:
    """Single objects on a light ground, and for each the color and shape it is to become."""
    rng, generator = np.random.default_rng(0), seeded(0)
    images, wanted = [], []
    for _ in range(count):
        colors, shapes = rng.permutation(COLOR_NAMES), rng.permutation(SHAPES)
        thing = SceneObject(str(shapes[0]), str(colors[0]), 0.5, float(rng.uniform(0, 6.28)))
        scene = Scene(arrange([thing], None, rng))
        rgba = raycast(scene, sample_cameras(generator, 1), 64).rgba[0].float()
        images.append((rgba[..., :3] + 0.85 * (1 - rgba[..., 3:])).movedim(-1, 0))
        wanted.append((str(colors[1]), str(shapes[1])))
    return torch.stack(images).clamp(0, 1), wanted


def optimize(
    reward: Callable[..., Tensor], images: Tensor, prompts: list[str], steps: int
) -> Tensor:
    x = images.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        (-reward(x, prompt=prompts).sum()).backward()
        optimizer.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    return x.detach()


@torch.no_grad()
def votes(judge: Judge, images: Tensor, wanted: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Share of the judge's votes for the wanted colors, and for the wanted shapes."""
    there, color, shape, _ = judge(images[:, None]).flatten(1, 2).split(judge.SIZES, -1)
    weight = there.sigmoid() / there.sigmoid().sum(1, keepdim=True)
    rows = torch.arange(len(images))
    c = [COLOR_NAMES.index(name) for name, _ in wanted]
    s = [SHAPES.index(name) for _, name in wanted]
    return (
        (weight * color.softmax(-1)).sum(1)[rows, c],
        (weight * shape.softmax(-1)).sum(1)[rows, s],
    )


def read_right(judge: Judge, images: Tensor, wanted: list[tuple[str, str]]) -> Tensor:
    """1 for each picture in which the judge reads the wanted color and shape, else 0: (B,)."""
    marks = [
        reading == target(None, [words])
        for reading, words in zip(judge.read(images[:, None]), wanted)
    ]
    return torch.tensor(marks, dtype=torch.float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--judge", type=Path, default=WEIGHTS, help="weights made by judge.py; default: %(default)s"
    )
    parser.add_argument("--model", default="builtin/blocks", help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--arms", nargs="*", help="beginnings of names; default: all")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    judge = load_judge(options.judge)
    vlm = YesNoReward(options.model, device="cpu")
    held_out = vlm.ask(OTHER_WORDING)
    images, wanted = pictures(options.pictures)
    prompts = [f"a {color} {shape}" for color, shape in wanted]

    def row(name: str, x: Tensor) -> str:
        with torch.no_grad():
            columns = [
                vlm(x, prompt=prompts),
                held_out(x, prompt=prompts),
                ExpectationOverTransformations(vlm, num_samples=8, generator=seeded(99))(
                    x, prompt=prompts
                ),
                *votes(judge, x, wanted),
                read_right(judge, x, wanted),
            ]
        save_image(x, options.out / f"{name.replace(' ', '-')}.png", nrow=12)
        error = len(x) ** -0.5
        numbers = [f"{float(c.mean()):.2f} ± {error * float(c.std()):.2f}" for c in columns]
        return f"| {name} | {' | '.join(numbers)} |"

    columns = ("own", "another wording", "8 new transformations")
    columns += ("judge: color", "judge: shape", "judge: both")
    print(f"| | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    print(row("before", images), flush=True)
    for name, reward in arms(vlm).items():
        if not options.arms or any(name.startswith(arm) for arm in options.arms):
            print(row(name, optimize(reward, images, prompts, options.steps)), flush=True)


if __name__ == "__main__":
    main()
