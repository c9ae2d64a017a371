"""The paper's ablations with the built-in models, held-out evaluation:

    python examples/evaluation/evaluate_ablations.py --judge JUDGE/judge.safetensors --out runs

Makes an asset of each prompt, seed and arm (10 x 2 x 7 by default) and measures it (`METRICS`): a
network that took no part reads it, the VLM answers the arms' two questions once more, and the
mesh has a roughness. Writes table.md with the means and the differences to VLM3D, paired by prompt
and seed, each with a 95 % bootstrap interval over the prompts, and sheet.png with the first view
of every asset of seed 0, one row for an arm. Finished runs are kept, so that the command can be
stopped and repeated; `--only-table` makes no more of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import trimesh
from evaluate_assets import EXAMPLE, HERE, contact_sheet, views_of
from judge import Judge, load_judge, target_of_prompt
from tqdm import tqdm

from vlmreward import YesNoReward

VLM3D = "VLM3D (selected question)"
ARMS: dict[str, list[str]] = {
    "SDS alone": ["--no-vlm"],
    VLM3D: [],
    "without geometry question": ["--no-geometry-question"],
    "separate questions": ["--separate-questions"],
    "single view": ["--single-view"],
    "question A": ["--question", "A"],
    "question B": ["--question", "B"],
}
PROMPTS = slice(5, 15)
"""Of prompts.txt: seven single objects and three pairs, the harder ones."""

METRICS = {
    "correct": ".0%",
    "judge error": ".2%",
    "content": ".2f",
    "geometry": ".2f",
    "roughness": ".2f",
}
"""The format of each metric. Correct: the judge reads what was asked for. Judge error: the share of
its votes that other things got; it tells arms apart where all are correct. Content, geometry:
log-odds of "Yes" to `paper/content` and `paper/geometry` about four of the views. Roughness: mean
angle between neighbouring faces of the mesh, in degrees."""

Metrics = Mapping[str, Mapping[tuple[str, int], Sequence[float]]]
"""By arm, and there by prompt and seed: the values of `METRICS`."""


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


def with_interval(values: np.ndarray, shape: str) -> str:
    low, high = bootstrap(values)
    return f"{values.mean():{shape}} [{low:{shape}}, {high:{shape}}]"


def table(metrics: Metrics, prompts: Sequence[str], seeds: int) -> str:
    """All metrics by arm, and the differences to VLM3D, of arms that have all prompts and seeds."""
    pairs = [(prompt, seed) for prompt in prompts for seed in range(seeds)]
    missing = {arm: sum(pair not in metrics[arm] for pair in pairs) for arm in metrics}
    rows = {
        arm: np.array([[metrics[arm][p, s] for s in range(seeds)] for p in prompts], dtype=float)
        for arm in metrics
        if not missing[arm]
    }

    def part(first: str, arms: Iterable[str], values: Mapping[str, np.ndarray], sign: str) -> str:
        lines = [f"| {first} | {' | '.join(METRICS)} |", "|---" * (1 + len(METRICS)) + "|"]
        for arm in arms:
            cells = [f"{missing[arm]} of {len(pairs)} not run", *[""] * (len(METRICS) - 1)]
            if arm in values:
                shapes = enumerate(METRICS.values())
                cells = [with_interval(values[arm][..., i], sign + shape) for i, shape in shapes]
            lines.append(f"| {arm} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    text = part("arm", metrics, rows, "")
    if VLM3D in rows:
        others = {arm: row - rows[VLM3D] for arm, row in rows.items() if arm != VLM3D}
        text += "\n" + part("difference to VLM3D", others, others, "+")
    return text


def roughness(folder: Path) -> float:
    mesh = trimesh.load(folder / "mesh.glb", force="mesh")
    return float(np.degrees(mesh.face_adjacency_angles).mean())


def read(
    judge: Judge, content: YesNoReward, geometry: YesNoReward, folder: Path, prompt: str
) -> tuple[float, ...]:
    """The values of `METRICS` of a run's asset."""
    views, target = views_of(folder), target_of_prompt(prompt)
    query = views[None, ::2]
    with torch.no_grad():
        answers = content(query, prompt=prompt).item(), geometry(query).item()
    right = judge.read(views[None]) == [target]
    lost = 1 - judge.share(views[None], target)[0]
    return float(right), lost, *answers, roughness(folder)


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
    asked = [
        YesNoReward("builtin/blocks", question=f"paper/{part}") for part in ("content", "geometry")
    ]
    metrics: dict[str, dict[tuple[str, int], Sequence[float]]] = {arm: {} for arm in ARMS}
    for arm, prompt, seed in tqdm(jobs, desc="reading"):
        folder = folder_of(options.out, arm, prompt, seed)
        if finished(folder):
            metrics[arm][prompt, seed] = read(judge, *asked, folder, prompt)
    text = table(metrics, prompts, options.seeds)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text(text)
    rows = [[folder_of(options.out, arm, prompt, 0) for prompt in prompts] for arm in ARMS]
    contact_sheet(rows, 1, options.out / "sheet.png")
    print(text)


if __name__ == "__main__":
    main()
