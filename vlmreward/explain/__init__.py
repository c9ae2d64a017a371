"""Attribution of a reward: pixels by gradients, views by leaving them out."""

from vlmreward.explain._integrated_gradients import IntegratedGradients, integrated_gradients
from vlmreward.explain._saliency import saliency
from vlmreward.explain.explanation import METHODS, Explanation, attribute
from vlmreward.explain.view_ablation import leave_one_view_out

__all__ = [
    "METHODS",
    "Explanation",
    "IntegratedGradients",
    "attribute",
    "integrated_gradients",
    "leave_one_view_out",
    "saliency",
]
