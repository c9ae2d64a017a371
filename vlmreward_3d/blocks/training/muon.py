"""Muon for CPUs that cannot multiply in bfloat16."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Float32Muon", "orthogonalize"]


def orthogonalize(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """The matrix with its singular values brought near 1, by a quintic Newton-Schulz iteration.

    Args:
        matrix: (A, B), any float dtype; all products are in this dtype.
        coefficients: (a, b, c): a step is X <- aX + b(XX')X + c(XX')(XX')X (Jordan et al., 2024).
        steps: number of steps.
        eps: smallest Frobenius norm that the matrix is divided by.
    """
    a, b, c = coefficients
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrix else x.T


class Float32Muon(torch.optim.Muon):
    """`torch.optim.Muon` with matrix products in the dtype of the parameters.

    PyTorch's optimizer multiplies in bfloat16, which takes 50 times as long as float32 on a CPU
    without instructions for it. Learning rates are adjusted to the size of AdamW's steps.

    Args:
        params: 2-D parameters.
        lr: learning rate.
        weight_decay: factor of the decoupled weight decay; a step multiplies the parameters by
            1 - lr * weight_decay.
    """

    def __init__(self, params: Any, lr: float, weight_decay: float) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; a closure that computes the loss again is not supported."""
        for group in self.param_groups:
            momentum = group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                buffer = state["momentum_buffer"].lerp_(p.grad, 1 - momentum)
                direction = orthogonalize(
                    p.grad.lerp(buffer, momentum),
                    group["ns_coefficients"],
                    group["ns_steps"],
                    group["eps"],
                )
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(direction, alpha=-group["lr"] * 0.2 * math.sqrt(max(p.shape)))
        return None
