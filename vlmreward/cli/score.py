"""``vlmreward score IMAGE... --text TEXT``."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vlmreward.cli.arguments import positive, text
from vlmreward.cli.common import (
    DONE,
    PARTLY,
    UsageError,
    add_model_options,
    check_device,
    command,
    load_reward,
    texts_for,
    usage_errors,
    writable,
    write,
)
from vlmreward.cli.images import add_images, read

if TYPE_CHECKING:
    from vlmreward.images.io import ImageFile
    from vlmreward.rewards.yes_no import YesNoReward

__all__ = ["add"]

_ABOUT = """\
Ask a vision-language model about every image and every text, and print the log-odds of Yes,
log P(Yes) - log P(No), and P(Yes), which is their sigmoid: 0 is undecided (50 %), +2.2 is 90 %,
-2.2 is 10 %. Log-odds of different texts or prompts are not on one scale: compare images for one
text.
"""
_MORE = """\
examples:
  vlmreward score cat.png --text "a cat" --model Qwen/Qwen2.5-VL-7B-Instruct
  vlmreward score renders/ --text "a red cube" --text "a blue sphere" --format csv --out scores.csv
  vlmreward score view_*.png --views --text "a red cube" --prompt paper/selected

exit codes:
  0  every image was scored
  1  some images could not be read; the others were scored
  2  bad usage, no readable image, or the model cannot be loaded
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = command(
        commands, "score", short="log-odds of images and texts", about=_ABOUT, more=_MORE
    )
    add_images(parser)
    parser.add_argument(
        "--text",
        type=text,
        action="append",
        default=[],
        help="for the prompt's {text}; may be given several times",
    )
    parser.add_argument(
        "--views", action="store_true", help="all images are views of one object, one question"
    )
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    parser.add_argument("--out", metavar="FILE", help="write to a file, not to the screen")
    parser.add_argument(
        "--batch", type=positive, default=4, metavar="N", help="questions at a time; default: 4"
    )
    add_model_options(parser, pixels="uint8")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Score, write, and return the exit code."""
    file = writable("--out", options.out)
    texts = texts_for(options.prompt, options.text)
    check_device(options)
    images, failed = read(options.images, all_or_nothing=options.views)
    reward = load_reward(options)
    queries = [images] if options.views else [[image] for image in images]
    rows = list(_scored(reward, queries, texts, options.batch))
    write(file, {"table": _table, "csv": _csv, "json": _json}[options.format](options, rows))
    return PARTLY if failed else DONE


def _scored(
    reward: YesNoReward, queries: list[list[ImageFile]], texts: list[str | None], batch: int
) -> Iterator[dict[str, Any]]:
    """One row for every query and text, in order."""
    import torch

    from vlmreward.rewards.base import NotFiniteError
    from vlmreward.utils.progress import progress_bar

    pairs = [(query, text) for query in queries for text in texts]
    with progress_bar(total=len(pairs), unit="question", leave=False) as bar:
        for start in range(0, len(pairs), batch):
            part = pairs[start : start + batch]
            asked = [text for _, text in part if text is not None]
            with torch.no_grad(), usage_errors(ValueError):
                try:
                    values = reward([[f.image for f in query] for query, _ in part], asked or None)
                except NotFiniteError as error:
                    raise ValueError(f"{part[error.query][0][0].path}: {error}") from error
            for (query, text), value in zip(part, values.double()):
                if not value.isfinite():
                    raise UsageError(
                        f"{query[0].path}: the log-odds for {text!r} are {float(value)}; expected "
                        "a finite number: the model overflows in its dtype, so try --dtype float32"
                    )
                yield {
                    "images": [str(file.path) for file in query],
                    "conversions": {str(f.path): f.conversions for f in query if f.conversions},
                    "text": text,
                    "log_odds": float(value),
                    "p_yes": float(value.sigmoid()),
                }
            bar.update(len(part))


def _name(row: dict[str, Any]) -> str:
    images = row["images"]
    return images[0] if len(images) == 1 else f"{images[0]} and {len(images) - 1} more views"


def _table(options: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    head = ("image", "text", "log-odds", f"P({options.answers[0]})")
    cells = [
        (_name(r), r["text"] or "", f"{r['log_odds']:+.2f}", f"{r['p_yes']:.1%}") for r in rows
    ]
    wide = [max(len(row[i]) for row in [head, *cells]) for i in range(4)]
    lines = [
        f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:>{wide[2]}}  {d:>{wide[3]}}"
        for a, b, c, d in [head, *cells]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], ""])


def _csv(options: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["image", "text", "log_odds", "p_yes"])
    for row in rows:
        writer.writerow([";".join(row["images"]), row["text"] or "", row["log_odds"], row["p_yes"]])
    return out.getvalue()


def _json(options: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    whole = {"model": options.model, "prompt": options.prompt, "answers": list(options.answers)}
    return json.dumps({**whole, "scores": rows}, indent=2, ensure_ascii=False) + "\n"
