"""LoRA weights of a diffusion model, trained by the reward's own gradient (DRaFT-K, AlignProp):

    python examples/finetune_diffusion.py
    python examples/finetune_diffusion.py --prompts train.txt --held-out others.txt \\
        --diffusion stabilityai/sd-turbo --sampler-steps 2 --model Qwen/Qwen2.5-VL-3B-Instruct \\
        --device cuda

The gradient goes through the last K steps of the sampler (Clark et al., 2024, "Directly Fine-Tuning
Diffusion Models on Differentiable Rewards"; Prabhudesai et al., 2023, "Aligning Text-to-Image
Diffusion Models with Reward Backpropagation"). By default the built-in denoiser learns to
prefer red for prompts such as "a cube". Prompts without training show how far that carries.

A file of prompts has one a line. A "->" separates the sampler's prompt from the VLM's, if the two
differ: "a cube -> a red cube". The folder gets pictures.png (before and after), curves.png,
metrics.jsonl and the adapter; to use it:

    pipeline.unet.load_lora_adapter(
        DIR, weight_name="pytorch_lora_weights.safetensors", prefix=None
    )
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import common
import torch

import vlmreward_3d.guidance.diffusion  # noqa: F401 isort: skip (first: without what the next say on import)

from peft import LoraConfig
from samplers import Sampler, add_sampler_options, load_sampler
from torch import Tensor

from vlmreward.integrations.diffusion_trainers import TrainerReward, trainer_reward
from vlmreward.utils.progress import progress_bar

Prompts = list[tuple[str, str]]
"""Pairs of the sampler's prompt and the VLM's prompt."""

SHAPES = ("cube", "sphere", "cylinder", "torus", "mug", "chair")
OTHER_SHAPES = ("cone", "car", "snowman")
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = common.command_line("Fine-tune a diffusion model on a reward.", "finetune_diffusion")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="default: shapes, which are to become red"
    )
    parser.add_argument(
        "--held-out",
        type=Path,
        metavar="FILE",
        help="prompts without training; default: other shapes",
    )
    parser.add_argument("--steps", type=common.positive, default=40, help="default: %(default)s")
    parser.add_argument("--batch", type=common.positive, default=4, help="default: %(default)s")
    parser.add_argument("--lr", type=common.above_zero, default=2e-3, help="default: %(default)s")
    parser.add_argument("--rank", type=common.positive, default=4, help="default: %(default)s")
    parser.add_argument(
        "--last",
        type=common.positive,
        default=1,
        metavar="K",
        help="steps of the sampler that the gradient goes through; default: %(default)s",
    )
    add_sampler_options(parser, steps=4, guidance=1.0)
    options = parser.parse_args(arguments)
    if options.last > options.sampler_steps:
        parser.error(f"--last is {options.last}; expected at most --sampler-steps")
    if (options.prompts is None) != (options.held_out is None):
        parser.error("expected both --prompts and --held-out, or neither")
    return options


def read_prompts(path: Path) -> Prompts:
    """The prompts of a file; see above."""
    found = [line.partition("->") for line in common.read_lines(path)]
    return [(told.strip(), asked.strip() or told.strip()) for told, _, asked in found]


def train(
    sampler: Sampler,
    reward: TrainerReward,
    prompts: Prompts,
    generator: torch.Generator,
    *,
    steps: int,
    batch: int,
    lr: float,
    last: int,
) -> list[float]:
    """AdamW on the network's trainable weights.

    Returns:
        The mean reward of each step's batch.
    """
    weights = [p for p in sampler.network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=lr)
    history = []
    bar = progress_bar(range(steps), desc="fine-tune", unit="step")
    for _ in bar:
        chosen = torch.randint(len(prompts), (batch,), generator=generator).tolist()
        told, asked = zip(*[prompts[i] for i in chosen])
        images = sampler(list(told), sampler.noise(batch, generator), last=last)
        rewards, _ = reward(images, told, asked)
        optimizer.zero_grad()
        (-rewards.mean()).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        history.append(float(rewards.detach().mean()))
        bar.set_postfix(reward=f"{history[-1]:.2f}")
    return history


@torch.no_grad()
def look(
    sampler: Sampler, reward: TrainerReward, prompts: Prompts, seed: int
) -> tuple[list[Tensor], list[float]]:
    """One sample of each prompt, always of the same noise, and its reward."""
    generator = torch.Generator().manual_seed(seed)
    images, rewards = [], []
    for told, asked in progress_bar(prompts, desc="sample", unit="prompt", leave=False):
        image = sampler([told], sampler.noise(1, generator))
        images.append(image[0].cpu())
        rewards.append(float(reward(image, [told], [asked])[0]))
    return images, rewards


def work(options: argparse.Namespace) -> list[Path]:
    if options.prompts is None:
        prompts = [(f"a {shape}", f"a red {shape}") for shape in SHAPES]
        held_out = [(f"a {shape}", f"a red {shape}") for shape in OTHER_SHAPES]
    else:
        prompts, held_out = read_prompts(options.prompts), read_prompts(options.held_out)
    sampler = load_sampler(options)
    vlm = common.load_reward(options.model, options.device)
    reward = trainer_reward(vlm, make_prompt=lambda told, asked: asked)
    torch.manual_seed(options.seed)  # of LoRA's initial weights
    sampler.network.add_adapter(LoraConfig(r=options.rank, target_modules=ATTENTION))

    seen = prompts[:6] + held_out[:6]
    before, rewards_before = look(sampler, reward, seen, options.seed + 1)
    history = train(
        sampler,
        reward,
        prompts,
        torch.Generator().manual_seed(options.seed),
        steps=options.steps,
        batch=options.batch,
        lr=options.lr,
        last=options.last,
    )
    after, rewards_after = look(sampler, reward, seen, options.seed + 1)

    sampler.network.save_lora_adapter(options.out)
    known = len(prompts[:6])
    titles = [asked + ("" if i < known else "\n(not trained)") for i, (_, asked) in enumerate(seen)]
    metrics = options.out / "metrics.jsonl"
    lines = [{"step": i, "reward": value} for i, value in enumerate(history)]
    for (told, asked), *rewards in zip(seen, rewards_before, rewards_after):
        lines.append({"prompt": told, "asked": asked, "before": rewards[0], "after": rewards[1]})
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for name, part in (("trained on", slice(known)), ("held out", slice(known, None))):
        first, then = rewards_before[part], rewards_after[part]
        print(f"{name}: {sum(first) / len(first):.2f} -> {sum(then) / len(then):.2f}")
    return [
        common.save_pictures(
            options.out / "pictures.png", {"before": before, "after": after}, titles
        ),
        common.save_curves(
            options.out / "curves.png", {"reward": {"batch": list(enumerate(history))}}
        ),
        metrics,
        options.out / "pytorch_lora_weights.safetensors",
    ]


def main(arguments: list[str] | None = None) -> int:
    return common.run(work, parse(arguments))


if __name__ == "__main__":
    sys.exit(main())
