"""Train the built-in VLM: ``python -m vlmreward_3d.blocks.training.train_vlm``.

Stages: first the vision tower learns which words are true in which image cell (no questions); then
questions about colors and shapes follow, then about their combinations and captions of single
things, then of all kinds, at last with more questions that need a comparison of views. With
``--start`` a trained model is trained further, in the last stage alone; with ``--radius`` it is
trained on adversarial views (see ``adversary``), and with ``--alignment`` its gradient at the
pixels is aligned with image differences (see ``alignment``).
"""

from __future__ import annotations

import argparse
import copy
from collections import defaultdict

import numpy as np
import torch
from tqdm import tqdm
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from vlmreward.models._transformers_private import set_attention
from vlmreward.models.loading import resolve
from vlmreward_3d.blocks.training.adversary import mislead
from vlmreward_3d.blocks.training.alignment import alignment_loss, pairs_of
from vlmreward_3d.blocks.training.trainer import Trainer, command_line
from vlmreward_3d.blocks.training.vlm_model import PackedVLM, build_vlm
from vlmreward_3d.blocks.world.augment import augment_and_composite
from vlmreward_3d.blocks.world.dataset import render_dataset
from vlmreward_3d.blocks.world.questions import Batch, QuestionSampler

STAGES = {"words": 0.25, "simple": 0.28, "attributes": 0.333, "all": 0.667, "flaws": 1.01}
"""Curriculum: the share of the steps at which each stage ends."""


def plan(step: int, steps: int, *, trained: bool = False) -> tuple[str, bool, int]:
    """Stage, use of the long prompts (bool), and number of views of a step.

    A model that is ``trained`` has the last stage only.
    """
    rng = np.random.default_rng([77, step])
    share = 1.0 if trained else step / steps
    stage = next(s for s, until in STAGES.items() if share < until)
    long = stage in ("all", "flaws") and bool(rng.random() < 0.4)
    views = 4 if stage == "words" else int(rng.choice((4, 1, 2, 8), p=(0.7, 0.1, 0.1, 0.1)))
    return stage, long, views


