"""The paper's ablations with the built-in models, judged from outside:

    python tests/evaluation/evaluate_ablations.py --judge JUDGE/judge.safetensors --out runs

Makes an asset of each prompt, seed and arm (10 x 2 x 7 by default), reads all with a network
that took no part, and writes table.md: the share that is right, and the share of that network's
votes that is for other things, each with a 95 % bootstrap interval over the prompts and the
difference to VLM3D, paired. The votes tell arms apart where all of them are right. sheet.png has
the first view of every asset of seed 0, one row for an arm. Finished runs are kept, so that the
command can be stopped and repeated; `--only-table` makes no more of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from evaluate_assets import EXAMPLE, HERE, contact_sheet, views_of
from judge import Judge, load_judge, target_of_prompt
from tqdm import tqdm

VLM3D = "VLM3D (selected prompt)"
ARMS: dict[str, list[str]] = {
    "SDS alone": ["--no-vlm"],
    VLM3D: [],
    "without geometry query": ["--no-geometry-query"],
    "separate queries": ["--separate-queries"],
    "single view": ["--single-view"],
    "prompt A": ["--prompt-template", "A"],
    "prompt B": ["--prompt-template", "B"],
}
PROMPTS = slice(5, 15)
"""Of prompts.txt: seven single objects and three pairs, the harder ones."""

Marks = Mapping[str, Mapping[tuple[str, int], tuple[float, float]]]
"""By arm, and there by prompt and seed: whether the asset is right, and the share of votes lost."""


def folder_of(out: Path, arm: str, prompt: str, seed: int) -> Path:
    def name(text: str) -> str:
        return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")

    return out / name(arm) / f"{name(prompt)}-{seed}"


def finished(folder: Path) -> bool:
    state = folder / "state.json"
    return state.exists() and bool(json.loads(state.read_text())["finished"])


def make(folder: Path, arm: str, prompt: str, seed: int, steps: int) -> str | None:
    """Run the example, or go on with it; the error where it failed."""
    if finished(folder):
        return None
    command = [sys.executable, str(EXAMPLE), prompt, "--out", str(folder), *ARMS[arm]]
    command += ["--seed", str(seed), "--threads", "1", "--steps", str(steps)]
    if (folder / "checkpoint.safetensors").exists():
        command.append("--resume")
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def bootstrap(values: np.ndarray, seed: int = 0, draws: int = 10_000) -> tuple[float, float]:
    """95 % interval of the mean of (prompts, seeds) values, over prompts."""
    chosen = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(values.mean(1)[chosen].mean(1), [2.5, 97.5])
    return float(low), float(high)


def interval(values: np.ndarray, shape: str) -> str:
    return "[" + ", ".join(f"{x:{shape}}" for x in bootstrap(values)) + "]"


def table(marks: Marks, prompts: Sequence[str], seeds: int) -> str:
    """Both marks by arm, and the differences to VLM3D, of arms that have all prompts and seeds."""
    pairs = [(prompt, seed) for prompt in prompts for seed in range(seeds)]
    missing = {arm: sum(pair not in marks[arm] for pair in pairs) for arm in marks}
    rows = {
        arm: np.array([[marks[arm][p, s] for s in range(seeds)] for p in prompts], dtype=float)
        for arm in marks
        if not missing[arm]
    }
    lines = [
        "| arm | right | difference to VLM3D | votes lost | difference to VLM3D |",
        "|---|---|---|---|---|",
    ]
    for arm in marks:
        if arm not in rows:
            lines.append(f"| {arm} | {missing[arm]} of {len(pairs)} not run | | | |")
            continue
        cells = []
        for mark, shape in enumerate((".0%", ".2%")):
            own = rows[arm][..., mark]
            reached = f"{own.mean():{shape}}" if mark else f"{int(own.sum())}/{len(pairs)}"
            cells += [f"{reached} {interval(own, shape)}", ""]
            if arm != VLM3D and VLM3D in rows:
                paired = own - rows[VLM3D][..., mark]
                cells[-1] = f"{paired.mean():+{shape}} {interval(paired, '+' + shape)}"
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def read(judge: Judge, folder: Path, prompt: str) -> tuple[float, float]:
    """Whether a run's asset is right, and the share of votes that it lost to other things."""
    views, target = views_of(folder)[None], target_of_prompt(prompt)
    return float(judge.read(views) == [target]), 1 - judge.share(views, target)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", type=Path, required=True, help="weights made by judge.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--only-table", action="store_true", help="of what is there")
    options = parser.parse_args()
    prompts = (HERE / "prompts.txt").read_text().splitlines()[PROMPTS]
    jobs = [
        (arm, prompt, seed) for seed in range(options.seeds) for prompt in prompts for arm in ARMS
    ]
    if not options.only_table:
        with ThreadPoolExecutor(options.jobs) as pool:
            runs = pool.map(
                lambda job: make(folder_of(options.out, *job), *job, options.steps), jobs
            )
            for job, error in tqdm(zip(jobs, runs), total=len(jobs), desc="assets"):
                if error:
                    tqdm.write(f"{job}: {error}")
    judge = load_judge(options.judge)
    marks: dict[str, dict[tuple[str, int], tuple[float, float]]] = {arm: {} for arm in ARMS}
    for arm, prompt, seed in jobs:
        folder = folder_of(options.out, arm, prompt, seed)
        if finished(folder):
            marks[arm][prompt, seed] = read(judge, folder, prompt)
    text = table(marks, prompts, options.seeds)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text(text)
    rows = [[folder_of(options.out, arm, prompt, 0) for prompt in prompts] for arm in ARMS]
    contact_sheet(rows, 1, options.out / "sheet.png")
    print(text)


if __name__ == "__main__":
    main()
