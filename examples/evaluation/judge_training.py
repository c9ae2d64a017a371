"""The training that the judges with weights have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from vlmreward_3d.blocks.training.trainer import Trainer

Judge = TypeVar("Judge", bound=nn.Module)
Draw = Callable[[np.random.Generator, torch.Generator], tuple[Sequence[Tensor], Tensor]]
"""Function of a step's random generators that returns the judge's inputs and the truth."""


def fit(
    judge: Judge,
    inner: Sequence[nn.Module],
    args: argparse.Namespace,
    draw: Draw,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    *,
    warmup: int,
    name: str,
) -> Judge:
    """Train a judge, or go on from ``args.out/state.pt``.

    Args:
        judge: The judge with random weights.
        inner: Inner layers of the judge. Muon trains their matrices, AdamW all other parameters.
        args: Arguments that ``trainer.command_line`` has parsed.
        draw: Function that makes a step's batch.
        loss_of: Function of the judge's output and the truth that returns the loss.
        warmup: Steps until the learning rate is reached.
        name: Label of the progress bar.

    Returns:
        The average of the judge over the last steps, on the CPU.
    """
    judge = judge.to(args.device)
    trainer = Trainer(
        judge,
        [p for layer in inner for p in layer.parameters() if p.ndim >= 2],
        out=args.out,
        steps=args.steps,
        lr=args.lr,
        matrix_lr=args.matrix_lr,
        warmup=warmup,
    )
    steps = range(trainer.start, args.steps)
    for step in (bar := tqdm(steps, initial=trainer.start, total=args.steps, desc=name)):
        rng = np.random.default_rng([args.seed, step])
        inputs, truth = draw(rng, torch.Generator().manual_seed(step))
        with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=args.bf16):
            output = judge(*(x.to(args.device) for x in inputs)).float()
        loss = loss_of(output, truth.to(args.device))
        trainer.update(loss, step)
        bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            trainer.save(step + 1)
    return trainer.average.cpu().eval()
