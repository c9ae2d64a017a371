"""Tensors that outlive the call in which they are made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

__all__ = ["lasting"]


@contextmanager
def lasting() -> Iterator[None]:
    """Within it tensors are made that can be kept, whatever the call that makes them is under.

    A tensor of ``torch.inference_mode`` can never take part in autograd, and one that is made under
    a transform of ``torch.func`` ends with that.
    """
    with temporarily_clear_interpreter_stack(), torch.inference_mode(False), torch.no_grad():
        yield
