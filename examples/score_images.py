"""Scores of image files for prompts, as a table, scores.csv and scores.json:

    python examples/score_images.py PATH ... --prompt "a red cube" --prompt "a blue sphere"

Without files, three pictures of the built-in world are drawn into the folder and scored. The
command ``vlmreward score`` does the same without a script.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import common
import torch
from torchvision.utils import save_image

from vlmreward.images.find import find_images
from vlmreward.images.io import load_image
from vlmreward.utils.progress import progress_bar

PROMPTS = ("a red cube", "a blue sphere", "a green mug")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = common.command_line("Score images for prompts.", "score_images")
    parser.add_argument(
        "paths", nargs="*", type=common.path, metavar="PATH", help="images, or folders"
    )
    parser.add_argument(
        "--prompt", type=common.text, action="append", help="may be repeated; needed with PATH"
    )
    parser.add_argument("--batch", type=common.positive, default=8, help="default: %(default)s")
    options = parser.parse_args(arguments)
    if options.paths and not options.prompt:
        parser.error("expected a --prompt to score the images for")
    options.prompt = options.prompt or list(PROMPTS)
    return options


def draw(folder: Path) -> list[Path]:
    """A picture for each of the default prompts."""
    files = [folder / f"{common.slug(prompt)}.png" for prompt in PROMPTS]
    for prompt, file in zip(PROMPTS, files):
        save_image(common.blocks_picture(prompt), file)
    return files


@torch.no_grad()
def work(options: argparse.Namespace) -> list[Path]:
    files = find_images(options.paths) or draw(options.out)
    for file in files:
        if not file.is_file():
            raise OSError(f"cannot read {file}: no such file; expected images, or folders of them")
    reward = common.load_reward(options.model, options.device)
    queries = [(file, prompt) for file in files for prompt in options.prompt]
    rows = []
    starts = range(0, len(queries), options.batch)
    for start in progress_bar(starts, desc="score", unit="batch"):
        part = queries[start : start + options.batch]
        images = [load_image(file).image for file, _ in part]  # of different sizes
        scores = reward(images, prompt=[prompt for _, prompt in part])
        for (file, prompt), score, p in zip(part, scores.tolist(), scores.sigmoid().tolist()):
            rows.append({"image": str(file), "prompt": prompt, "reward": score, "p_yes": p})

    width = max(len(row["image"]) for row in rows)
    for row in rows:
        print(f"{row['image']:{width}}  {row['reward']:7.2f}  {row['p_yes']:6.1%}  {row['prompt']}")
    as_csv, as_json = options.out / "scores.csv", options.out / "scores.json"
    with as_csv.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    as_json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return [as_csv, as_json]


def main(arguments: list[str] | None = None) -> int:
    return common.run(work, parse(arguments))


if __name__ == "__main__":
    sys.exit(main())
