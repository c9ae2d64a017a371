"""A mode of torch in which a model computes in float64 throughout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["Float64Throughout"]


class Float64Throughout(TorchFunctionMode):
    """Mode in which every operation that requests float32 is given float64.

    transformers computes norms, softmax and rotations in float32 for any dtype of a model, and the
    rounding errors would exceed the difference between neighboring images.

    Args:
        active: False makes the mode without effect.
    """

    def __init__(self, active: bool = True) -> None:
        super().__init__()
        self.active = active

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if self.active:
            if func is torch.Tensor.float:
                func = torch.Tensor.double
            args = tuple(_wide(a) for a in args)
            kwargs = {key: _wide(value) for key, value in kwargs.items()}
        return func(*args, **kwargs)


def _wide(value: object) -> object:
    return torch.float64 if value is torch.float32 else value
