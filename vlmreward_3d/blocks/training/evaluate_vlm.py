"""Ask the built-in VLM held-out questions: ``python -m vlmreward_3d.blocks.training.evaluate_vlm``.

The scenes have a seed that training never used, and every question goes through ``YesNoReward``,
one question a query, as a user's would.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vlmreward import YesNoReward
from vlmreward_3d.blocks.world.augment import augment_and_composite
from vlmreward_3d.blocks.world.captions import (
    CAPTION_QUESTIONS,
    GEOMETRY_QUESTIONS,
    LONG_PROMPTS,
    NAMED_QUESTIONS,
    Question,
    attribute_question,
    detail_question,
)
from vlmreward_3d.blocks.world.dataset import RING, BlocksData, render_dataset
from vlmreward_3d.blocks.world.descriptions import as_if_whole, caption, false_captions
from vlmreward_3d.blocks.world.questions import flaw_seen
from vlmreward_3d.blocks.world.scenes import COMPOUNDS

HELD_OUT_SEED = 9001


@dataclass(frozen=True)
class Item:
    """A question about four views (4, 64, 64, 4) uint8, and its group in the table."""

    rgba: Tensor
    question: Question
    group: str


def _form(rng: np.random.Generator) -> str:
    """A wording of a caption question: one of the short ones, or one of the paper's prompts."""
    if rng.random() < 0.5:
        return CAPTION_QUESTIONS[int(rng.integers(len(CAPTION_QUESTIONS)))]
    return NAMED_QUESTIONS[LONG_PROMPTS[int(rng.integers(len(LONG_PROMPTS)))]]


def items(data: BlocksData, seed: int = 0) -> Iterator[Item]:
    """Questions about every scene, in every group as many with the answer Yes as with No."""
    rng = np.random.default_rng(seed)
    clean = [i for i, s in enumerate(data.scenes) if s.flaw is None]
    rich = data.composed
    with_front = [
        i
        for i in clean
        for thing in data.scenes[i].things
        if len(data.scenes[i].things) == 1 and thing.shape in COMPOUNDS and thing.fronts
    ]
    for number, (scene, rgba) in enumerate(zip(data.scenes, data.rgba)):
        ring = int(rng.integers(2)) * RING
        views = rgba[ring : ring + RING]
        if scene.flaw is None:
            for _ in range(2):
                yield Item(views, attribute_question(scene, rng), "attributes")
            if rich:
                for _ in range(2):
                    yield Item(views, detail_question(scene, rng), "details")
            group = "captions of " + ("one object", "pairs", "triples")[len(scene.links)]
            group = "captions of numbers" if scene.count > 1 else group
            for kind, text in false_captions(scene, rng, rich=rich):
                true = _form(rng).format(prompt=caption(scene, rng))
                yield Item(views, Question(true, yes=True, kind="true"), group)
                yield Item(
                    views, Question(_form(rng).format(prompt=text), yes=False, kind=kind), group
                )
        topics: list[tuple[str, Tensor]] = []
        if scene.flaw == "no front":
            j = int(rng.choice(with_front))  # the same question where there is a front
            for i, group in ((number, "no front"), (j, "one front")):
                said = caption(as_if_whole(data.scenes[i]), rng)
                asked = Question(_form(rng).format(prompt=said), i != number, group)
                yield Item(data.rgba[i, ring : ring + RING], asked, "fronts")
        elif scene.flaw is not None:
            cover = data.coverage[number, ring : ring + RING]
            if not flaw_seen(scene, cover):
                continue
            topics = [(scene.flaw, views)]
        elif number % 4 == 0:
            other = data.scenes[j := int(rng.choice(clean))]
            if {t.words for t in other.things} != {t.words for t in scene.things}:
                mixed = views.clone()
                mixed[rng.permutation(RING)[:2]] = data.rgba[j, ring : ring + 2]
                topics = [("mixed", mixed)]
        for flaw, pixels in topics:
            forms = GEOMETRY_QUESTIONS["sound"]
            text = forms[int(rng.integers(len(forms)))]
            # a flawless partner for every flawed scene
            partner = data.rgba[int(rng.choice(clean)), ring : ring + RING]
            yield Item(pixels, Question(text, yes=False, kind=flaw), "geometry")
            yield Item(partner, Question(text, yes=True, kind="sound"), "geometry")
            forms = GEOMETRY_QUESTIONS[flaw]
            text = forms[int(rng.integers(len(forms)))]
            yield Item(pixels, Question(text, yes=True, kind=flaw), "geometry")
            yield Item(partner, Question(text, yes=False, kind="sound"), "geometry")


