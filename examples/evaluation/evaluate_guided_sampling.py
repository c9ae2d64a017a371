"""Share of a denoiser's pictures that show their prompt, with and without a reward:

    python examples/evaluation/evaluate_guided_sampling.py --out SAMPLES

The denoiser is `builtin/coarse`, which does not know which color belongs to which object. Four
views of each prompt in pairs.txt are sampled with several seeds: alone, and guided by steps up the
reward's gradient at each predicted original. From both, another VLM also chooses the best seed.
The network of judge.py, which took no part, reads the pictures without the text. Samples go on
where the command was stopped. Writes table.md, measurements.jsonl and, of seed 0, pictures with a
prompt in each row. Length and number of transformations were chosen on the first six prompts, which
are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from assets import Asset, append, load
from intervals import formatted
from judge import WEIGHTS, load_judge, target_of_prompt
from measures import describe
from torch import Tensor
from torchvision.utils import save_image
from tqdm import tqdm

from vlmreward import YesNoReward
from vlmreward.wrappers import ExpectationOverTransformations
from vlmreward_3d.guidance.loading import load_denoiser
from vlmreward_3d.guidance.sampling import RewardStep, sample
from vlmreward_3d.presets import blocks
from vlmreward_3d.rendering.evaluation import evaluation_cameras

HERE = Path(__file__).parent
ARMS = ("alone", "guided")
VIEWS, SIZE, TOGETHER = 4, 64, 6
"""Views of a sample, their side for VLM and judge, and prompts that are sampled at a time."""
Measured = Mapping[Asset, Mapping[str, float | str]]


def missing(prompts: list[str], seeds: int, measured: Measured) -> Iterator[tuple]:
    """Arm, seed and prompts of each batch that is still to be sampled."""
    for seed in range(seeds):
        for start in range(0, len(prompts), TOGETHER):
            for arm in ARMS:
                part = prompts[start : start + TOGETHER]
                if any(Asset(arm, prompt, seed) not in measured for prompt in part):
                    yield arm, seed, part


def table(prompts: list[str], seeds: int, measured: Measured) -> str:
    """Shares of right samples with 95 % intervals, and what was read of seed 0."""

    def column(arm: str, key: str) -> np.ndarray:
        return np.array(
            [[measured[Asset(arm, p, s)][key] for s in range(seeds)] for p in prompts], float
        )

    lines = ["| samples | right |", "|---|---|"]
    for arm in ARMS:
        right, liked = column(arm, "right"), column(arm, "liked")
        best = right[np.arange(len(prompts)), liked.argmax(1)][:, None]
        lines.append(f"| {arm} | {formatted(right, '.0%', share=True)} |")
        if seeds > 1:
            shown = formatted(best, ".0%", share=True)
            lines.append(f"| {arm}, the best of {seeds} | {shown} |")
    lines += ["", "| prompt, seed 0 | " + " | ".join(ARMS) + " |", "|---" * (1 + len(ARMS)) + "|"]
    for prompt in prompts:
        cells = [measured[Asset(arm, prompt, 0)] for arm in ARMS]
        said = ["right" if cell["right"] else str(cell["read"]) for cell in cells]
        lines.append(f"| {prompt} | {' | '.join(said)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--denoiser", default="builtin/coarse", help="default: %(default)s")
    parser.add_argument("--vlm", default="builtin/aligned", help="that guides; %(default)s")
    parser.add_argument("--ranking-vlm", default="builtin/blocks", help="default: %(default)s")
    parser.add_argument("--length", type=float, default=8.0, help="of a step; %(default)s")
    parser.add_argument("--transformations", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--first", type=int, default=6, help="first prompt; default: %(default)s")
    parser.add_argument("--prompts", type=int, default=34, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--judge", type=Path, default=WEIGHTS, help="default: %(default)s")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lines = (HERE / "pairs.txt").read_text(encoding="utf-8").splitlines()
    prompts = lines[options.first : options.first + options.prompts]
    path = options.out / "measurements.jsonl"
    measured = load(path)

    denoiser, judge = load_denoiser(options.denoiser), load_judge(options.judge)
    vlm = YesNoReward(options.vlm, question="yes-no")
    ranking = YesNoReward(options.ranking_vlm, question="yes-no")
    cameras = evaluation_cameras(blocks("any").camera, VIEWS).condition()

    def guide(part: list[str], seed: int) -> RewardStep:
        reward = ExpectationOverTransformations(
            vlm,
            num_samples=options.transformations,
            generator=torch.Generator().manual_seed(seed),
        )
        return RewardStep(reward, part, length=options.length, resolution=SIZE)

    def draw(arm: str, seed: int, part: list[str]) -> Tensor:
        change = guide(part, seed) if arm == "guided" else None
        return sample(
            denoiser,
            part,
            cameras.repeat(len(part), 1),
            guidance_scale=4.0,
            steps=25,
            seed=seed,
            change=change,
        )

    for arm, seed, part in tqdm([*missing(prompts, options.seeds, measured)], unit="batch"):
        images = draw(arm, seed, part)
        seen = F.interpolate(images, (SIZE, SIZE), mode="bilinear").clamp(0, 1)
        groups = seen.unflatten(0, (len(part), VIEWS))
        with torch.no_grad():
            liked = ranking(groups, prompt=part).tolist()
        if seed == 0:
            number = prompts.index(part[0]) // TOGETHER
            save_image(images, options.out / f"{arm}-{number}.png", nrow=VIEWS)
        for prompt, reading, likes in zip(part, judge.read(groups), liked):
            asset = Asset(arm, prompt, seed)
            right = int(reading == target_of_prompt(prompt))
            measured[asset] = {"liked": likes, "right": right, "read": describe(reading)}
            append(path, asset, measured[asset])
    text = table(prompts, options.seeds, measured)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
