"""Tensors that outlive the call in which they are made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

__all__ = ["lasting"]


@contextmanager
def lasting() -> Iterator[None]:
    """Context for tensors that are cached across calls, outside of the caller's torch modes.

    A tensor made under ``torch.inference_mode`` can never take part in autograd, and one made under
    a transform of ``torch.func`` becomes invalid when the transform ends.
    """
    with temporarily_clear_interpreter_stack(), torch.inference_mode(False), torch.no_grad():
        yield
