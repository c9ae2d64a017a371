"""Vision-language models as differentiable rewards, with gradients that reach the pixels."""

from vlmreward import processors
from vlmreward.reward import YesNoReward
from vlmreward.templates import PromptTemplate

__all__ = ["PromptTemplate", "YesNoReward", "processors"]
