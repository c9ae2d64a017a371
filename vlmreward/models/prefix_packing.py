"""Several questions about the same images in one sequence, which begins with what they share.

The tokens of all questions up to where they first differ (the images are among them) are there
once; behind them come the rests of the questions side by side. A token attends to what is shared
and to its own question, at the positions that it has when the question is asked alone. Under causal
attention that is the same computation, so that values and gradients are those of separate queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from vlmreward.models.token_layout import EncodedPrompt

__all__ = ["Packed", "pack", "shared_length"]


def shared_length(rows: Sequence[EncodedPrompt]) -> int:
    """How many of the first tokens are the same in all rows, in every respect.

    At least one token of each row stays out of it, so that each has an end of its own.
    """
    length = min(len(row) for row in rows) - 1
    first = _columns(rows[0])[:, :length]
    same = torch.ones(length, dtype=torch.bool)
    for row in rows[1:]:
        other = _columns(row)[:, :length]
        if other.shape != first.shape:
            return 0
        same &= (other == first).all(dim=0)
    return int(same.long().cumprod(0).sum())


def _columns(row: EncodedPrompt) -> torch.Tensor:
    """All that is known of each token, ``(., L)``."""
    parts = [value[None] for value in row.tokens.values()]
    if row.positions is not None:
        parts.append(row.positions)
    parts += [mask.flatten(1).T.long() for mask in row.image_attention_masks.values()]
    return torch.cat(parts)


@dataclass(frozen=True)
class Packed:
    """Rows in one sequence of length L.

    Attributes:
        row: their tokens, with positions ``(P, L)``.
        branch: integers ``(L,)``: 0 for what is shared, k + 1 for row k.
        last_token_index: K indices: where each row ends.
        shared: number of tokens that are there once.
    """

    row: EncodedPrompt
    branch: torch.Tensor
    last_token_index: tuple[int, ...]
    shared: int

    def places(self, numbers: Sequence[int]) -> list[list[int]]:
        """Indices of the last tokens of each row, as many as ``numbers`` says."""
        lengths = [
            end - start for start, end in pairwise([self.shared - 1, *self.last_token_index])
        ]
        return [
            # counted back from the row's end, and then on from that of what is shared
            [end - i if i < length else self.shared - 1 - (i - length) for i in range(n)][::-1]
            for end, length, n in zip(self.last_token_index, lengths, numbers)
        ]

    def mask(self, length: int) -> torch.Tensor:
        """bool ``(length, length)``: who attends to whom, with padding at the end."""
        branch = torch.nn.functional.pad(self.branch, (0, length - len(self.branch)), value=-1)
        alike = branch[:, None] == branch
        return (alike | (branch == 0)) & torch.ones_like(alike).tril()


def pack(rows: Sequence[EncodedPrompt], shared: int) -> Packed:
    """K rows that share their first tokens -> one.

    Args:
        rows: questions about the same images.
        shared: number of tokens to have once; at most ``shared_length(rows)``.
    """
    lengths = [len(row) - shared for row in rows]
    branch = torch.repeat_interleave(torch.arange(len(rows) + 1), torch.tensor([shared, *lengths]))
    ends = torch.tensor([shared, *lengths]).cumsum(0)[1:] - 1

    def joined(parts: list[torch.Tensor], dim: int = -1) -> torch.Tensor:
        rests = [part.narrow(dim, shared, part.shape[dim] - shared) for part in parts]
        return torch.cat([parts[0].narrow(dim, 0, shared), *rests], dim)

    positions = [
        torch.arange(len(row))[None] if row.positions is None else row.positions for row in rows
    ]
    row = EncodedPrompt(
        {key: joined([row.tokens[key] for row in rows]) for key in rows[0].tokens},
        joined(positions),
        rows[0].image_grid_thw,
        {
            key: joined([row.image_attention_masks[key] for row in rows], 0)
            for key in rows[0].image_attention_masks
        },
        rows[0].pixel_inputs,
    )
    return Packed(row, branch, tuple(int(end) for end in ends), shared)
