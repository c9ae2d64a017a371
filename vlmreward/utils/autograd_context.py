"""The type of the contexts that ``torch.autograd.Function`` passes to its methods."""

from typing import Any

__all__ = ["Context"]

Context = Any
"""torch's own type declares neither ``saved_tensors`` nor the attributes that a function sets."""
