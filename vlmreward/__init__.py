"""Vision-language models as differentiable rewards, with gradients that reach the pixels."""

from vlmreward import processors
from vlmreward.pixels import gray_to_rgb, rgba_to_rgb
from vlmreward.reward import YesNoReward
from vlmreward.templates import PromptTemplate

__all__ = ["PromptTemplate", "YesNoReward", "gray_to_rgb", "processors", "rgba_to_rgb"]
