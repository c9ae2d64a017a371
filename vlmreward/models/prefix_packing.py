"""Several questions about the same images in one sequence with a shared prefix.

The prefix, all tokens up to the first difference between the questions (images included), occurs
once; the remaining tokens of each question follow, one question after the other. A token attends to
the prefix and to its own question, at the positions that it has when the question is asked alone.
Under causal attention that is the same computation: values and gradients equal those of separate
queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from vlmreward.models.token_layout import EncodedPrompt

__all__ = ["Packed", "pack", "shared_length"]


def shared_length(rows: Sequence[EncodedPrompt]) -> int:
    """Length of the prefix that is equal in all rows: ids, positions and all other token inputs.

    At least one token of each row is left out of the prefix, so that each row has its own end.
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
    """All inputs of each token, stacked: ``(., L)``."""
    parts = [value[None] for value in row.tokens.values()]
    if row.positions is not None:
        parts.append(row.positions)
    parts += [mask.flatten(1).T.long() for mask in row.image_attention_masks.values()]
    return torch.cat(parts)


@dataclass(frozen=True)
class Packed:
    """Several rows packed into one sequence of length L.

    Attributes:
        row: tokens of the sequence, with positions ``(P, L)``.
        branch: integers ``(L,)``: 0 for the shared prefix, k + 1 for row k.
        last_token_index: index of the last token of each of the K rows.
        shared: length of the shared prefix.
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
        """Attention mask, bool ``(length, length)`` of queries by keys, with padding at the end."""
        branch = torch.nn.functional.pad(self.branch, (0, length - len(self.branch)), value=-1)
        alike = branch[:, None] == branch
        return (alike | (branch == 0)) & torch.ones_like(alike).tril()


def pack(rows: Sequence[EncodedPrompt], shared: int) -> Packed:
    """Pack K rows with a common prefix into one sequence.

    Args:
        rows: questions about the same images.
        shared: length of the prefix to share, at most ``shared_length(rows)``.
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
