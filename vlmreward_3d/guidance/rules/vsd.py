"""Variational score distillation (ProlificDreamer; Wang et al., 2023), and its relatives."""

from __future__ import annotations

from torch import Tensor

from vlmreward_3d.guidance.rules.base import Prediction
from vlmreward_3d.guidance.rules.sds import sds_gradient

__all__ = ["esd", "esd_gradient", "vsd"]

CAMERA_WEIGHT = 0.5
"""Weight of the cameras in the student's prediction, as recommended by the paper of ESD."""


def vsd(prediction: Prediction) -> Tensor:
    """w(t) (eps_hat - eps_student) / N (N, C, H, W), with w(t) = 1 - abar.

    The student is a copy of the denoiser with trainable low-rank weights that learns to denoise the
    renders. Its prediction replaces the noise in "sds", so that the renders follow the distribution
    of the denoiser instead of its mode.

    Raises:
        ValueError: The prediction has no `student`.
    """
    if prediction.student is None:
        raise ValueError("received a prediction without that of a student; expected one")
    return sds_gradient(prediction.guided, prediction.student, 1 - prediction.alpha_bar)


def esd(prediction: Prediction) -> Tensor:
    """Entropic score distillation (Wang et al., 2024): `esd_gradient` at `CAMERA_WEIGHT`."""
    return esd_gradient(prediction, CAMERA_WEIGHT)


def esd_gradient(prediction: Prediction, camera_weight: float) -> Tensor:
    """`vsd` with free + k (eps_student - free) for the student (N, C, H, W).

    `free` is the student's prediction without cameras, which models the renders of all sides
    together: the smaller k is, the more the rule makes the sides of an object differ.

    Args:
        prediction: The prediction, with `student` and `student_free`.
        camera_weight: k in [0, 1], 1 - lambda of the source; 1 is `vsd`.

    Raises:
        ValueError: The prediction has no `student` or no `student_free`.
    """
    if prediction.student is None or prediction.student_free is None:
        raise ValueError(
            "received a prediction without those of a student, with and without cameras; expected "
            "both"
        )
    free = prediction.student_free
    student = free + camera_weight * (prediction.student - free)
    return sds_gradient(prediction.guided, student, 1 - prediction.alpha_bar)
