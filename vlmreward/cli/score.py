"""The command ``vlmreward score IMAGE... --prompt PROMPT``."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypedDict

from vlmreward.cli.arguments import positive, text
from vlmreward.cli.common import (
    DONE,
    PARTLY,
    UsageError,
    add_model_options,
    check_device,
    command,
    load_reward,
    prompts_for,
    usage_errors,
    writable,
    write,
)
from vlmreward.cli.images import add_images, read

if TYPE_CHECKING:
    from vlmreward.cli.common import Commands
    from vlmreward.images.io import ImageFile
    from vlmreward.rewards.yes_no import YesNoReward

__all__ = ["add"]

_ABOUT = """\
Ask a vision-language model about every image and every prompt, and print the log-odds of Yes,
log P(Yes) - log P(No), and P(Yes), which is their sigmoid: 0 is undecided (50 %), +2.2 is 90 %,
-2.2 is 10 %. Log-odds of different prompts or questions are not on one scale: compare images
for one prompt.
"""
_MORE = """\
examples:
  vlmreward score cat.png --prompt "a cat" --model Qwen/Qwen2.5-VL-7B-Instruct
  vlmreward score renders/ --prompt "a red cube" --prompt "a cone" --format csv --out scores.csv
  vlmreward score view_*.png --views --prompt "a red cube" --question paper/selected

exit codes:
  0  every image was scored
  1  some images could not be read; the others were scored
  2  bad usage, no readable image, or the model cannot be loaded
"""


class Score(TypedDict):
    """A model's answer about the images of one query."""

    images: list[str]
    conversions: dict[str, tuple[str, ...]]
    prompt: str | None
    log_odds: float
    p_yes: float


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = command(
        commands, "score", short="log-odds of images and prompts", about=_ABOUT, more=_MORE
    )
    add_images(parser)
    parser.add_argument(
        "--prompt",
        type=text,
        action="append",
        default=[],
        help="for the question's {prompt}; may be given several times",
    )
    parser.add_argument(
        "--views", action="store_true", help="all images are views of one object, one question"
    )
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    parser.add_argument("--out", metavar="FILE", help="write to a file, not to the screen")
    parser.add_argument(
        "--batch", type=positive, default=4, metavar="N", help="questions at a time; default: 4"
    )
    add_model_options(parser, pixel_mode="uint8")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Score, write, and return the exit code."""
    file = writable("--out", options.out)
    prompts = prompts_for(options.question, options.prompt)
    check_device(options)
    images, failed = read(options.images, all_or_nothing=options.views)
    reward = load_reward(options)
    queries = [images] if options.views else [[image] for image in images]
    rows = list(_scored(reward, queries, prompts, options.batch))
    write(file, {"table": _table, "csv": _csv, "json": _json}[options.format](options, rows))
    return PARTLY if failed else DONE


def _scored(
    reward: YesNoReward, queries: list[list[ImageFile]], prompts: list[str | None], batch: int
) -> Iterator[Score]:
    """One row for every query and prompt, in order."""
    import torch

    from vlmreward.rewards.base import NotFiniteError
    from vlmreward.utils.progress import progress_bar

    pairs = [(query, prompt) for query in queries for prompt in prompts]
    with progress_bar(total=len(pairs), unit="question", leave=False) as bar:
        for start in range(0, len(pairs), batch):
            part = pairs[start : start + batch]
            asked = [prompt for _, prompt in part if prompt is not None]
            with torch.no_grad(), usage_errors(ValueError):
                try:
                    values = reward([[f.image for f in query] for query, _ in part], asked or None)
                except NotFiniteError as error:
                    raise ValueError(f"{part[error.query][0][0].path}: {error}") from error
            for (query, prompt), value in zip(part, values.double()):
                if not value.isfinite():
                    raise UsageError(
                        f"{query[0].path}: the log-odds for {prompt!r} are {float(value)}; "
                        "expected a finite number: the model overflows in its dtype, so try "
                        "--dtype float32"
                    )
                yield {
                    "images": [str(file.path) for file in query],
                    "conversions": {str(f.path): f.conversions for f in query if f.conversions},
                    "prompt": prompt,
                    "log_odds": float(value),
                    "p_yes": float(value.sigmoid()),
                }
            bar.update(len(part))


def _name(row: Score) -> str:
    images = row["images"]
    return images[0] if len(images) == 1 else f"{images[0]} and {len(images) - 1} more views"


def _table(options: argparse.Namespace, rows: list[Score]) -> str:
    head = ("image", "prompt", "log-odds", f"P({options.answers[0]})")
    cells = [
        (_name(r), r["prompt"] or "", f"{r['log_odds']:+.2f}", f"{r['p_yes']:.1%}") for r in rows
    ]
    wide = [max(len(row[i]) for row in [head, *cells]) for i in range(4)]
    lines = [
        f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:>{wide[2]}}  {d:>{wide[3]}}"
        for a, b, c, d in [head, *cells]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], ""])


def _csv(options: argparse.Namespace, rows: list[Score]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["image", "prompt", "log_odds", "p_yes"])
    for row in rows:
        writer.writerow(
            [";".join(row["images"]), row["prompt"] or "", row["log_odds"], row["p_yes"]]
        )
    return out.getvalue()


def _json(options: argparse.Namespace, rows: list[Score]) -> str:
    whole = {"model": options.model, "question": options.question, "answers": list(options.answers)}
    return json.dumps({**whole, "scores": rows}, indent=2, ensure_ascii=False) + "\n"
