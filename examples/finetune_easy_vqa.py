"""Fine-tune the built-in VLM on easy-VQA's yes/no questions, and test it as a reward.

    pip install easy-vqa
    python examples/finetune_easy_vqa.py --out outputs/easy_vqa

easy-VQA (https://github.com/vzhou842/easy-VQA) has pictures of one flat shape and questions such as
"does the image not contain a teal shape?". Training asks several questions in one look; its loss is
the cross-entropy of the answers, which for yes/no questions is that of the reward, the log-odds of
``YesNoReward``. Its open questions about shapes ("what shape is present?") are trained beside them,
by the first token of the answer: from yes and no alone, shapes are not learnt in reasonable time.
The test is on the yes/no questions alone, each asked by itself.

Ctrl-C and the same command again with --resume goes on. Afterwards ``YesNoReward("DIR/model")``
loads the result.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from vlmreward import YesNoReward
from vlmreward.models._acceleration.gradient_checkpointing import layers_of
from vlmreward.utils.progress import progress_bar
from vlmreward_3d.blocks.training.trainer import Trainer

QUESTION = "{prompt} Answer Yes or No."
YES_NO = ("yes", "no")
SHAPES = ("circle", "rectangle", "triangle")
COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")


@dataclass(frozen=True)
class Picture:
    """A picture, and questions about it with their answers."""

    path: Path
    questions: tuple[str, ...]
    answers: tuple[str, ...]

    def image(self) -> torch.Tensor:
        """RGB ``(3, 64, 64)`` in [0, 1]."""
        with Image.open(self.path) as file:
            return pil_to_tensor(file.convert("RGB")).float() / 255


def easy_vqa(part: str, answers: Sequence[str]) -> list[Picture]:
    """The pictures of ``part``, "train" or "test", with the questions that have such answers."""
    try:
        import easy_vqa as package
    except ImportError:
        raise OSError("easy-VQA is not installed; expected it: pip install easy-vqa") from None
    asked: dict[int, list[tuple[str, str]]] = {}
    for question, answer, image in zip(*getattr(package, f"get_{part}_questions")()):
        if answer in answers:
            asked.setdefault(image, []).append((question, answer))
    paths = getattr(package, f"get_{part}_image_paths")()
    return [
        Picture(Path(paths[image]), *map(tuple, zip(*pairs)))
        for image, pairs in sorted(asked.items())
    ]


def kind(question: str) -> str:
    """Kind of a question: "open", "color" or "shape", with ", negated" if it is negated."""
    words = question.rstrip("?").split()
    if words[0] == "what":
        return "open"
    negated = "not" in words or "no" in words
    return f"{'color' if set(words) & set(COLORS) else 'shape'}{', negated' if negated else ''}"


def wilson(right: int, asked: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927)."""
    z, share = 1.959964, right / asked
    center = share + z * z / (2 * asked)
    half = z * math.sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked))
    return (center - half) / (1 + z * z / asked), (center + half) / (1 + z * z / asked)


