"""The initial noise of a diffusion sampler, optimized for the reward (ReNO, Eyring et al., 2024):

    python examples/optimize_noise.py "a red mug" --sampler-prompt "a mug"
    python examples/optimize_noise.py "a cat in a hat" --model Qwen/Qwen2.5-VL-3B-Instruct \\
        --diffusion stabilityai/sd-turbo --sampler-steps 1 --device cuda

The weights stay as they are; the gradient goes through the VLM, the decoder and every step of the
sampler. The folder gets pictures.png (first and best), curves.png and metrics.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import common
import torch
from samplers import add_sampler_options, load_sampler
from torch import Tensor

from vlmreward.utils.progress import progress_bar


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = common.command_line("Optimize the noise of a diffusion sampler.", "optimize_noise")
    parser.add_argument(
        "prompt",
        type=common.text,
        nargs="?",
        metavar="PROMPT",
        help='what to make; default: "a red mug" out of "a mug"',
    )
    parser.add_argument(
        "--sampler-prompt", type=common.text, help="what the sampler is told; default: PROMPT"
    )
    parser.add_argument("--count", type=common.positive, default=4, help="default: %(default)s")
    parser.add_argument("--steps", type=common.positive, default=20, help="default: %(default)s")
    parser.add_argument("--lr", type=common.above_zero, default=5.0, help="default: %(default)s")
    parser.add_argument(
        "--regularization",
        type=common.not_negative,
        default=0.01,
        metavar="WEIGHT",
        help="of the norm's log-likelihood; default: %(default)s",
    )
    add_sampler_options(parser, steps=4, guidance=1.0)
    options = parser.parse_args(arguments)
    if options.prompt is None:
        options.prompt = "a red mug"
        options.sampler_prompt = options.sampler_prompt or "a mug"
    if options.sampler_prompt is None:
        options.sampler_prompt = options.prompt
    return options


def log_likelihood_of_norm(noise: Tensor) -> Tensor:
    """Log-density of the norm of standard normal noise, up to a constant (ReNO, Section 3.2).

    Args:
        noise: (B, ...) of d values each.

    Returns:
        (B,): (d - 1) log |noise| - |noise|^2 / 2, largest at |noise| = sqrt(d - 1).
    """
    norm = noise.flatten(1).float().norm(dim=1)
    return (noise[0].numel() - 1) * norm.log() - norm.square() / 2


@dataclass(frozen=True)
class Optimized:
    """Result of `optimize`.

    Attributes:
        first: the images of the initial noise, on the CPU.
        best: the images with the highest reward, for each sample.
        history: rewards and norms of all samples, step by step.
    """

    first: Tensor
    best: Tensor
    history: list[dict[str, list[float]]]


def optimize(
    sample: Callable[[Tensor], Tensor],
    score: Callable[[Tensor], Tensor],
    noise: Tensor,
    *,
    steps: int,
    lr: float = 5.0,
    momentum: float = 0.9,
    clip: float = 0.1,
    regularization: float = 0.01,
) -> Optimized:
    """Gradient ascent on score + regularization * log-likelihood of the norm, as in ReNO.

    Nesterov's momentum; the gradient of each sample is clipped to the norm `clip`; what is kept is
    the best sample seen, not the last one.
    """
    noise = noise.detach().clone().requires_grad_()
    optimizer = torch.optim.SGD([noise], lr=lr, momentum=momentum, nesterov=True)
    highest = torch.full((len(noise),), -torch.inf)
    history: list[dict[str, list[float]]] = []
    bar = progress_bar(range(steps + 1), desc="optimize noise", unit="step")
    for step in bar:
        images = sample(noise)
        rewards = score(images)
        shown, values = images.detach().cpu(), rewards.detach().cpu()
        if step == 0:
            first, best = shown, shown.clone()
        best[values > highest] = shown[values > highest]
        highest = torch.maximum(highest, values)
        norms = noise.detach().flatten(1).float().norm(dim=1)
        history.append({"reward": values.tolist(), "norm": norms.tolist()})
        bar.set_postfix(reward=f"{float(values.mean()):.2f}")
        if step == steps:
            break
        goal = rewards + regularization * log_likelihood_of_norm(noise)
        (noise.grad,) = torch.autograd.grad(-goal.sum(), noise)
        for gradient in noise.grad:
            gradient *= (clip / gradient.norm()).clamp(max=1)
        optimizer.step()
    return Optimized(first, best, history)


def work(options: argparse.Namespace) -> list[Path]:
    sampler = load_sampler(options)
    reward = common.load_reward(options.model, options.device)
    found = optimize(
        partial(sampler, [options.sampler_prompt] * options.count),
        partial(reward, prompt=options.prompt),
        sampler.noise(options.count, torch.Generator().manual_seed(options.seed)),
        steps=options.steps,
        lr=options.lr,
        regularization=options.regularization,
    )
    rewards = [step["reward"] for step in found.history]
    titles = [f"{one[0]:.2f} to {max(one):.2f}" for one in zip(*rewards)]
    rows = {"first": found.first, "best": found.best}
    pictures = common.save_pictures(options.out / "pictures.png", rows, titles)
    curves = {
        title: {
            f"sample {i}": [(t, step[key][i]) for t, step in enumerate(found.history)]
            for i in range(options.count)
        }
        for title, key in (("reward", "reward"), ("norm of the noise", "norm"))
    }
    metrics = options.out / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(step) + "\n" for step in found.history), encoding="utf-8")
    print("rewards: " + ", ".join(titles))
    return [pictures, common.save_curves(options.out / "curves.png", curves), metrics]


def main(arguments: list[str] | None = None) -> int:
    return common.run(work, parse(arguments))


if __name__ == "__main__":
    sys.exit(main())
