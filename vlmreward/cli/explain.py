"""The command ``vlmreward explain IMAGE... --prompt PROMPT --out FILE.png``."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from vlmreward.cli import arguments
from vlmreward.cli.common import (
    DONE,
    UsageError,
    add_model_options,
    check_device,
    command,
    load_reward,
    prompts_for,
    usage_errors,
    writable,
    writing,
)
from vlmreward.cli.images import add_images, read

if TYPE_CHECKING:
    import torch
    from tqdm import tqdm

    from vlmreward.cli.common import Commands
    from vlmreward.images.batch import Images
    from vlmreward.rewards.placeholders import Text
    from vlmreward.rewards.yes_no import YesNoReward

__all__ = ["add"]

_ABOUT = """\
Show where the log-odds of an answer, log P(Yes) - log P(No), come from: the images, which are views
of one object, above heat maps of what each pixel adds (red) or takes (blue), with two numbers a
view: the sum of its pixels, and how the log-odds change when the view is left out.
"""
_MORE = """\
methods:
  integrated-gradients  attributions that sum up to log-odds - log-odds of the baseline (default)
  gradient-x-input      first order, signed; one pass
  gradient-norm         how sensitive the answer is, unsigned; one pass

examples:
  vlmreward explain cube.png --prompt "a red cube" --out why.png
  vlmreward explain view_*.png --prompt "a red cube" --question paper/selected --out why.png
  vlmreward explain cube.png --prompt "a red cube" --method gradient-norm --out sensitive.pdf

exit codes:
  0  the picture was written
  2  bad usage, an image that cannot be read, or the model cannot be loaded
"""
_SUFFIXES = (".png", ".pdf", ".svg", ".jpg")


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = command(
        commands, "explain", short="a picture of where log-odds come from", about=_ABOUT, more=_MORE
    )
    add_images(parser)
    parser.add_argument("--prompt", type=arguments.text, help="for the question's {prompt}")
    parser.add_argument(
        "--out", metavar="FILE", required=True, help=f"the picture: {', '.join(_SUFFIXES)}"
    )
    parser.add_argument(
        "--method",
        choices=("integrated-gradients", "gradient-x-input", "gradient-norm"),
        default="integrated-gradients",
        help="see below",
    )
    parser.add_argument(
        "--steps",
        type=arguments.positive,
        default=96,
        help="gradients at most, of integrated gradients; default: 96",
    )
    parser.add_argument(
        "--baseline",
        type=_baseline,
        default=0.5,
        metavar="LEVEL",
        help='what integrated gradients start from: a gray level from 0 to 1, or "mean", each '
        "view's mean color; pixels that equal it get nothing; default: 0.5",
    )
    # the exact gradient is wanted here, not that of rounded pixels
    add_model_options(parser, pixel_mode="float")
    parser.set_defaults(run=run)


def _baseline(text: str) -> float | str:
    if text == "mean":
        return text
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not 0 <= level <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a gray level from 0 to 1, or mean")
    return level


def run(options: argparse.Namespace) -> int:
    """Explain, draw, and return the exit code."""
    file = writable("--out", options.out)
    if file is None or file.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            f"--out is {options.out}; expected a file ending in {', '.join(_SUFFIXES)}"
        )
    prompt = prompts_for(options.question, [] if options.prompt is None else [options.prompt])[0]
    check_device(options)
    images, _ = read(options.images, all_or_nothing=True)
    sizes = {tuple(image.image.shape[-2:]) for image in images}
    if len(sizes) > 1:
        named = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
        raise UsageError(
            f"the images are {named}; expected one size for all views: resize them, or explain one "
            "at a time"
        )
    reward = load_reward(options)

    import torch

    from vlmreward.explain import attribute
    from vlmreward.utils.progress import progress_bar

    views = torch.stack([image.image for image in images])[None]
    with usage_errors(ValueError), progress_bar(unit="pass", leave=False) as bar:
        why = attribute(
            _Counted(reward, bar),
            views,
            prompt,
            method=options.method,
            baseline=options.baseline,
            steps=options.steps,
        )
    with usage_errors(ImportError), writing(file):
        why.save(file)
    value = float(why.reward[0])
    print(f"log-odds {value:+.2f}, P({options.answers[0]}) {float(why.reward[0].sigmoid()):.1%}")
    how = "blanked" if why.replacement is not None else "left out"
    for image, effect in zip(images, why.views[0].tolist()):
        print(f"{image.path}: {how}, the log-odds change by {-effect:+.2f}")
    print(file)
    return DONE


class _Counted:
    """A reward whose calls move a progress bar."""

    def __init__(self, reward: YesNoReward, bar: tqdm) -> None:
        self.reward, self.bar = reward, bar
        self.question = reward.question

    def __call__(
        self, images: Images, prompt: Text | None = None, **placeholders: Text
    ) -> torch.Tensor:
        self.bar.update()
        return self.reward(images, prompt, **placeholders)
