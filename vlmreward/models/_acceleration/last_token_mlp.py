"""The last MLP of a language model, computed only for the tokens whose logits are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["LastTokenMLP"]


@dataclass
class _Call:
    """One forward pass.

    Attributes:
        owner: the hooks that it is meant for, of all models that a thread may call.
        index: rows and positions of the tokens that are computed.
        shape: shape of the network's input, once that is known.
    """

    owner: LastTokenMLP
    index: tuple[torch.Tensor, torch.Tensor]
    shape: torch.Size | None = None


class _Current(threading.local):
    """The forward pass that a thread is in. A ContextVar would do, but compilers cannot read it."""

    call: _Call | None = None


_CURRENT = _Current()


class LastTokenMLP:
    """Hooks on the last layer's ``mlp`` that compute it for selected tokens, with zeros elsewhere.

    The answer is read at the last token of a question. Nothing after the last layer's attention
    mixes tokens, so that the MLP, most of a layer's work, is not needed for the other tokens.

    The selected tokens are stored per call and per thread, so that several threads can use one
    model at the same time.

    Args:
        model: a transformers model. Where its last layer has no dense ``mlp``, nothing is changed.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        layers = getattr(model.get_decoder(), "layers", None)
        mlp = getattr(layers[-1], "mlp", None) if layers else None
        if isinstance(mlp, nn.Module) and hasattr(mlp, "down_proj"):
            mlp.register_forward_pre_hook(self._gather)
            mlp.register_forward_hook(self._scatter)

    @contextmanager
    def restrict_to(self, rows: torch.Tensor, last: torch.Tensor) -> Iterator[None]:
        """Context that restricts the MLP to tokens ``last`` of ``rows``, ``(B,)`` or ``(B, K)``.

        The restriction holds for the thread that enters the context.
        """
        outer, _CURRENT.call = _CURRENT.call, _Call(self, (rows, last))
        try:
            yield
        finally:
            _CURRENT.call = outer

    def _gather(self, mlp: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        call = _CURRENT.call
        if call is None or call.owner is not self:
            return None
        call.shape = args[0].shape
        rows, last = call.index
        call.index = rows.to(args[0].device), last.to(args[0].device)
        return (args[0][call.index],)

    def _scatter(
        self, mlp: nn.Module, args: tuple[torch.Tensor], out: torch.Tensor
    ) -> torch.Tensor | None:
        call = _CURRENT.call
        if call is None or call.owner is not self or call.shape is None:
            return None
        return out.new_zeros(call.shape).index_put(call.index, out)
