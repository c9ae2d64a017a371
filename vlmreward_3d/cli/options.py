"""The options of `vlm3d`, without torch, so that --help and mistakes answer at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vlmreward import __version__
from vlmreward.cli.arguments import (
    above_zero,
    natural,
    path,
    port,
    positive,
    share,
    slug,
    text,
    threads,
)
from vlmreward_3d.cli.conflicts import refuse_without_effect
from vlmreward_3d.cli.invocation import program_name
from vlmreward_3d.cli.regions import region
from vlmreward_3d.cli.settings import QUESTIONS
from vlmreward_3d.config import DENSIFICATIONS, FIELDS, OBJECTIVES, PRECISIONS, RANKINGS
from vlmreward_3d.presets import PRESETS

__all__ = ["MESHES", "mesh_kinds", "parse", "parser"]

MESHES = ("glb", "texture", "obj", "ply")
"""Values of --export."""


def parser() -> argparse.ArgumentParser:
    """The parser of all options."""
    whole = argparse.ArgumentParser(
        prog=program_name(), description="Text to 3D with a VLM's reward (VLM3D)."
    )
    version = f"vlm3d (vlmreward) {__version__}"
    whole.add_argument("--version", action="version", version=version)
    whole.add_argument("prompt", type=text, metavar="PROMPT", help='for example "a red cube"')
    whole.add_argument("--preset", choices=PRESETS, default="blocks", help="default: blocks")
    whole.add_argument(
        "--builtin-models",
        action="store_true",
        help="the preset's method with the built-in models and at their size, for a laptop CPU",
    )
    whole.add_argument("--steps", type=positive, help="length of the run; default: the preset's")
    whole.add_argument("--seed", type=natural, default=0, help="default: 0")
    whole.add_argument("--out", type=path, metavar="DIR", help="default: outputs/<prompt>")
    existing = whole.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with the run in DIR")
    existing.add_argument("--overwrite", action="store_true", help="replace the run in DIR")
    whole.add_argument(
        "--export",
        type=mesh_kinds,
        metavar="KINDS",
        help=f"some of {','.join(MESHES)}; default: glb,texture",
    )
    whole.add_argument("--denoiser", type=text, metavar="MODEL", help="a file, folder or hub id")
    whole.add_argument(
        "--adapter",
        type=text,
        metavar="FILE",
        help="MV-Adapter beside it, on disk or as HUB-ID/FILE; see the preset mvadapter",
    )
    whole.add_argument(
        "--denoiser-precision",
        choices=PRECISIONS,
        help="how one of latents computes; default: autocast on a GPU, float32 elsewhere",
    )
    whole.add_argument(
        "--rule",
        metavar="NAME",
        help="distillation rule, such as x0, sds or ism; see docs/rules.md",
    )
    whole.add_argument(
        "--region",
        type=region,
        action="append",
        metavar="BOX",
        help='"PROMPT: X,Y,Z to X,Y,Z", what is in a box, given for each; with --rule semantic-sds',
    )
    whole.add_argument(
        "--perp-neg",
        action="store_true",
        help="tell a denoiser without cameras which side a view shows, and which it does not",
    )
    whole.add_argument(
        "--t-max-end",
        type=share,
        metavar="LEVEL",
        help="highest noise level at the end, in [0, 1], to which the preset's falls: the lower it "
        "is, the less the denoiser takes back what the VLM has changed",
    )
    whole.add_argument(
        "--vlm",
        type=text,
        metavar="MODEL",
        help="a folder, hub id or short name: paligemma, idefics, ...",
    )
    whole.add_argument(
        "--field",
        choices=FIELDS,
        help="dense grids, hash tables for detail, or Gaussians; default: the preset's, which is "
        "dense grids in all but dreamgaussian",
    )
    growth = whole.add_argument_group("growth, with --field gaussians")
    growth.add_argument(
        "--grow",
        choices=DENSIFICATIONS,
        help="clone, split and remove Gaussians in the run, by settings of this name",
    )
    growth.add_argument(
        "--max-gaussians", type=positive, metavar="N", help="their largest number; see --grow"
    )
    ablations = whole.add_argument_group("the paper's ablations")
    ablations.add_argument("--no-vlm", action="store_true", help="score distillation alone")
    ablations.add_argument("--single-view", action="store_true", help="show the VLM one view")
    question = ablations.add_mutually_exclusive_group()
    question.add_argument(
        "--question",
        choices=QUESTIONS,
        help="one of the paper's (default: selected), or in short words for the content alone",
    )
    question.add_argument(
        "--no-geometry-question", action="store_true", help="ask about the content alone"
    )
    question.add_argument(
        "--separate-questions", action="store_true", help="content and geometry, one by one"
    )
    asking = whole.add_argument_group("how often the VLM is asked, and how much it weighs")
    asking.add_argument("--vlm-interval", type=positive, metavar="K", help="ask at every K-th step")
    asking.add_argument(
        "--vlm-cache-gradient",
        action="store_true",
        help="follow its last gradient at the steps in between",
    )
    ratio = asking.add_mutually_exclusive_group()
    ratio.add_argument(
        "--vlm-max-grad-ratio",
        type=above_zero,
        metavar="B",
        help="keep its gradient within B times the norm of the denoiser's",
    )
    ratio.add_argument(
        "--vlm-grad-ratio",
        type=above_zero,
        metavar="B",
        help="choose lambda so that its gradient has B times the norm of the denoiser's",
    )
    asking.add_argument(
        "--vlm-weight",
        type=above_zero,
        metavar="LAMBDA",
        help="one lambda for the whole run; default: the preset's schedule",
    )
    asking.add_argument(
        "--vlm-objective",
        choices=OBJECTIVES,
        help="what is increased: log-odds (default, as in the paper), or log-probability, which "
        "falls silent where the answer is Yes",
    )
    asking.add_argument(
        "--vlm-resolution", type=positive, metavar="N", help="side in pixels of what it is shown"
    )
    asking.add_argument(
        "--vlm-transformations",
        type=positive,
        metavar="N",
        help="average it over N random transformations of the views",
    )
    asking.add_argument(
        "--vlm-views-per-question",
        type=positive,
        metavar="N",
        help="ask about N views at a time, and take the mean; default: about all together",
    )
    asking.add_argument(
        "--noise-candidates",
        type=positive,
        metavar="K",
        help="draw K noises a step, and go on with the one whose prediction it likes best",
    )
    asking.add_argument(
        "--noise-ranking",
        choices=RANKINGS,
        help="how K noises are weighed; default: the best alone; see docs/rules.md",
    )
    whole.add_argument(
        "--no-collapse-detection",
        action="store_true",
        help="let views be empty, full or foggy",
    )
    whole.add_argument(
        "--dry-run",
        action="store_true",
        help="measure a few steps, say what the run takes, and end",
    )
    whole.add_argument(
        "--viewer-port",
        type=port,
        nargs="?",
        const=8080,
        metavar="PORT",
        help="watch the run in a browser; default port: 8080",
    )
    whole.add_argument(
        "--checkpoint-every",
        type=positive,
        metavar="N",
        help="steps between checkpoints; default: 50, of short runs a fifth",
    )
    whole.add_argument("--threads", type=threads, metavar="N", help="CPU threads")
    whole.add_argument("--device", default="cpu", help='"cpu" (default) or "cuda"')
    whole.add_argument(
        "--vlm-device", metavar="DEVICE", help="the VLM's own, where it works beside the denoiser"
    )
    whole.add_argument(
        "--rays-per-chunk", type=positive, metavar="N", help="rays at a time; see --dry-run"
    )
    return whole


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; a mistake ends the process with exit code 2.

    Args:
        arguments: Words without the program's name; `sys.argv` by default.
    """
    whole = parser()
    options = whole.parse_args(arguments)
    name = slug(options.prompt)
    if not name and options.out is None:
        whole.error(f"received the prompt {options.prompt!r}; expected some words; or pass --out")
    options.out = options.out or Path("outputs") / name
    refuse_without_effect(whole, options)
    options.export = options.export or ("glb", "texture")
    return options


def mesh_kinds(words: str) -> tuple[str, ...]:
    """The kinds of meshes in words that are joined by commas."""
    kinds = tuple(words.split(","))
    for kind in kinds:
        if kind not in MESHES:
            raise argparse.ArgumentTypeError(
                f"received {kind!r}; expected some of {', '.join(MESHES)}, joined by commas"
            )
    return kinds
