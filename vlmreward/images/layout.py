"""The layout of a batch of images: the grouping of its tensors into queries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from vlmreward.images.validation import Images

__all__ = ["ImageBatchSpec", "to_compute_dtype"]


@dataclass(frozen=True)
class ImageBatchSpec:
    """Grouping of the tensors of a batch of images into queries.

    Attributes:
        batch: B, the number of queries.
        lists: None if the images are one tensor with the queries in its first dimension; otherwise
            for each query the number of tensors in its list, or None if it is a tensor itself.
    """

    batch: int
    lists: tuple[int | None, ...] | None

    def unflatten(self, tensors: Sequence[torch.Tensor]) -> Images:
        """The images in their layout, made of these tensors."""
        if self.lists is None:
            return tensors[0]
        left = iter(tensors)
        return [
            next(left) if count is None else [next(left) for _ in range(count)]
            for count in self.lists
        ]

    def scaled(
        self, tensors: Sequence[torch.Tensor], factors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Tensors times their query's factor ``(B,)``, each in its own dtype."""
        if self.lists is None:
            (whole,) = tensors
            shape = (-1,) + (1,) * (whole.ndim - 1)
            return ((whole * factors.to(whole).view(shape)),)
        return tuple(t * factors[i].to(t) for t, i in zip(tensors, self._owners()))

    def norms(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Euclidean norm ``(B,)`` of all values of each query, in at least float32."""
        if self.lists is None:
            return torch.linalg.vector_norm(to_compute_dtype(tensors[0]).flatten(1), dim=1)
        each = torch.stack([torch.linalg.vector_norm(to_compute_dtype(t)) for t in tensors])
        owners = torch.tensor(list(self._owners()), device=each.device)
        squares = each.new_zeros(self.batch).index_add(0, owners, each.square())
        return squares.sqrt()

    def _owners(self) -> Iterable[int]:
        assert self.lists is not None
        for i, count in enumerate(self.lists):
            yield from [i] * (1 if count is None else count)


def to_compute_dtype(x: torch.Tensor) -> torch.Tensor:
    """The tensor in the dtype of computations: float64 stays, everything else becomes float32."""
    return x if x.dtype == torch.float64 else x.float()
