"""A query without its pixels, as the model reads it, and batches of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

__all__ = ["EncodedPrompt", "Size", "TokenBatch"]

Size = tuple[int, int]
"""Height and width of an image in pixels."""


@dataclass(frozen=True)
class EncodedPrompt:
    """One query as the model reads it, on the CPU.

    Attributes:
        tokens: integers ``(L,)``: ids and token types, under the model's names.
        positions: ``(P, L)`` where the model does not count from 0 in one dimension.
        grids: ``(images, 3)`` patches of every image, of the families that have them.
        seen: integers or bool ``(L, images, ...)``, under the model's names: which image or part of
            it a token looks at, of the families with cross-attention.
        beside: names of all else that the model takes, to be made of the pixels.
    """

    tokens: dict[str, torch.Tensor]
    positions: torch.Tensor | None = None
    grids: torch.Tensor | None = None
    seen: dict[str, torch.Tensor] = field(default_factory=dict)
    beside: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.tokens["input_ids"])


@dataclass(frozen=True)
class TokenBatch:
    """A batch of queries without their pixels, padded on the right.

    Attributes:
        inputs: keyword arguments of the model, on its device.
        last: ``(B,)`` index of each query's last token, whose logits are the answer; ``(B, K)``
            where K questions share a sequence.
        counts: B numbers of images.
        grids: ``(N, 3)`` patches of every image, on the CPU, of the families that have them.
        beside: as in the rows.
    """

    inputs: dict[str, torch.Tensor]
    last: torch.Tensor
    counts: tuple[int, ...]
    grids: torch.Tensor | None = None
    beside: frozenset[str] = frozenset()
