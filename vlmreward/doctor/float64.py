"""Double precision all through a model."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["Float64Throughout"]


class Float64Throughout(TorchFunctionMode):
    """Within it, what asks for float32 gets float64.

    transformers computes norms, softmax and rotations in float32 whatever the dtype of a model, and
    the rounding would drown the difference between neighbouring images.

    Args:
        active: False for nothing of the kind.
    """

    def __init__(self, active: bool = True) -> None:
        super().__init__()
        self.active = active

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.active:
            if func is torch.Tensor.float:
                func = torch.Tensor.double
            args = tuple(_wide(a) for a in args)
            kwargs = {key: _wide(value) for key, value in kwargs.items()}
        return func(*args, **kwargs)


def _wide(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value