@torch.no_grad()
def evaluate(
    reward: YesNoReward, data: BlocksData, *, strength: float = 0.0, limit: int | None = None
) -> dict[str, dict[str, float]]:
    """Balanced accuracy per group, and accuracy per kind.

    Args:
        reward: reward with the question ``"{prompt}"``.
        data: held-out scenes.
        strength: damage of the views, see ``augment.augment_and_composite``.
        limit: largest number of questions.

    Returns:
        For each group: ``n``, ``balanced`` (mean of the accuracies on Yes and on No), and the
        accuracy of every kind.
    """
    asked = list(items(data))[:limit]
    generator = torch.Generator().manual_seed(0)
    right: dict[str, list[tuple[bool, str, bool]]] = {}
    for start in tqdm(range(0, len(asked), 40), desc=f"questions, damage {strength:g}"):
        part = asked[start : start + 40]
        images = augment_and_composite(
            torch.stack([i.rgba for i in part]), generator, strength=strength
        )
        margins = reward(images, prompt=[i.question.text for i in part])
        for item, margin in zip(part, margins.tolist()):
            mark = (item.question.yes, item.question.kind, (margin > 0) == item.question.yes)
            right.setdefault(item.group, []).append(mark)
    table: dict[str, dict[str, float]] = {}
    for group, marks in right.items():
        sides = [[ok for yes, _, ok in marks if yes == side] for side in (True, False)]
        row = {"n": len(marks), "balanced": float(np.mean([np.mean(s) for s in sides]))}
        for kind in sorted({k for _, k, _ in marks}):
            row[kind] = float(np.mean([ok for _, k, ok in marks if k == kind]))
        table[group] = row
    return table


def as_markdown(tables: dict[str, dict[str, dict[str, float]]]) -> str:
    """One Markdown table of the results under several conditions, by the condition's name."""
    lines = ["| views | group | questions | balanced accuracy | accuracy by kind |"]
    lines.append("|---|---|---|---|---|")
    for condition, table in tables.items():
        for group, row in sorted(table.items()):
            kinds = ", ".join(f"{k} {v:.1%}" for k, v in row.items() if k not in ("n", "balanced"))
            lines.append(
                f"| {condition} | {group} | {row['n']} | {row['balanced']:.1%} | {kinds} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of held-out scenes")
    parser.add_argument("--model", default="builtin/blocks", help="model to ask")
    parser.add_argument("--scenes", type=int, default=1000, help="scenes to render or load")
    parser.add_argument(
        "--composed", type=float, default=0.0, help="share of compositions among the scenes"
    )
    parser.add_argument("--out", type=Path, help="write the tables here, as .json and .md")
    args = parser.parse_args()
    data = render_dataset(args.data, args.scenes, seed=HELD_OUT_SEED, composed=args.composed)
    reward = YesNoReward(args.model, question="{prompt}")
    tables = {
        "clean": evaluate(reward, data),
        "damaged": evaluate(reward, data, strength=1.0),
    }
    text = as_markdown(tables)
    if args.out:
        args.out.with_suffix(".json").write_text(
            json.dumps(tables, indent=1) + os.linesep, encoding="utf-8"
        )
        args.out.with_suffix(".md").write_text(text + os.linesep, encoding="utf-8")
    tqdm.write(text)


if __name__ == "__main__":
    main()
