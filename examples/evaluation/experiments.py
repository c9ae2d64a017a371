"""The experiments: which prompts are made, under which flags of ``examples/text_to_3d.py``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlmreward_3d.guidance.rules import RULES

HERE = Path(__file__).parent
STEER = (
    *("--vlm", "builtin/strict", "--vlm-objective", "log-probability", "--vlm-weight", "300"),
    *("--vlm-max-grad-ratio", "2", "--vlm-transformations", "2"),
)
"""A reward that changes what the denoiser makes, until the answer is Yes."""
ROBUST = ("--vlm", "builtin/robust", "--vlm-grad-ratio", "2", "--vlm-transformations", "2")
"""A reward that says Yes to things that are half right, at a ratio that keeps it from resting."""
STRONG = ("--vlm-objective", "log-odds", "--vlm-max-grad-ratio", "1")
"""A reward as strong as score distillation, which does not rest."""
CONTENT = ("--question", "yes-no")
"""A question about the content alone."""


@dataclass(frozen=True)
class Experiment:
    """Prompts, and the arms that are compared on them.

    Attributes:
        arms: name and flags of each.
        reference: the arm that the others are compared with.
        prompts: file with one prompt a line.
        lines: first and last of these lines, as in Python; None for all.
        seeds: number of seeds, from 0 on.
        steps: length of a run; None for the preset's.
        fronts: True if the fronts of the assets are counted.
        costs: True if the table has the time and memory of an asset.
    """

    arms: dict[str, tuple[str, ...]]
    reference: str
    prompts: Path = HERE / "prompts.txt"
    lines: tuple[int, int] | None = None
    seeds: int = 2
    steps: int | None = None
    fronts: bool = False
    costs: bool = False

    def texts(self) -> list[str]:
        """The prompts."""
        return self.prompts.read_text(encoding="utf-8").splitlines()[slice(*self.lines or (None,))]


COARSE = ("--denoiser", "builtin/coarse")
SINGLE_VIEW = ("--denoiser", "builtin/single-view")

EXPERIMENTS = {
    "default": Experiment(
        arms={"score distillation alone": ("--no-vlm",), "with the reward": ()},
        reference="score distillation alone",
        prompts=HERE / "pairs.txt",
        lines=(0, 12),
        seeds=1,
        steps=200,
    ),
    "twenty": Experiment(
        arms={"score distillation alone": ("--no-vlm",), "with the reward": STRONG},
        reference="score distillation alone",
        seeds=1,
    ),
    "ablations": Experiment(
        arms={
            "score distillation alone": ("--no-vlm",),
            "VLM3D (selected question)": STRONG,
            "without geometry question": (*STRONG, "--no-geometry-question"),
            "separate questions": (*STRONG, "--separate-questions"),
            "single view": (*STRONG, "--single-view"),
            "question A": (*STRONG, "--question", "A"),
            "question B": (*STRONG, "--question", "B"),
        },
        reference="VLM3D (selected question)",
        lines=(5, 15),  # seven single objects and three pairs, the harder ones
        steps=100,
    ),
    "presets": Experiment(
        arms={
            name: ("--preset", name, "--builtin-models")
            for name in (
                *("mvdream", "paper", "release", "rewardsds", "dreamdpo", "blocks"),
                *("dreamfusion", "prolificdreamer", "dreamgaussian"),
            )
        },
        reference="mvdream",
        seeds=1,
        steps=100,
        costs=True,
    ),
    "rules": Experiment(
        arms={
            name: ("--no-vlm", "--rule", name)
            for name, rule in RULES.items()
            if not rule.asks_regions  # whose boxes belong to one prompt
        },
        reference="x0",
        lines=(12, 14),  # two pairs
        seeds=1,
        steps=200,
    ),
    "coarse": Experiment(
        arms={
            "score distillation alone": (*COARSE, "--no-vlm"),
            "with builtin/robust": (*COARSE, *ROBUST, *CONTENT),
            "with the reward": (*COARSE, *STEER, *CONTENT),
        },
        reference="score distillation alone",
        prompts=HERE / "pairs.txt",
        steps=200,
    ),
    "single-view": Experiment(
        arms={
            "score distillation alone": (*SINGLE_VIEW, "--no-vlm"),
            "with the reward": (*SINGLE_VIEW, *STEER),
            "without geometry question": (*SINGLE_VIEW, *STEER, *CONTENT),
        },
        reference="score distillation alone",
        prompts=HERE / "fronts.txt",
        steps=200,
        fronts=True,
    ),
}
