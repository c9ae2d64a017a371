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
        image_grid_thw: ``(images, 3)`` patches of every image, of the families that have them.
        image_attention_masks: integers or bool ``(L, images, ...)``, under the model's names:
            which image or part of it a token looks at, in families with cross-attention.
        pixel_inputs: names of all else that the model takes, to be made of the pixels.
    """

    tokens: dict[str, torch.Tensor]
    positions: torch.Tensor | None = None
    image_grid_thw: torch.Tensor | None = None
    image_attention_masks: dict[str, torch.Tensor] = field(default_factory=dict)
    pixel_inputs: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.tokens["input_ids"])


@dataclass(frozen=True)
class TokenBatch:
    """A batch of queries without their pixels, padded on the right.

    Attributes:
        inputs: keyword arguments of the model, on its device.
        last_token_index: ``(B,)`` index of each query's last token, whose logits are the answer;
            ``(B, K)`` where K questions share a sequence.
        images_per_item: B numbers of images.
        image_grid_thw: ``(N, 3)`` patches of every image, on the CPU, in families that have them.
        pixel_inputs: as in the rows.
    """

    inputs: dict[str, torch.Tensor]
    last_token_index: torch.Tensor
    images_per_item: tuple[int, ...]
    image_grid_thw: torch.Tensor | None = None
    pixel_inputs: frozenset[str] = frozenset()