def cross_entropy(
    reward: YesNoReward, pictures: Sequence[Picture], places: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Mean cross-entropy of the answers to some questions about each picture, one forward pass."""
    backbone = reward.backbone
    lookup = backbone.lookup()
    named = [lookup.variants(shape)[0][0] for shape in SHAPES]
    tokens = (*(reward.tokens or ()), *named)
    choices = [*YES_NO, *SHAPES]
    chosen, open_, wordings = [], [], []
    for picture, own in zip(pictures, places):
        chosen.append([choices.index(picture.answers[i]) for i in own])
        open_.append([kind(picture.questions[i]) == "open" for i in own])
        wordings.append([wording(picture.questions[i]) for i in own])
    images = torch.stack([picture.image() for picture in pictures]).to(backbone.device)
    sizes = [[(image.shape[-2], image.shape[-1])] for image in images]
    logits = backbone.multi_question_logits(images, wordings, sizes, tokens)
    others = torch.tensor(open_)[..., None] != (torch.arange(len(tokens)) >= len(YES_NO))
    logits = logits.masked_fill(others.to(logits.device), -torch.inf)
    target = torch.tensor(chosen, device=logits.device)
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def wording(question: str) -> str:
    """The model's text of a question."""
    return question if kind(question) == "open" else QUESTION.format(prompt=question)


def balanced(pictures: Sequence[Picture]) -> list[list[float]]:
    """Weights of each picture's questions, by which every kind and answer is drawn as often.

    Unweighted, seven of eight questions about colors and two of three about shapes have the same
    answer by their wording alone, and shapes are not learnt.
    """
    groups = [[(kind(q), a) for q, a in zip(p.questions, p.answers)] for p in pictures]
    number = Counter(group for row in groups for group in row)
    return [[1 / number[group] for group in row] for row in groups]


def draw(
    weights: Sequence[Sequence[float]], batch: int, questions: int, step: int, seed: int
) -> tuple[list[int], list[list[int]]]:
    """Indices of a step's pictures, and of the questions about each of them."""
    rng = random.Random(f"{seed} {step}")
    # a question's chance is that of its picture times its own there: its weight
    chosen = rng.choices(range(len(weights)), [sum(row) for row in weights], k=batch)
    return chosen, [rng.choices(range(len(weights[i])), weights[i], k=questions) for i in chosen]


def train(reward: YesNoReward, pictures: Sequence[Picture], args: argparse.Namespace) -> Any:
    """Train all weights, or go on from ``args.out``; returns the averaged model."""
    vlm = reward.backbone.vlm.requires_grad_(True)
    merger = getattr(getattr(vlm.base_model, "visual", None), "merger", None)  # Qwen's
    layers = [*layers_of(vlm), *([merger] if merger is not None else [])]
    matrices = [p for layer in layers for p in layer.parameters() if p.ndim == 2]
    trainer = Trainer(
        vlm, matrices, out=args.out, steps=args.steps, lr=args.lr, matrix_lr=4 * args.lr, warmup=50
    )
    steps = range(trainer.start, args.steps)
    bar = progress_bar(steps, initial=trainer.start, total=args.steps, desc="training", unit="step")
    losses: list[float] = []
    weights = balanced(pictures)
    for step in bar:
        chosen, places = draw(weights, args.batch, args.questions, step, args.seed)
        loss = cross_entropy(reward, [pictures[i] for i in chosen], places)
        trainer.update(loss, step)
        losses.append(float(loss.detach()))
        if (step + 1) % 10 == 0 or step + 1 == args.steps:
            mean = sum(losses) / len(losses)
            bar.set_postfix(loss=f"{mean:.3f}")
            trainer.log(step=step + 1, loss=mean)
            losses.clear()
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            trainer.save(step + 1)
    vlm.load_state_dict(trainer.average.state_dict())
    return vlm.requires_grad_(False)


@torch.no_grad()
def examine(
    reward: YesNoReward, pictures: Sequence[Picture], batch: int = 256
) -> list[tuple[Picture, str, bool, float]]:
    """Every question, its answer and the reward, one question a query."""
    asked = [
        (picture, question, answer == "yes")
        for picture in pictures
        for question, answer in zip(picture.questions, picture.answers)
    ]
    out = []
    for start in progress_bar(range(0, len(asked), batch), desc="testing", unit="batch"):
        part = asked[start : start + batch]
        images = torch.stack([picture.image() for picture, _, _ in part])
        values = reward(images, prompt=[question for _, question, _ in part])
        out += [(*query, value) for query, value in zip(part, values.tolist())]
    return out


def summary(results: Iterable[tuple[Picture, str, bool, float]]) -> dict[str, dict[str, Any]]:
    """Questions, accuracy with its interval and that of the majority answer, by kind."""
    groups: dict[str, list[tuple[bool, bool]]] = {}
    for _, question, answer, value in results:
        for name in ("all", kind(question)):
            groups.setdefault(name, []).append((answer, answer == (value > 0)))
    out = {}
    for name, marks in sorted(groups.items()):
        right, yes = sum(r for _, r in marks), sum(a for a, _ in marks)
        out[name] = {
            "questions": len(marks),
            "accuracy": right / len(marks),
            "interval": wilson(right, len(marks)),
            "majority": max(yes, len(marks) - yes) / len(marks),
        }
    return out


def table(groups: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| questions | number | accuracy [95 % interval] | majority answer |",
        "|---|--:|--:|--:|",
    ]
    for name, group in groups.items():
        low, high = group["interval"]
        lines.append(
            f"| {name} | {group['questions']} | {group['accuracy']:.1%} [{low:.1%}, {high:.1%}] | "
            f"{group['majority']:.1%} |"
        )
    return "\n".join(lines)


def picture(results: Sequence[tuple[Picture, str, bool, float]], log: Path, path: Path) -> None:
    """Loss over the steps, and some test pictures with a question, its answer and the reward."""
    from matplotlib.figure import Figure

    wrong = [r for r in results if r[2] != (r[3] > 0)][:4]
    right = random.Random(0).sample([r for r in results if r[2] == (r[3] > 0)], 8 - len(wrong))
    figure = Figure(figsize=(13, 8), layout="constrained")
    grid = figure.add_gridspec(3, 4, height_ratios=(1, 1, 0.8))
    for i, (shown, question, answer, value) in enumerate([*right, *wrong]):
        axis = figure.add_subplot(grid[i // 4, i % 4])
        axis.imshow(shown.image().permute(1, 2, 0).numpy(), interpolation="nearest")
        axis.set_axis_off()
        axis.set_title(
            f"{question}\nanswer: {'yes' if answer else 'no'}, log-odds {value:+.1f}",
            fontsize=9,
            color="black" if answer == (value > 0) else "firebrick",
        )
    axis = figure.add_subplot(grid[2, :])
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    axis.plot([e["step"] for e in entries], [e["loss"] for e in entries])
    axis.set(xlabel="step", ylabel="cross-entropy", yscale="log")
    figure.savefig(path, dpi=100)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = common.command_line("Fine-tune a VLM on easy-VQA's training part.", "easy_vqa")
    parser.add_argument("--steps", type=common.positive, default=2000, help="default: %(default)s")
    parser.add_argument(
        "--batch", type=common.positive, default=16, help="pictures a step; default: %(default)s"
    )
    parser.add_argument(
        "--questions", type=common.positive, default=6, help="about each; default: %(default)s"
    )
    parser.add_argument(
        "--lr",
        type=common.above_zero,
        default=5e-4,
        help="peak of AdamW's, of Muon's four times that; default: %(default)s",
    )
    parser.add_argument(
        "--save-every", type=common.positive, default=100, help="steps; default: %(default)s"
    )
    parser.add_argument(
        "--limit", type=common.positive, help="pictures of each part, for a short try"
    )
    parser.add_argument("--resume", action="store_true", help="go on with what is in --out")
    return parser.parse_args(arguments)


def work(options: argparse.Namespace) -> list[Path]:
    out = options.out
    if (out / "state.pt").exists() and not options.resume:
        raise ValueError(f"{out} holds a run; add --resume to go on with it, or choose another")
    if options.resume and not (out / "state.pt").exists():
        raise ValueError(f"{out} holds nothing to resume; expected state.pt; leave out --resume")
    learnt = easy_vqa("train", (*YES_NO, *SHAPES))[: options.limit]
    tested = easy_vqa("test", YES_NO)[: options.limit]
    reward = load_reward(options.model, options.device)
    before = summary(examine(reward, tested))["all"]
    train(reward, learnt, options)
    reward.backbone.vlm.save_pretrained(out / "model")
    reward.backbone.processor.save_pretrained(out / "model")

    results = examine(load_reward(out / "model", options.device), tested)
    groups = summary(results)
    metrics = {"before": before, "after": groups, "steps": options.steps, "seed": options.seed}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    picture(results, out / "log.jsonl", out / "examples.png")
    print(f"before: {before['accuracy']:.1%}\n\n{table(groups)}\n")
    return [out / "metrics.json", out / "examples.png", out / "model"]


def load_reward(model: str | Path, device: str) -> YesNoReward:
    """The model in float32, because all weights are trained."""
    return YesNoReward(model, question=QUESTION, device=device, dtype=torch.float32)


def main(arguments: list[str] | None = None) -> int:
    return common.run(work, parse(arguments))


if __name__ == "__main__":
    sys.exit(main())
