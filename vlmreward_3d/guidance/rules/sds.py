"""Score distillation sampling (DreamFusion; Poole et al., 2022)."""

from __future__ import annotations

from torch import Tensor

from vlmreward_3d.guidance.rules.base import Prediction
from vlmreward_3d.guidance.score_distillation import per_image

__all__ = ["sds", "sds_gradient"]


def sds(prediction: Prediction) -> Tensor:
    """`sds_gradient` (N, C, H, W) of the guided noise, with w(t) = 1 - abar."""
    weight = 1 - prediction.alpha_bar
    return sds_gradient(prediction.guided, prediction.noise, weight)


def sds_gradient(predicted_noise: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
    """w(t) (eps_hat - eps) / N: the SDS gradient at the latents (DreamFusion, Eq. 3).

    It is the gradient of 0.5 ||z - sg(z - w(t) (eps_hat - eps))||^2 / N to z. Like the gradient of
    the reconstruction loss it is divided by the number of images, so that the weights of other
    losses have the same effect for both and for any number of views.

    VLM3D writes it with the score, w(t) (s_phi + eps / sigma(t)); with s_phi = -eps_hat / sigma(t)
    and the sign that descends, it is the same up to the 1 / sigma(t) that w(t) absorbs.

    Args:
        predicted_noise: (N, C, H, W) eps_hat, guided.
        noise: (N, C, H, W) eps that was added.
        weight: (N,) or scalar w(t).

    Returns:
        (N, C, H, W); the derivative of the denoiser is left out, as in the source.
    """
    return per_image(weight, noise) * (predicted_noise - noise) / len(noise)
