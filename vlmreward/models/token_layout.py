"""Token inputs of a query without its pixels, and of batches of queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

__all__ = ["EncodedPrompt", "Size", "TokenBatch", "collate_right"]

Size = tuple[int, int]
"""Height and width of an image in pixels."""


@dataclass(frozen=True)
class EncodedPrompt:
    """Token inputs of one query, on the CPU.

    Attributes:
        tokens: integers ``(L,)``: ids and token types, under the model's names.
        positions: ``(P, L)`` positions; None if the model counts from 0 in one dimension.
        image_grid_thw: ``(images, 3)`` numbers of patches of every image, in families that have
            them.
        image_attention_masks: integers or bool ``(L, images, ...)``, under the model's names: the
            image or part of it that a token attends to, in families with cross-attention.
        pixel_inputs: names of the model's other inputs, which are computed from the pixels.
    """

    tokens: dict[str, Tensor]
    positions: Tensor | None = None
    image_grid_thw: Tensor | None = None
    image_attention_masks: dict[str, Tensor] = field(default_factory=dict)
    pixel_inputs: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.tokens["input_ids"])


@dataclass(frozen=True)
class TokenBatch:
    """Token inputs of a batch of queries, padded on the right.

    Attributes:
        inputs: keyword arguments of the model, on its device.
        last_token_index: ``(B,)`` index of each query's last token, whose logits are the answer;
            ``(B, K)`` where K questions share a sequence.
        images_per_item: number of images of each of the B queries.
        image_grid_thw: ``(N, 3)`` numbers of patches of every image, on the CPU, in families that
            have them.
        pixel_inputs: names of the inputs that are computed from the pixels, of all rows.
    """

    inputs: dict[str, Tensor]
    last_token_index: Tensor
    images_per_item: tuple[int, ...]
    image_grid_thw: Tensor | None = None
    pixel_inputs: frozenset[str] = frozenset()


def collate_right(
    rows: Sequence[EncodedPrompt],
    images_per_item: Sequence[int],
    device: torch.device,
    *,
    pad_token_id: int,
    needs_mask: bool,
) -> TokenBatch:
    """Pad queries on the right to one length; each is answered at its own last token.

    Args:
        rows: the queries.
        images_per_item: number of images of each query.
        device: device of the model.
        pad_token_id: the token to pad with.
        needs_mask: add an ``attention_mask`` where there is padding.
    """
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())

    def padded(parts: list[Tensor], dim: int, value: int = 0) -> Tensor:
        return torch.stack(
            [nn.functional.pad(p, (0, width - p.shape[-1]), value=value) for p in parts], dim
        ).to(device)

    inputs = {
        key: padded([row.tokens[key] for row in rows], 0, pad_token_id * (key == "input_ids"))
        for key in _common([row.tokens for row in rows])
    }
    if positions := [row.positions for row in rows if row.positions is not None]:
        inputs["position_ids"] = padded(positions, 1)
    masks = [row.image_attention_masks for row in rows]
    for key in _common(masks):
        inputs[key] = _stacked([mask[key] for mask in masks], width).to(device)
    if needs_mask and int(lengths.min()) < width:
        inputs["attention_mask"] = (torch.arange(width) < lengths[:, None]).long().to(device)
    grids = [row.image_grid_thw for row in rows if row.image_grid_thw is not None]
    if grids:
        inputs["image_grid_thw"] = torch.cat(grids).to(device)
    return TokenBatch(
        inputs,
        (lengths - 1).to(device),
        tuple(images_per_item),
        torch.cat(grids) if grids else None,
        frozenset().union(*[row.pixel_inputs for row in rows]),
    )


def _common(parts: Sequence[Mapping[str, Tensor]]) -> list[str]:
    """Keys that all dicts have."""
    # what an image processor made can look like a number for each token, where there happen to be
    # as many; it is made again with the pixels
    return [key for key in parts[0] if all(key in part for part in parts)]


def _stacked(parts: Sequence[Tensor], width: int) -> Tensor:
    """Tensors ``(L, ...)`` stacked to ``(B, width, ...)``, padded with zeros at the end."""
    shape = torch.Size([len(parts), width, *map(max, zip(*[part.shape[1:] for part in parts]))])
    out = parts[0].new_zeros(shape)
    for target, part in zip(out, parts):
        target[tuple(map(slice, part.shape))] = part
    return out
