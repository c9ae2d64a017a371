"""Settings of the reward of a vision-language model, as a guidance."""

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
    """Settings of the reward of a vision-language model, the guidance "vlm".

    Attributes:
        model: Folder, hub id or built-in name of the VLM.
        question: Question to the VLM: one of `vlmreward`'s named questions, or a text with the
            placeholder {prompt}. The reward of several questions is the mean of their rewards.
        pixel_mode: Degree to which the image processor follows the 8-bit path, one of
            `PIXEL_MODES`.
        resolution: Height and width in pixels of the VLM's input images, resized bilinearly from
            the rendered size; None keeps the rendered size.
        n_transformations: Number of random transformations of the views over which the reward is
            averaged; 0 for none.
        views_per_question: Number of views in one question; the reward is the mean over the
            questions about all views. None asks one question about all views.
        objective: Quantity that is maximized, one of `OBJECTIVES`: the log-odds of "Yes" (Eq. 5),
            or its "log-probability", whose gradient vanishes as P("Yes") approaches 1.
        weighting: Steps of evaluation, and weight; `weight` is lambda_VLM of Eq. 6.

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
