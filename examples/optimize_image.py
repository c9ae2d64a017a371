"""Pixels by gradient ascent on the reward, with and without random transformations, side by
side:

    python examples/optimize_image.py "a red car"

The reward alone is hacked: it rises by noise that convinces no other model. Its mean over random
transformations is harder to fool. A judge that is not optimized looks at both: another VLM
(--judge-model), or, for the built-in VLM, the built-in denoiser as a classifier.

The folder gets pictures.png (before and after), curves.png, metrics.jsonl and the pictures one by
one.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import common
import torch
import torch.nn.functional as F
from judges import DenoiserJudge
from torch import Tensor, nn
from torchvision.utils import save_image
from tqdm import tqdm

from vlmreward import wrappers
from vlmreward.images.io import load_image
from vlmreward.utils.progress import progress_bar

PROMPTS = ("a red car", "a green chair", "a blue mug", "a yellow cone")
SIZE = 64
PARAMETRIZATIONS = ("multi-resolution", "pixels")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = common.command_line("Optimize pixels for a VLM's reward.", "optimize_image")
    parser.add_argument(
        "prompts",
        type=common.text,
        nargs="*",
        metavar="PROMPT",
        help=f"what to make, each; default: {PROMPTS}",
    )
    parser.add_argument(
        "--start",
        type=common.text,
        default="a purple cube",
        help='image file to begin with, a prompt of the built-in world, or "noise"; '
        "default: %(default)s",
    )
    parser.add_argument(
        "--size",
        type=common.positive,
        help=f"side in pixels, not with a file; default: {SIZE}",
    )
    parser.add_argument(
        "--parametrization",
        choices=PARAMETRIZATIONS,
        default=PARAMETRIZATIONS[0],
        help="default: %(default)s",
    )
    parser.add_argument("--steps", type=common.positive, default=100, help="default: %(default)s")
    parser.add_argument("--lr", type=common.above_zero, default=0.3, help="default: %(default)s")
    parser.add_argument(
        "--samples",
        type=common.positive,
        default=4,
        help="transformations a step; default: %(default)s",
    )
    parser.add_argument(
        "--strength",
        type=common.above_zero,
        default=2.0,
        help="of the transformations; default: %(default)s",
    )
    parser.add_argument(
        "--judge-model", type=common.text, metavar="MODEL", help="another VLM, which only looks on"
    )
    options = parser.parse_args(arguments)
    if options.model != common.BUILTIN and options.judge_model is None:
        parser.error(
            f"received --model {options.model} without a judge; expected another VLM that is not "
            "optimized: name it with --judge-model"
        )
    if options.size and Path(options.start).is_file():
        parser.error(
            f"received --size with the file {options.start}, which has a size; expected one of the "
            "two; leave --size out"
        )
    options.size = options.size or SIZE
    options.prompts = options.prompts or list(PROMPTS)
    return options


class Pixels(nn.Module):
    """Images (B, 3, H, W) as they are; values outside [0, 1] are cut off after each step."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(start.clone())

    def forward(self) -> Tensor:
        return self.values

    @torch.no_grad()
    def step_done(self) -> None:
        self.values.clamp_(0, 1)


