"""Vision-language models as differentiable rewards, with gradients that reach the pixels."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmreward import doctor, explain, processors, robust
    from vlmreward.answers import Variants
    from vlmreward.checklist import Checklist
    from vlmreward.micro_batched import MicroBatched
    from vlmreward.pixels import gray_to_rgb, rgba_to_rgb
    from vlmreward.reward import YesNoReward
    from vlmreward.scale import ScaleReward
    from vlmreward.templates import PromptTemplate

__all__ = [
    "Checklist",
    "MicroBatched",
    "PromptTemplate",
    "ScaleReward",
    "Variants",
    "YesNoReward",
    "doctor",
    "explain",
    "gray_to_rgb",
    "processors",
    "rgba_to_rgb",
    "robust",
]

_HOMES = {
    "Checklist": "checklist",
    "MicroBatched": "micro_batched",
    "PromptTemplate": "templates",
    "ScaleReward": "scale",
    "Variants": "answers",
    "YesNoReward": "reward",
    "gray_to_rgb": "pixels",
    "rgba_to_rgb": "pixels",
}
"""Where a name lives that is not a module itself."""


def __getattr__(name: str) -> Any:
    """Import on first use: the command line answers at once, without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