def scenes_of(batch: int, views: int) -> int:
    """Number of scenes in a step with ``views`` views, chosen so that steps cost about the same."""
    return max(2, batch * 4 // (views + 2 if views != 4 else 4))


def losses(
    model: PackedVLM, batch: Batch, generator: torch.Generator, strength: float, radius: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, list[tuple[str, bool]]]:
    """Answer loss, auxiliary loss, and (kind, right?) of every answer."""
    device = model.words.device
    images = augment_and_composite(batch.rgba, generator, strength=strength, fade=batch.fade).to(
        device
    )
    flat = [q for asked in batch.questions for q in asked]
    truth = torch.tensor([q.truth for q in flat], device=device)

    def cross_entropy(logits: torch.Tensor) -> torch.Tensor:
        log_probs = logits.log_softmax(dim=1)
        said = truth * log_probs[:, model.yes] + (1 - truth) * log_probs[:, model.no]
        return -said.mean()

    def answer_loss(views: torch.Tensor) -> torch.Tensor:
        return cross_entropy(
            model.answer(model.look(views), batch.questions, views.shape[1]).logits
        )

    if radius > 0 and flat:
        images = mislead(model, images, answer_loss, radius, generator)
    tokens = model.look(images)
    presence = model.presence_loss(tokens, batch.words.to(device))
    if not flat:
        return presence.new_zeros(()), presence, []
    packed = model.answer(tokens, batch.questions, images.shape[1])
    logits = packed.logits
    right = ((logits[:, model.yes] > logits[:, model.no]) == (truth > 0.5)).tolist()
    auxiliary = presence + model.probe_loss(packed, batch.facts)
    return cross_entropy(logits), auxiliary, [(q.kind, r) for q, r in zip(flat, right)]


def train(args: argparse.Namespace) -> None:
    """Train, continuing from ``args.out/state.pt`` if it exists, and write ``args.out/model``."""
    data = render_dataset(
        args.data,
        args.scenes,
        seed=1,
        composed=args.composed,
        counterparts=args.mixtures > 0 or args.alignment > 0,
    )
    if args.start:
        source = resolve(args.start)
        vlm = Qwen2_5_VLForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
        processor = Qwen2_5_VLProcessor.from_pretrained(source)
    else:
        vlm, processor = build_vlm(args.seed, rich=args.composed > 0)
    model = PackedVLM(vlm, processor).to(args.device)
    layers = [*vlm.model.visual.blocks, *vlm.model.language_model.layers]
    muon_params = [
        p for m in (*layers, vlm.model.visual.merger) for p in m.parameters() if p.ndim == 2
    ]
    trainer = Trainer(
        model,
        muon_params,
        out=args.out,
        steps=args.steps,
        lr=args.lr,
        matrix_lr=args.matrix_lr,
        warmup=100,
        betas=(0.9, 0.98),
    )
    if args.compile:
        for layer in vlm.model.visual.blocks:
            layer.compile()
    examiner = QuestionSampler(data, args.seed, mixtures=args.mixtures)
    tally: dict[str, list[bool]] = defaultdict(list)
    sums: list[tuple[float, float]] = []
    pairs = pairs_of(data) if args.alignment else []
    apartness: list[float] = []
    steps = range(trainer.start, args.steps)
    for step in tqdm(steps, initial=trainer.start, total=args.steps, desc="vlm"):
        stage, long, views = plan(step, args.steps, trained=bool(args.start))
        batch = examiner.draw(
            step, scenes_of(args.batch, views), stage=stage, long=long, views=views
        )
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=args.bf16):
            strength = 1.0 if args.start else min(1.0, 2 * step / args.steps)
            answers, auxiliary, marks = losses(model, batch, generator, strength, args.radius)
        loss = answers + (0.5 if stage in ("all", "flaws") else 1.0) * auxiliary
        if pairs:
            rng = np.random.default_rng([args.seed, step])
            chosen = [pairs[k] for k in rng.choice(len(pairs), args.batch // 2, replace=False)]
            apart = alignment_loss(model, data, chosen, rng, strength=strength, device=args.device)
            loss = loss + args.alignment * apart
            apartness.append(apart.item())
        trainer.update(loss, step)
        for kind, right in marks:
            tally[kind].append(right)
        sums.append((answers.item(), auxiliary.item()))
        if (step + 1) % 50 == 0:
            table = {k: [round(float(np.mean(v)), 3), len(v)] for k, v in sorted(tally.items())}
            means = np.mean(sums, axis=0).tolist()
            if apartness:
                table["alignment"] = [round(float(np.mean(apartness)), 4), len(apartness)]
            trainer.log(step=step + 1, answers=means[0], auxiliary=means[1], **table)
            tally.clear()
            apartness.clear()
            sums.clear()
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            trainer.save(step + 1)
            kept = copy.deepcopy(trainer.average.vlm).to(torch.bfloat16)
            set_attention(kept.config.vision_config, "sdpa")
            for part in (kept.config.text_config, kept.config.vision_config):
                part.dtype = kept.dtype
            kept.save_pretrained(args.out / "model")
            processor.save_pretrained(args.out / "model")


def main() -> None:
    """Command line."""
    parser = command_line(
        __doc__,
        steps=7500,
        batch="scenes a step, for 4 views",
        batch_size=20,
        lr=1e-3,
        matrix_lr=4e-3,
    )
    parser.add_argument(
        "--composed", type=float, default=0.0, help="share of compositions among the scenes"
    )
    parser.add_argument(
        "--mixtures",
        type=float,
        default=0.0,
        help="share of blends of two scenes among those that are not flawed",
    )
    parser.add_argument("--start", help="folder of a trained model that learns on")
    parser.add_argument(
        "--radius",
        type=float,
        default=0.0,
        help="largest change of a view by the adversary (L2 over pixels in [0, 1]); 0 for none",
    )
    parser.add_argument(
        "--alignment",
        type=float,
        default=0.0,
        help="weight of the loss of the gradient's direction at blends of scenes; 0 for none",
    )
    parser.add_argument("--compile", action="store_true", help="compile the vision tower")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
