"""Rewards that are harder to fool: wrappers around any reward, to be nested in each other."""

from vlmreward.robust.augmentations import standard_augmentation
from vlmreward.robust.augmented import Augmented
from vlmreward.robust.ensemble import Ensemble
from vlmreward.robust.low_pass import LowPass, low_pass
from vlmreward.robust.paraphrased import Paraphrased
from vlmreward.robust.watched import FoolingWarning, Watched

__all__ = [
    "Augmented",
    "Ensemble",
    "FoolingWarning",
    "LowPass",
    "Paraphrased",
    "Watched",
    "low_pass",
    "standard_augmentation",
]
