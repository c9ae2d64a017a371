"""Batches of images that are checked once and then passed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from vlmreward.images.layout import ImageBatchSpec
from vlmreward.images.validation import Images, Query, check_values, flatten_views, sizes_of

__all__ = [
    "ImageBatch",
    "Images",
    "Query",
    "concatenate",
]


@dataclass
class _Pixels:
    """Record of checks of pixel values, shared by batches that hold the same pixels."""

    checked: bool = False


class ImageBatch:
    """Images of B queries whose types, dtypes, shapes and devices have been checked.

    ``of`` builds it once per call, and nested wrappers and rewards pass it on, so that the same
    images are not checked again. Rewards that users write are given plain tensors; see
    ``vlmreward.rewards.protocol.call_reward``.

    Attributes:
        spec: layout of the tensors as queries.
        tensors: the images as they were given, not copied: one tensor, or those in the lists.
    """

    def __init__(
        self,
        spec: ImageBatchSpec,
        tensors: Sequence[torch.Tensor],
        pixels: _Pixels | None = None,
    ) -> None:
        self.spec = spec
        self.tensors = tuple(tensors)
        self._pixels = pixels or _Pixels()

    @classmethod
    def of(cls, images: Images | ImageBatch) -> ImageBatch:
        """Build a batch from images, whose values are not checked; a batch is returned unchanged.

        Raises:
            TypeError, ValueError: as ``flatten_views`` without ``values``.
        """
        if isinstance(images, ImageBatch):
            return images
        _, counts = flatten_views(images, values=False)
        if isinstance(images, torch.Tensor):
            return cls(ImageBatchSpec(len(counts), None), [images])
        tensors: list[torch.Tensor] = []
        lists: list[int | None] = []
        for query in images:
            if isinstance(query, torch.Tensor):
                tensors.append(query)
                lists.append(None)
            else:
                tensors += query
                lists.append(len(query))
        return cls(ImageBatchSpec(len(counts), tuple(lists)), tensors)

    def __len__(self) -> int:
        return self.spec.batch

    def __getitem__(self, part: slice) -> ImageBatch:
        """The queries of a slice."""
        start, stop, _ = part.indices(len(self))
        lists = self.spec.lists
        if lists is None:
            tensors: Sequence[torch.Tensor] = [self.tensors[0][part]]
        else:
            widths = [1 if count is None else count for count in lists]
            first = sum(widths[:start])
            tensors = self.tensors[first : first + sum(widths[start:stop])]
            lists = lists[start:stop]
        return ImageBatch(ImageBatchSpec(stop - start, lists), tensors, replace(self._pixels))

    @property
    def images(self) -> Images:
        """The images in the layout in which they were given."""
        return self.spec.unflatten(self.tensors)

    @property
    def device(self) -> torch.device:
        """The device of the images."""
        return self.tensors[0].device

    @property
    def requires_grad(self) -> bool:
        """True if any of the images is part of a graph."""
        return any(tensor.requires_grad for tensor in self.tensors)

    def detach(self) -> ImageBatch:
        """The same pixels without a graph."""
        return self.with_tensors([tensor.detach() for tensor in self.tensors], same_values=True)

    @property
    def counts(self) -> list[int]:
        """Number of views of each query."""
        if self.spec.lists is None:
            (whole,) = self.tensors
            return [whole.shape[1] if whole.ndim == 5 else 1] * len(self)
        left = iter(self.tensors)
        return [
            _n_views(next(left)) if count is None else len([next(left) for _ in range(count)])
            for count in self.spec.lists
        ]

    @property
    def views(self) -> torch.Tensor | list[torch.Tensor]:
        """All N views in order: ``(N, 3, H, W)``, or a list of ``(3, H, W)``; not copied."""
        if self.spec.lists is None:
            (whole,) = self.tensors
            return whole.flatten(0, 1) if whole.ndim == 5 else whole
        return [
            view
            for tensor in self.tensors
            for view in (tensor.unbind() if tensor.ndim == 4 else [tensor])
        ]

    @property
    def sizes(self) -> list[list[tuple[int, int]]]:
        """Height and width of each view, query by query."""
        return sizes_of(self.views, self.counts)

    def check_values(self) -> None:
        """Refuse values outside [0, 1] and NaN, unless that has been done for these pixels.

        Raises:
            ValueError: a value is outside the range; see
                ``vlmreward.images.validation.check_values``.
        """
        if not self._pixels.checked:
            check_values(self.views)
            self._pixels.checked = True

    def with_tensors(
        self, tensors: Sequence[torch.Tensor], *, same_values: bool = False
    ) -> ImageBatch:
        """A batch of the same layout, made of other tensors.

        Args:
            tensors: new tensors, one for each of ``self.tensors``, of the same shapes but for
                heights and widths.
            same_values: they hold the same pixels and differ in their graph alone.
        """
        return ImageBatch(self.spec, tensors, self._pixels if same_values else None)


def concatenate(batches: Sequence[ImageBatch]) -> ImageBatch:
    """The queries of several batches of one layout, one batch after the other."""
    first = batches[0]
    if first.spec.lists is None:
        spec = ImageBatchSpec(sum(map(len, batches)), None)
        return ImageBatch(spec, [torch.cat([batch.tensors[0] for batch in batches])])
    spec = ImageBatchSpec(sum(map(len, batches)), first.spec.lists * len(batches))
    return ImageBatch(spec, [tensor for batch in batches for tensor in batch.tensors])


def _n_views(query: torch.Tensor) -> int:
    return len(query) if query.ndim == 4 else 1
