"""Conversion of a denoiser's output to noise."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["check_prediction_type", "to_epsilon"]

_KNOWN = ("epsilon", "v_prediction")


def check_prediction_type(scheduler: Any) -> str:
    """The scheduler's ``prediction_type``, if score distillation can use it.

    Raises:
        ValueError: the ``prediction_type`` is neither epsilon nor v_prediction.
    """
    kind = scheduler.config.prediction_type
    if kind not in _KNOWN:
        raise ValueError(f"the denoiser predicts {kind!r}; expected one of {_KNOWN}")
    return kind


def to_epsilon(output: Tensor, noisy: Tensor, alpha_bar: Tensor, kind: str) -> Tensor:
    """The predicted noise.

    Args:
        output: (N, C, H, W) of the network.
        noisy: (N, C, H, W) that it was given.
        alpha_bar: (N,) abar of the timesteps.
        kind: "epsilon": the output is the noise; "v_prediction": it is
            v = sqrt(abar) eps - sqrt(1 - abar) z (Salimans and Ho, 2022).

    Returns:
        eps, (N, C, H, W); differentiable.
    """
    if kind == "epsilon":
        return output
    alpha_bar = alpha_bar.to(output)[:, None, None, None]
    return alpha_bar.sqrt() * output + (1 - alpha_bar).sqrt() * noisy
