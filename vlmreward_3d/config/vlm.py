"""The reward of a vision-language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vlmreward_3d.config._checks import (
    COUNT_OR_NONE,
    Rule,
    are,
    check,
    is_text,
    is_whole,
    one_of,
    or_none,
    whole,
)
from vlmreward_3d.config.guidance import GuidanceConfig

__all__ = ["OBJECTIVES", "PIXEL_MODES", "VLMConfig"]

OBJECTIVES = ("log-odds", "log-probability")
"""Objectives of a VLM's guidance; see `vlmreward_3d.guidance.vlm.VLMGuidance`."""

PIXEL_MODES = ("float", "clamp", "uint8")


@dataclass(frozen=True, kw_only=True)
class VLMConfig(GuidanceConfig):
    """The reward of a vision-language model: "vlm".

    Attributes:
        model: Folder, hub id or built-in name of the VLM.
        question: The question that the VLM is asked: one of `vlmreward`'s named questions, or a
            text with the placeholder {prompt}. Several are asked separately, and the mean of the
            rewards is taken.
        pixel_mode: How far the image processor follows the 8-bit path: one of `PIXEL_MODES`.
        resolution: Height and width in pixels of the images that the VLM is shown, resized
            bilinearly from any rendered size; None shows them as they are rendered.
        n_transformations: Number of random transformations of the views over which the reward is
            averaged; 0 shows the views as they are.
        views_per_question: Number of views that a question is about. Further views are asked about
            by themselves, and the reward is the mean; None asks once about all views.
        objective: What is increased, one of `OBJECTIVES`: the log-odds of "Yes" (Eq. 5), or its
            "log-probability", which falls silent where the answer is "Yes".
        weighting: When it is asked and how much it weighs; `weight` is lambda_VLM of Eq. 6.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    kind: ClassVar[str] = "vlm"

    model: str
    question: str | tuple[str, ...]
    pixel_mode: str = "clamp"
    resolution: int | None = None
    n_transformations: int = 0
    views_per_question: int | None = None
    objective: str = "log-odds"

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self,
            model=Rule(is_text, "the name of a VLM"),
            question=Rule(
                lambda x: is_text(x) or (isinstance(x, tuple) and are(x, is_text)),
                "a question or several in a tuple",
            ),
            pixel_mode=one_of(PIXEL_MODES),
            n_transformations=whole(0),
            views_per_question=COUNT_OR_NONE,
            objective=one_of(OBJECTIVES),
            resolution=or_none(
                Rule(
                    lambda x: is_whole(x, 8) and x <= 4096,
                    "a whole number of pixels in [8, 4096]",
                )
            ),
        )
