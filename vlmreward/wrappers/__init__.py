"""Rewards that are harder to fool: wrappers around any reward, to be nested in each other."""

from vlmreward.wrappers.augmentations import standard_augmentation
from vlmreward.wrappers.augmented import ExpectationOverTransformations
from vlmreward.wrappers.ensemble import Ensemble
from vlmreward.wrappers.gradient_blur import GradientBlur, blur_gradient
from vlmreward.wrappers.held_out import HeldOutMonitor, RewardHackingWarning
from vlmreward.wrappers.question_ensemble import QuestionEnsemble

__all__ = [
    "Ensemble",
    "ExpectationOverTransformations",
    "GradientBlur",
    "HeldOutMonitor",
    "QuestionEnsemble",
    "RewardHackingWarning",
    "blur_gradient",
    "standard_augmentation",
]
