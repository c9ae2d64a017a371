"""What wraps a reward: images taken apart into tensors and put together again, checked calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vlmreward.images.validation import flatten_views

__all__ = ["ImageBatchSpec", "flatten_images", "repeated", "to_compute_dtype"]


@dataclass(frozen=True)
class ImageBatchSpec:
    """How the tensors of a batch of images make up its queries.

    Attributes:
        batch: B, the number of queries.
        lists: None if the images are one tensor with the queries in its first dimension; otherwise
            for each query the number of tensors in its list, or None if it is a tensor itself.
    """

    batch: int
    lists: tuple[int | None, ...] | None

    def together(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The images again, of these tensors."""
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


def flatten_images(images: Any) -> tuple[list[torch.Tensor], ImageBatchSpec]:
    """Images in any layout of the contract -> their tensors, and how they belong together.

    Args:
        images: as ``vlmreward.images.validation.flatten_views`` takes them.

    Returns:
        The tensors, not copied, and the layout, with ``layout.together(tensors)`` the images.

    Raises:
        TypeError, ValueError: as ``flatten_views``; values are not looked at.
    """
    _, counts = flatten_views(images, values=False)
    if isinstance(images, torch.Tensor):
        return [images], ImageBatchSpec(len(counts), None)
    tensors: list[torch.Tensor] = []
    lists: list[int | None] = []
    for query in images:
        if isinstance(query, torch.Tensor):
            tensors.append(query)
            lists.append(None)
        else:
            tensors += query
            lists.append(len(query))
    return tensors, ImageBatchSpec(len(counts), tuple(lists))


def repeated(value: Any, times: int) -> Any:
    """Value of a placeholder for a batch repeated as a whole: one for all stays, lists repeat."""
    return list(value) * times if isinstance(value, (list, tuple)) else value