class MultiResolution(nn.Module):
    """Images as a sum of layers of 1, 2, 4, ... pixels a side, behind a sigmoid.

    Direct Ascent Synthesis (Fort and Whitaker, 2025): the gradient of a coarse layer adds up over
    many pixels, so that coarse structure moves first, and noise last.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", torch.logit(start.clamp(0.02, 0.98)))
        self.size = start.shape[-2:]
        sides = [2**i for i in range((max(self.size) - 1).bit_length() + 1)]
        self.layers = nn.ParameterList(
            torch.zeros(len(start), 3, min(s, self.size[0]), min(s, self.size[1])) for s in sides
        )

    def forward(self) -> Tensor:
        grown = (F.interpolate(layer, self.size, mode="bilinear") for layer in self.layers)
        return (self.start + sum(grown)).sigmoid()

    def step_done(self) -> None:
        """Nothing to do: a sigmoid stays in [0, 1]."""


def optimize(
    reward: Callable[..., Tensor],
    start: Tensor,
    prompts: list[str],
    *,
    steps: int = 100,
    lr: float = 0.3,
    parametrization: str = "multi-resolution",
    report: Callable[[int, Tensor], None] = lambda step, rewards: None,
) -> Tensor:
    """Gradient ascent, in steps of equal length for each image, with momentum.

    Not Adam: it moves what hardly matters, such as the background, as far as anything else.

    Args:
        reward: (B, 3, H, W), prompt=... -> (B,).
        start: (B, 3, H, W) in [0, 1].
        prompts: B prompts.
        steps: number of optimizer steps.
        lr: length of a step.
        parametrization: "multi-resolution" or "pixels".
        report: called in each step with the rewards, (B,).

    Returns:
        The images, (B, 3, H, W) in [0, 1].
    """
    canvas = (Pixels if parametrization == "pixels" else MultiResolution)(start)
    parameters = list(canvas.parameters())
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, maximize=True)
    for step in range(steps):
        rewards = reward(canvas(), prompt=prompts)
        gradients = torch.autograd.grad(rewards.sum(), parameters)
        length = torch.cat([g.flatten(1) for g in gradients], dim=1).norm(dim=1) + 1e-12
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient / length[:, None, None, None]
        optimizer.step()
        canvas.step_done()
        report(step, rewards.detach())
    return canvas().detach()


def arms(reward: Callable[..., Tensor], *, samples: int, strength: float, seed: int = 0) -> dict:
    """The two rewards that are compared, by name."""
    augmented = wrappers.ExpectationOverTransformations(
        reward,
        wrappers.standard_augmentation(strength),
        num_samples=samples,
        micro_batch_size=samples,
        generator=torch.Generator().manual_seed(seed),
    )
    return {"reward alone": reward, "augmented": augmented}


def starting_picture(options: argparse.Namespace) -> Tensor:
    """(3, H, W) in [0, 1]."""
    if options.start == "noise":
        generator = torch.Generator().manual_seed(options.seed)
        noise = torch.randn(3, options.size, options.size, generator=generator)
        return (0.7 + 0.05 * noise).clamp(0, 1)
    if Path(options.start).exists():
        return load_image(options.start).image
    try:
        return common.blocks_picture(options.start, seed=options.seed, size=options.size)
    except ValueError as error:
        raise ValueError(f"there is no file {options.start!r}, and {error}") from None


def work(options: argparse.Namespace) -> list[Path]:
    if not options.judge_model:  # the built-in one knows its own world alone
        for prompt in options.prompts:
            common.color_and_shape(prompt)
    start = torch.stack([starting_picture(options)] * len(options.prompts)).to(options.device)
    reward = common.load_reward(options.model, options.device)
    if options.judge_model:
        judge = common.load_reward(options.judge_model, options.device)
    else:
        judge = DenoiserJudge(device=options.device)
    rows, curves, log = {"before": start}, {"optimized reward": {}, "judge": {}}, []
    compared = arms(reward, samples=options.samples, strength=options.strength, seed=options.seed)
    for name, optimized in compared.items():
        watched = wrappers.HeldOutMonitor(optimized, held_out=judge, every=10, window=8)
        bar = progress_bar(total=options.steps, desc=name, unit="step")

        def report(step: int, rewards: Tensor, bar: tqdm = bar) -> None:
            bar.set_postfix(reward=f"{float(rewards.mean()):.2f}")
            bar.update()

        with bar, warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, bar=bar: bar.write(
                f"warning: {message}", file=sys.stderr
            )
            warnings.simplefilter("always", wrappers.RewardHackingWarning)
            rows[name] = optimize(
                watched,
                start,
                options.prompts,
                steps=options.steps,
                lr=options.lr,
                parametrization=options.parametrization,
                report=report,
            )
        notes = watched.history
        curves["optimized reward"][name] = [(note.step, note.reward) for note in notes]
        curves["judge"][name] = [(note.step, note.held_out) for note in notes]
        log += [{"arm": name, **asdict(note)} for note in notes]
    files = [common.save_curves(options.out / "curves.png", curves)]
    files.append(common.save_pictures(options.out / "pictures.png", rows, options.prompts))
    files.append(options.out / "metrics.jsonl")
    files[-1].write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    for name, images in rows.items():
        for prompt, image in zip(options.prompts, images):
            files.append(options.out / f"{common.slug(name)}-{common.slug(prompt) or 'text'}.png")
            save_image(image, files[-1])
    print(table(rows, options.prompts, reward, judge))
    return files


@torch.no_grad()
def table(
    rows: dict[str, Tensor], prompts: list[str], reward: Callable[..., Tensor], judge: nn.Module
) -> str:
    """Table of the reward, the reward of transformed pictures, and the judge's score."""
    lines = ["| picture | prompt | reward | transformed | judge |", "|---|---|---|---|---|"]
    for name, images in rows.items():
        unseen = wrappers.ExpectationOverTransformations(
            reward, num_samples=8, generator=torch.Generator().manual_seed(99)
        )
        columns = [f(images, prompt=prompts).tolist() for f in (reward, unseen, judge)]
        columns = [[*column, sum(column) / len(column)] for column in columns]
        for prompt, own, transformed, judged in zip([*prompts, "mean"], *columns):
            numbers = f"{own:.2f} | {transformed:.2f} | {judged:.2f}"
            lines.append(f"| {name} | {prompt} | {numbers} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    return common.run(work, parse(arguments))


if __name__ == "__main__":
    sys.exit(main())
