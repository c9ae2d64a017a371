"""The last feed-forward network of a language model for those tokens alone that are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["LastTokens"]


class LastTokens:
    """Hooks on the last layer's ``mlp``, by which it computes some tokens, and zeros elsewhere.

    The answer is read at the last token of a question. Nothing behind the last layer's attention
    mixes tokens, so that of all others the feed-forward network, most of a layer, is for nothing.

    Args:
        model: a transformers model. Where its last layer has no dense ``mlp``, nothing is changed.
    """

    def __init__(self, model: Any) -> None:
        self.index: tuple[torch.Tensor, torch.Tensor] | None = None
        self.shape: torch.Size | None = None
        layers = getattr(model.get_decoder(), "layers", None)
        mlp = getattr(layers[-1], "mlp", None) if layers else None
        if isinstance(mlp, nn.Module) and hasattr(mlp, "down_proj"):
            mlp.register_forward_pre_hook(self._gather)
            mlp.register_forward_hook(self._scatter)

    @contextmanager
    def at(self, rows: torch.Tensor, last: torch.Tensor) -> Iterator[None]:
        """Within it, only tokens ``last`` of ``rows`` are computed; both ``(B,)`` or ``(B, K)``."""
        self.index = (rows, last)
        try:
            yield
        finally:
            self.index = None

    def _gather(self, mlp: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        if self.index is None:
            return None
        self.shape = args[0].shape
        rows, last = self.index
        self.index = rows.to(args[0].device), last.to(args[0].device)
        return (args[0][self.index],)

    def _scatter(self, mlp: nn.Module, args: Any, out: torch.Tensor) -> torch.Tensor | None:
        if self.index is None or self.shape is None:
            return None
        return out.new_zeros(self.shape).index_put(self.index, out)
