"""Score Jacobian chaining (Wang et al., 2023)."""

from __future__ import annotations

from torch import Tensor

from vlmreward_3d.guidance.rules.base import Prediction
from vlmreward_3d.guidance.rules.sds import sds_gradient

__all__ = ["sjc"]


def sjc(prediction: Prediction) -> Tensor:
    """(eps_hat - eps) / N (N, C, H, W): SDS with w = 1.

    The source perturbs z by sigma eps with sigma = sqrt(1 / abar - 1), and asks the denoiser
    D for the mean of what could be under it: the gradient is -(D - z) / sigma. The network sees the
    same z_t, D is its predicted original, and -(D - z) / sigma = eps_hat - eps. This is the
    estimator with the noise subtracted ("variance reduction" in the source's code).
    """
    weight = prediction.alpha_bar.new_ones(())
    return sds_gradient(prediction.guided, prediction.noise, weight)
