"""Is a growing number of Gaussians worth its time? Runs with the built-in models, at equal time:

    python examples/evaluation/evaluate_growth.py --out DIR

Each prompt and seed has three arms: one grows, and two keep a fixed number of Gaussians, that of
its beginning ("few") and that of its end ("many"). These have as many steps as fit the time that
the growing one took, by the time of a few steps: nothing else should work on the machine. A VLM
that takes no part, builtin/robust, looks at eight views of each asset.

Runs go on where they were stopped when the command is repeated. Each asset becomes a line of
measurements.jsonl, and one that has a line is not made again. Writes table.md, with the date, the
hardware and the versions, and sheet.png with the views of seed 0.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
from assets import Asset, load
from common import path, positive, read_lines, run, save_pictures
from machine import hardware
from torch import Tensor

from vlmreward import YesNoReward
from vlmreward_3d import presets
from vlmreward_3d.config import DENSIFICATIONS, VLM3DConfig
from vlmreward_3d.guidance.loading import load_guidances
from vlmreward_3d.rendering.evaluation import evaluation_cameras
from vlmreward_3d.training import profiling
from vlmreward_3d.training.run_directory import RunDirectory
from vlmreward_3d.training.trainer import train
from vlmreward_3d.vlm3d import VLM3D

HERE = Path(__file__).parent
ARMS = ("grows", "few", "many")
VIEWS, SIZE = 8, 64


def growing(options: argparse.Namespace, prompt: str, seed: int) -> VLM3DConfig:
    """The configuration of the arm that grows."""
    config = presets.blocks(prompt, steps=options.steps, seed=seed, field="gaussians")
    changed = {
        "field.n_gaussians": options.gaussians,
        "field.densification": DENSIFICATIONS[options.grow],
    }
    return config.replace(changed)


def fixed(config: VLM3DConfig, count: int, seconds: float) -> VLM3DConfig:
    """The same with a fixed number, and as many steps as fit the time."""
    kept = config.replace({"field.n_gaussians": count, "field.densification": None})
    phase = profiling.measure(kept, load_guidances(kept))[0]
    return kept.replace({"steps": max(1, round(seconds / (phase.seconds or seconds)))})


def trained(folder: Path, config: VLM3DConfig) -> tuple[VLM3D, float]:
    """A finished run, begun or gone on with, and the time of its steps."""
    files = RunDirectory(folder, config, resume=(folder / "config.json").exists())
    model = VLM3D(config, load_guidances(config))
    train(model, files)
    return model, files.seconds


def of_former_start(folder: Path) -> VLM3DConfig | None:
    """The configuration of a run that has begun, so that its number of steps stays."""
    file = folder / "config.json"
    return VLM3DConfig.from_json(file.read_text(encoding="utf-8")) if file.exists() else None


def views_of(model: VLM3D) -> Tensor:
    """Views (V, 3, H, W) in [0, 1] around the asset."""
    cameras = evaluation_cameras(model.config.camera, VIEWS)
    return torch.stack(list(model.field.render_images(cameras, SIZE)))


def measure(reward: YesNoReward, model: VLM3D, seconds: float) -> dict[str, float]:
    """Numbers of a finished run."""
    views = views_of(model)
    with torch.no_grad():
        odds = reward(views, prompt=model.config.prompt).double()
    return {
        "log-odds": odds.mean().item(),
        "P(Yes)": odds.sigmoid().mean().item(),
        "Gaussians": int(model.field.metrics()["n_gaussians"]),
        "steps": model.step_index,
        "seconds": round(seconds, 1),
    }


def table(measured: Mapping[Asset, Mapping[str, Any]], grow: str) -> str:
    """Means over the assets that all arms have, and how often growth was better."""
    pairs = sorted({key[1:] for key in measured})
    whole = [pair for pair in pairs if all((arm, *pair) in measured for arm in ARMS)]
    if not whole:
        return "No prompt has been made by all arms.\n"
    names = list(measured[("grows", *whole[0])])
    machine = hardware(torch.device("cpu"))
    lines = [
        f"{datetime.date.today()}, {machine}, Python {platform.python_version()}, torch "
        f"{torch.__version__}; settings `{grow}`; {len(whole)} runs an arm.",
        "",
        f"| arm | {' | '.join(names)} | growth has higher log-odds |",
        "|---|" + "--:|" * (len(names) + 1),
    ]
    for arm in ARMS:
        rows = [measured[(arm, *pair)] for pair in whole]
        means = [sum(row[name] for row in rows) / len(rows) for name in names]
        odds = [
            (measured[("grows", *pair)]["log-odds"], measured[(arm, *pair)]["log-odds"])
            for pair in whole
        ]
        ahead = sum(grown > other for grown, other in odds)
        said = "" if arm == "grows" else f"{ahead} of {len(whole)}"
        lines.append(f"| {arm} | {' | '.join(f'{mean:.4g}' for mean in means)} | {said} |")
    return "\n".join(lines) + "\n"


def compare(options: argparse.Namespace) -> Sequence[Path]:
    """Make, measure and show all assets; returns the files."""
    out: Path = options.out
    reward = YesNoReward("builtin/robust", question="yes-no")
    file = out / "measurements.jsonl"
    measured = load(file)
    pictures: dict[str, list[Tensor]] = {}
    prompts = read_lines(options.prompts)[: options.limit]
    for seed, (number, prompt) in itertools.product(range(options.seeds), enumerate(prompts)):
        base = growing(options, prompt, seed)
        for arm in ARMS:
            folder = out / f"{number:03d}-{seed}" / arm
            config = base
            if arm != "grows":
                first = measured["grows", prompt, seed]
                count = options.gaussians if arm == "few" else int(first["Gaussians"])
                config = of_former_start(folder) or fixed(base, count, first["seconds"])
            model, seconds = trained(folder, config)
            if (arm, prompt, seed) not in measured:
                row = measure(reward, model, seconds)
                line: dict[str, Any] = {"arm": arm, "prompt": prompt, "seed": seed, **row}
                with file.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")
                measured[arm, prompt, seed] = row
            if seed == 0:
                pictures[f"{prompt}, {arm}"] = list(views_of(model)[::2])
    text = table(measured, options.grow)
    print(text)
    (out / "table.md").write_text(text, encoding="utf-8")
    return [out / "table.md", save_pictures(out / "sheet.png", pictures)]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=path, required=True, metavar="DIR")
    parser.add_argument(
        "--prompts",
        type=path,
        default=HERE / "prompts.txt",
        help="one a line; default: %(default)s",
    )
    parser.add_argument("--limit", type=positive, default=8, help="of prompts; default: 8")
    parser.add_argument("--seeds", type=positive, default=2, help="number of seeds; default: 2")
    parser.add_argument("--steps", type=positive, default=300, help="of growth; default: 300")
    parser.add_argument("--gaussians", type=positive, default=2000, help="at first; default: 2000")
    parser.add_argument("--grow", choices=DENSIFICATIONS, default="blocks", help="default: blocks")
    parser.set_defaults(device="cpu")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    return run(compare, parse(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
