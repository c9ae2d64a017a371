"""Common parts of the examples: options, pictures of the built-in world, and figures."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import starting
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from vlmreward import YesNoReward
from vlmreward.cli import process
from vlmreward.cli.arguments import above_zero as above_zero
from vlmreward.cli.arguments import natural as natural
from vlmreward.cli.arguments import not_negative as not_negative
from vlmreward.cli.arguments import path as path
from vlmreward.cli.arguments import positive as positive
from vlmreward.cli.arguments import slug as slug
from vlmreward.cli.arguments import text as text
from vlmreward_3d.atomic_io import locked
from vlmreward_3d.blocks.world.dataset import sample_cameras
from vlmreward_3d.blocks.world.raycast import raycast
from vlmreward_3d.blocks.world.scenes import COLORS, SHAPES, Scene, SceneObject, arrange

BUILTIN = "builtin/blocks"


def command_line(description: str, out: str) -> argparse.ArgumentParser:
    """A parser with the options that all examples have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--model", type=text, default=BUILTIN, help=f"hub id or folder of a VLM; default: {BUILTIN}"
    )
    default = Path("outputs") / out
    parser.add_argument(
        "--out", type=path, default=default, metavar="DIR", help=f"default: {default}"
    )
    parser.add_argument("--seed", type=natural, default=0, help="default: 0")
    parser.add_argument("--device", default="cpu", help='"cpu" (default) or "cuda"')
    return parser


def load_reward(model: str, device: str) -> YesNoReward:
    """The reward of a VLM; whatever is wrong with the name is an OSError."""
    try:
        return YesNoReward(model, device=device)
    except TypeError as error:
        raise OSError(f"cannot use {model!r}: {error}") from error


@process.speaking()
def run(main: Callable[[argparse.Namespace], Sequence[Path]], options: argparse.Namespace) -> int:
    """Make the folder, do the work and name its files; a mistake of the user is one line."""
    starting.done()
    try:
        process.usable_device(options.device)
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"cannot write to {options.out} ({error.strerror}); expected a folder that exists "
                "or can be made; pass another --out"
            ) from None
        with locked(options.out):
            files = main(options)
    except ModuleNotFoundError as error:
        print(f"error: {error}; {starting.REMEDY}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if not process.out_of_memory(error):
            raise
        print("error: no memory left; expected more of it; ask for less at a time", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return process.INTERRUPTED
    print("\n".join(map(str, files)))
    return 0


def read_lines(file: Path) -> list[str]:
    """The lines of a text file in UTF-8 that are not empty, without blanks around them.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not UTF-8, or has no prompt.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise OSError(f"cannot read {file} ({error.strerror}); expected a text file") from None
    except UnicodeDecodeError:
        raise ValueError(f"cannot read {file}; expected a text file in UTF-8") from None
    found = [line for line in lines if line]
    if not found:
        raise ValueError(f"{file} is empty; expected a prompt a line")
    return found


def color_and_shape(text: str) -> tuple[str, str]:
    """Color and shape in a text such as "a red cube", as the built-in world names them."""
    words = text.split()[-2:]
    if len(words) < 2 or words[0] not in COLORS or words[1] not in SHAPES:
        raise ValueError(
            f"the built-in world has no {text!r}; expected a color and a shape, such as "
            f"'a red cube': colors are {', '.join(COLORS)}, shapes {', '.join(SHAPES)}"
        )
    return words[0], words[1]


def blocks_picture(text: str, *, seed: int = 0, size: int = 64) -> Tensor:
    """A picture (3, size, size) in [0, 1] of the built-in world: one object on light gray.

    Args:
        text: a description such as "a red cube".
        seed: seed of the viewing direction.
        size: height and width in pixels.
    """
    color, shape = color_and_shape(text)
    rng = np.random.default_rng(seed)
    thing = SceneObject(shape, color, 0.6, float(rng.uniform(0, 6.28)))
    camera = sample_cameras(torch.Generator().manual_seed(seed), 1)[:1]
    rgba = raycast(Scene(arrange([thing], None, rng)), camera, size).rgba[0]
    return (rgba[..., :3] + 0.85 * (1 - rgba[..., 3:])).movedim(-1, 0).clamp(0, 1)


def save_pictures(
    path: Path, rows: Mapping[str, Sequence[Tensor]], titles: Sequence[str] = ()
) -> Path:
    """A sheet of pictures, a named row each.

    Args:
        path: PNG file to write.
        rows: pictures (3, H, W) or (V, 3, H, W) in [0, 1], whose views are put in a square.
        titles: titles of the columns.
    """
    columns = max(len(pictures) for pictures in rows.values())
    size = (1.6 * columns + 1.4, 1.75 * len(rows))
    figure = Figure(size, dpi=100, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items()):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axis, picture in zip(line, pictures):
            picture = picture.detach().float().cpu()
            if picture.ndim == 4:
                picture = make_grid(picture, nrow=math.ceil(len(picture) ** 0.5), padding=0)
            axis.imshow(picture.movedim(0, -1).clamp(0, 1).numpy(), interpolation="nearest")
        for axis in line:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=8)
    figure.savefig(path)
    return path


def save_curves(
    path: Path, panels: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]
) -> Path:
    """Curves over the steps, a panel each.

    Args:
        path: PNG file to write.
        panels: points (step, value) of each curve, by the panel's title and the curve's name.
    """
    figure = Figure((4.2 * len(panels), 3.0), dpi=100, layout="constrained")
    for axis, (title, curves) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items()
    ):
        for name, values in curves.items():
            axis.plot(*zip(*values), label=name)
        axis.set(title=title, xlabel="step")
        axis.legend(fontsize=8)
    figure.savefig(path)
    return path
