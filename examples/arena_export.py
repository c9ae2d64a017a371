"""Render runs of examples/text_to_3d.py as a method of a tournament, in GPTEval3D's layout:

    python examples/arena_export.py RUN ... --out TOURNAMENT --method ours

Each run gives 120 frames of 512 x 512 pixels, colors and normals, to the prompt that it was made
of. See examples/arena.py, which compares methods.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import common
from tournament.turntables import export_turntable

from vlmreward.utils.progress import progress_bar


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=common.path, metavar="RUN", help="folders of runs")
    parser.add_argument(
        "--out", type=common.path, required=True, metavar="TOURNAMENT", help="its folder"
    )
    parser.add_argument("--method", type=common.text, required=True, metavar="NAME")
    parser.add_argument("--frames", type=common.positive, default=120, help="default: %(default)s")
    parser.add_argument(
        "--size", type=common.positive, default=512, help="in pixels; default: %(default)s"
    )
    parser.add_argument(
        "--add-prompts", action="store_true", help="add prompts to a list that lacks them"
    )
    parser.add_argument("--device", default="cpu", help='"cpu" (default) or "cuda"')
    options = parser.parse_args(arguments)
    if options.method.startswith(".") or {*options.method} & {*"/\\"}:
        parser.error(f"received --method {options.method!r}; expected the name of a folder")
    return options


def work(options: argparse.Namespace) -> list[Path]:
    folders = []
    total = len(options.runs) * options.frames
    with progress_bar(total=total, desc="rendering", unit="frame") as bar:
        for run in options.runs:
            folder = export_turntable(
                run,
                options.out,
                options.method,
                frames=options.frames,
                size=options.size,
                add_prompts=options.add_prompts,
                device=options.device,
                told=bar.update,
            )
            if folder in folders:
                raise ValueError(
                    f"{run} has the prompt of another run; expected one run of each prompt"
                )
            folders.append(folder)
    return folders


def main(arguments: list[str] | None = None) -> int:
    return common.run(work, parse(arguments))


if __name__ == "__main__":
    sys.exit(main())
