"""Make the assets of an experiment, have them judged, and compare its arms:

    python examples/evaluation/evaluate_assets.py coarse --out RUNS

The experiments are in experiments.py. Runs go on where they were stopped when the command is
repeated. What is measured of an asset becomes a line of measurements.jsonl, and an asset that has a
line is not made again. Writes table.md: the means of all arms, the differences to one of them,
paired by prompt and seed, and what the judges read; and sheet.png with the first two views of every
asset of seed 0: four prompts side by side, and below each other the arms.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from assets import Asset, append, contact_sheet, finished, load, make
from experiments import EXPERIMENTS, Experiment
from intervals import formatted
from judge import WEIGHTS
from measures import COSTS, FRONT_MEASURES, MEASURES, SHARES, Measuring
from tqdm import tqdm

Measured = Mapping[Asset, Mapping[str, float | str]]


def assets_of(experiment: Experiment) -> list[Asset]:
    """All assets, seed by seed, the arms of a prompt one after the other."""
    return [
        Asset(arm, prompt, seed)
        for seed in range(experiment.seeds)
        for prompt in experiment.texts()
        for arm in experiment.arms
    ]


def _lines(
    first: str, names: Iterable[str], rows: Iterable[tuple[str, Sequence[str]]]
) -> list[str]:
    columns = [first, *names]
    head = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return [*head, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows), ""]


def table(experiment: Experiment, measured: Measured) -> str:
    """Means, and differences to the reference, over the assets that all arms have."""
    arms, seeds = list(experiment.arms), range(experiment.seeds)
    measures = {
        **(FRONT_MEASURES if experiment.fronts else {}),
        **MEASURES,
        **(COSTS if experiment.costs else {}),
    }
    prompts = [
        p
        for p in experiment.texts()
        if all(Asset(arm, p, seed) in measured for arm in arms for seed in seeds)
    ]
    if not prompts:
        return "No prompt has been made by all arms with all seeds.\n"
    values = {
        (arm, name): np.array(
            [[measured[Asset(arm, p, seed)].get(name, np.nan) for seed in seeds] for p in prompts],
            float,
        )
        for arm in arms
        for name in measures
    }

    def means(arm: str) -> list[str]:
        return [
            formatted(values[arm, name], shape, share=name in SHARES)
            for name, shape in measures.items()
        ]

    def differences(arm: str) -> list[str]:
        base = experiment.reference
        return [
            formatted(values[arm, name] - values[base, name], "+" + shape)
            for name, shape in measures.items()
        ]

    others = [arm for arm in arms if arm != experiment.reference]
    text = [
        f"Prompts: {len(prompts)} of {len(experiment.texts())}. Seeds: {experiment.seeds}.",
        "",
        *_lines("arm", measures, ((arm, means(arm)) for arm in arms)),
        *_lines(
            f"difference to {experiment.reference}",
            measures,
            ((arm, differences(arm)) for arm in others),
        ),
        *readings(experiment, measured),
    ]
    return "\n".join(text)


def readings(experiment: Experiment, measured: Measured) -> list[str]:
    """Table of the judges' readings of each asset that some arm has made."""

    def cell(arm: str, prompt: str, seed: int) -> str:
        values = measured.get(Asset(arm, prompt, seed))
        if values is None:
            return "not made"
        seen = [
            "right" if values[judge] else str(values[words])
            for judge, words in (("network", "network reads"), ("templates", "templates read"))
        ]
        return seen[0] if seen[0] == seen[1] else " / ".join(seen)

    lines = ["| prompt, seed | " + " | ".join(experiment.arms) + " |"]
    lines.append("|---" * (1 + len(experiment.arms)) + "|")
    for prompt in experiment.texts():
        for seed in range(experiment.seeds):
            cells = [cell(arm, prompt, seed) for arm in experiment.arms]
            if {*cells} == {"not made"}:
                continue
            lines.append(f"| {prompt}, {seed} | {' | '.join(cells)} |")
    return [*lines, ""]


def run(experiment: Experiment, options: argparse.Namespace) -> dict[Asset, dict]:
    """Make and measure the assets that have no measurements yet; all measurements."""
    path = options.out / "measurements.jsonl"
    measured = load(path)
    wanted = options.arms or experiment.arms
    missing = [x for x in assets_of(experiment) if x.arm in wanted and x not in measured]
    if not missing or options.only_table:
        return measured
    measuring = Measuring(options.judge, options.front_judge)

    def work(asset: Asset) -> str | None:
        return make(
            asset,
            asset.folder(options.out),
            experiment.arms[asset.arm],
            steps=options.steps or experiment.steps,
            threads=options.threads,
        )

    with ThreadPoolExecutor(options.jobs) as pool:
        pending = {pool.submit(work, asset): asset for asset in missing}
        try:
            for future in tqdm(as_completed(pending), total=len(missing), desc="assets"):
                asset = pending[future]
                folder = asset.folder(options.out)
                if error := future.result():
                    tqdm.write(f"{asset.prompt}, seed {asset.seed} ({asset.arm}): {error}")
                if finished(folder):
                    measured[asset] = measuring(folder, asset.prompt)
                    append(path, asset, measured[asset])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return measured


def sheet_rows(experiment: Experiment, out: Path) -> list[list[Path]]:
    """Folders of the assets of seed 0 in rows: four prompts, a row for each arm, the next four."""
    prompts = [
        prompt
        for prompt in experiment.texts()
        if all(finished(Asset(arm, prompt, 0).folder(out)) for arm in experiment.arms)
    ] or experiment.texts()
    return [
        [Asset(arm, prompt, 0).folder(out) for prompt in prompts[i : i + 4]]
        for i in range(0, len(prompts), 4)
        for arm in experiment.arms
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument(
        "--judge", type=Path, default=WEIGHTS, help="weights made by judge.py; default: %(default)s"
    )
    parser.add_argument("--front-judge", type=Path, help="weights made by front_judge.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--steps", type=int, help="length of a run; default: the experiment's")
    parser.add_argument("--seeds", type=int, help="from 0 on; default: the experiment's")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="make these arms' assets alone")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a run")
    parser.add_argument("--only-table", action="store_true", help="of what is there")
    options = parser.parse_args()
    experiment = EXPERIMENTS[options.experiment]
    if unknown := {*(options.arms or ())} - {*experiment.arms}:
        parser.error(f"--arms: no {unknown.pop()!r}; expected some of {[*experiment.arms]}")
    if experiment.fronts and not options.front_judge:
        parser.error("--front-judge: this experiment counts fronts; make one with front_judge.py")
    if options.seeds:
        experiment = dataclasses.replace(experiment, seeds=options.seeds)
    options.out.mkdir(parents=True, exist_ok=True)
    text = table(experiment, run(experiment, options))
    (options.out / "table.md").write_text(text, encoding="utf-8")
    contact_sheet(sheet_rows(experiment, options.out), 2, options.out / "sheet.png")
    print(text)


if __name__ == "__main__":
    main()
