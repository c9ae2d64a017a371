"""Train the built-in VLM: ``python -m vlmreward_3d.blocks.train_vlm``.

First the vision tower learns which words are true where (no questions), then colours and shapes are
asked, then their combinations and captions of single things, then everything.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from vlmreward_3d.blocks.augment import compose
from vlmreward_3d.blocks.checkpoints import load_state, save_state
from vlmreward_3d.blocks.dataset import render_dataset
from vlmreward_3d.blocks.questions import Batch, Examiner
from vlmreward_3d.blocks.vlm_model import PackedVLM, build_vlm

STAGES = {"words": 0.12, "simple": 0.20, "attributes": 0.32, "all": 1.01}
"""Curriculum: until which share of the steps each stage lasts."""


def plan(step: int, steps: int) -> tuple[str, bool, int]:
    """Stage, whether the long prompts are asked, and the number of views of a step."""
    rng = np.random.default_rng([77, step])
    share = step / steps
    stage = next(s for s, until in STAGES.items() if share < until)
    long = stage == "all" and bool(rng.random() < 0.4)
    views = int(rng.choice((4, 1, 2, 8), p=(0.7, 0.1, 0.1, 0.1))) if share > 0.12 else 4
    return stage, long, views


def scenes_of(batch: int, views: int) -> int:
    """Scenes of a step, so that steps cost about the same."""
    return max(2, batch * 4 // (views + 2 if views != 4 else 4))


def losses(
    model: PackedVLM, batch: Batch, generator: torch.Generator, strength: float
) -> tuple[torch.Tensor, torch.Tensor, list[tuple[str, bool]]]:
    """Answer loss, auxiliary loss, and (kind, right?) of every answer."""
    device = model.words.device
    images = compose(batch.rgba, generator, strength=strength, fade=batch.fade).to(device)
    tokens = model.look(images)
    presence = model.presence_loss(tokens, batch.words.to(device))
    if not any(batch.questions):
        return presence.new_zeros(()), presence, []
    packed = model.answer(tokens, batch.questions, images.shape[1])
    logits = packed.logits
    flat = [q for asked in batch.questions for q in asked]
    target = torch.tensor([model.yes if q.yes else model.no for q in flat], device=device)
    right = ((logits[:, model.yes] > logits[:, model.no]) == (target == model.yes)).tolist()
    auxiliary = presence + model.probe_loss(packed, batch.facts)
    return F.cross_entropy(logits, target), auxiliary, [(q.kind, r) for q, r in zip(flat, right)]


def train(args: argparse.Namespace) -> None:
    """Train, or go on from ``args.out/state.pt``; writes ``args.out/model``."""
    args.out.mkdir(parents=True, exist_ok=True)
    data = render_dataset(args.data, args.scenes, seed=1)
    vlm, processor = build_vlm(args.seed)
    model = PackedVLM(vlm, processor).to(args.device)
    average = copy.deepcopy(model).requires_grad_(False)
    plain = [p for p in model.parameters() if p.ndim < 2]
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.03}, {"params": plain, "weight_decay": 0.0}],
        lr=args.lr,
        betas=(0.9, 0.98),
    )
    start, state = 0, load_state(args.out / "state.pt")
    if state:
        start = state["step"]
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
    examiner = Examiner(data, args.seed)
    log = (args.out / "log.jsonl").open("a")
    tally: dict[str, list[bool]] = defaultdict(list)
    sums = np.zeros(3)
    for step in tqdm(range(start, args.steps), initial=start, total=args.steps, desc="vlm"):
        stage, long, views = plan(step, args.steps)
        rate = min(1.0, (step + 1) / 100) * max(
            0.03, 0.5 * (1 + math.cos(math.pi * step / args.steps))
        )
        for group in optimizer.param_groups:
            group["lr"] = args.lr * rate
        batch = examiner.draw(
            step, scenes_of(args.batch, views), stage=stage, long=long, views=views
        )
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=args.bf16):
            answers, auxiliary, marks = losses(
                model, batch, generator, min(1.0, 2 * step / args.steps)
            )
        loss = answers + (1.0 if stage != "all" else 0.5) * auxiliary
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay = min(0.998, (step + 1) / (step + 10))
        with torch.no_grad():
            for a, b in zip(average.parameters(), model.parameters()):
                a.lerp_(b, 1 - decay)
        for kind, right in marks:
            tally[kind].append(right)
        sums += (answers.item(), auxiliary.item(), 1)
        if (step + 1) % 50 == 0:
            table = {k: [round(float(np.mean(v)), 3), len(v)] for k, v in sorted(tally.items())}
            entry = {"step": step + 1, "answers": sums[0] / sums[2], "auxiliary": sums[1] / sums[2]}
            log.write(json.dumps({**entry, **table}) + "\n")
            log.flush()
            tally.clear()
            sums[:] = 0
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            save_state(
                args.out / "state.pt",
                step=step + 1,
                model=model.state_dict(),
                average=average.state_dict(),
                optimizer=optimizer.state_dict(),
            )
            kept = copy.deepcopy(average.vlm).to(torch.bfloat16)
            kept.config.vision_config._attn_implementation = "sdpa"
            kept.save_pretrained(args.out / "model")
            processor.save_pretrained(args.out / "model")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of rendered scenes")
    parser.add_argument("--out", type=Path, required=True, help="folder for state and model")
    parser.add_argument("--scenes", type=int, default=12000, help="scenes to render or load")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=20, help="scenes a step, for 4 views")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
