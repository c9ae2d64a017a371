"""Models computed in float64 throughout."""

from __future__ import annotations

import torch

__all__ = ["float64_throughout"]


def float64_throughout(model, monkeypatch):
    """Undo the steps that transformers takes in float32 whatever the dtype of the model.

    Their rounding would drown the differences between neighboring images.
    """
    as_float = torch.Tensor.float
    monkeypatch.setattr(
        torch.Tensor, "float", lambda t: t if t.dtype == torch.float64 else as_float(t)
    )
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(
        torch.nn.functional, "softmax", lambda t, dim=-1, dtype=None: softmax(t, dim)
    )
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):  # Qwen's and Llama's norms; others use float()

            def forward(x, module=module):
                variance = x.square().mean(-1, keepdim=True)
                return module.weight * x * (variance + module.variance_epsilon).rsqrt()

            monkeypatch.setattr(module, "forward", forward)
    return model
