"""Settings of Reward3D, a learnt reward of four views, as a guidance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vlmreward_3d.config._checks import FINITE, TEXT, check
from vlmreward_3d.config.guidance import GuidanceConfig

__all__ = ["Reward3DConfig"]


@dataclass(frozen=True, kw_only=True)
class Reward3DConfig(GuidanceConfig):
    """Settings of Reward3D of DreamReward (Ye et al., 2024), the guidance "reward3d".

    Attributes:
        checkpoint: Its file, on disk or on the hub; see `Reward3D.from_checkpoint`.
        tokenizer: Folder or hub id of BERT's tokenizer.
        target: Reward from which on it says nothing more.
        weighting: When it is evaluated and how much it weighs.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    kind: ClassVar[str] = "reward3d"

    checkpoint: str = "yejunliang23/Reward3D/Reward3D_Scorer.pt"
    tokenizer: str = "google-bert/bert-base-uncased"
    target: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, checkpoint=TEXT, tokenizer=TEXT, target=FINITE)
