"""The contract of every image that enters the package: float, RGB, channels first, in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = [
    "MAX_ASPECT_RATIO",
    "RANGE_TOLERANCE",
    "Images",
    "check_images",
    "check_values",
    "flatten_views",
    "sizes_of",
]

Query = torch.Tensor | Sequence[torch.Tensor]
"""The images of one query: ``(3, H, W)``, ``(V, 3, H, W)``, or a list of ``(3, H, W)``."""

Images = torch.Tensor | Sequence[Query]
"""Images in any layout of the contract; see ``flatten_views``."""

RANGE_TOLERANCE = 1 / 128
"""Accepted excess of a value over [0, 1]: renderers and decoders overshoot a little in half
precision (1/128 is the step of bfloat16 above 1). A real mistake of range is much larger."""

MAX_ASPECT_RATIO = 200
"""Images longer and thinner than this are refused, as by Qwen's own processor."""


def _check_one(image: object, what: str, dims: int) -> None:
    """Check type, dtype and shape of one tensor of images, without a GPU synchronization."""
    layout = {3: "(3, H, W)", 4: "(B, 3, H, W)", 5: "(B, V, 3, H, W)"}
    if not isinstance(image, torch.Tensor):
        raise TypeError(
            f"{what} is a {type(image).__name__}; expected a torch.Tensor: "
            "convert it, e.g. torch.from_numpy(array).permute(2, 0, 1) / 255"
        )
    if not image.is_floating_point() or image.dtype.itemsize < 2:
        remedy = "pass images.float()" if image.is_floating_point() else "pass images.float() / 255"
        raise TypeError(
            f"{what} has dtype {image.dtype}; expected a floating dtype of 16 bits or more with "
            f"values in [0, 1]: {remedy}"
        )
    if image.layout != torch.strided:
        raise TypeError(
            f"{what} is sparse ({image.layout}); expected a dense tensor: pass images.to_dense()"
        )
    if image.is_meta:
        raise ValueError(
            f"{what} is on the device meta, which has no values; expected the CPU or an accelerator"
        )
    if image.ndim != dims or image.shape[-3] != 3:
        remedy = "pass RGB with the channels first"
        if image.ndim == 3 and dims == 4:
            remedy = "pass a single image as image[None]"
        elif image.ndim == dims and image.shape[-1] == 3:
            remedy = "move the channels first, e.g. images.movedim(-1, -3)"
        elif image.ndim == dims and image.shape[-3] == 1:
            remedy = "for gray images pass vlmreward.gray_to_rgb(images)"
        elif image.ndim == dims and image.shape[-3] == 4:
            remedy = "for RGBA pass vlmreward.rgba_to_rgb(images, background)"
        raise ValueError(
            f"{what} has shape {tuple(image.shape)}; expected {layout[dims]}: {remedy}"
        )
    if image.numel() == 0:
        raise ValueError(
            f"{what} has shape {tuple(image.shape)}, which is empty; expected at least one image "
            "of at least one pixel: skip the call for an empty batch"
        )
    height, width = image.shape[-2:]
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ValueError(
            f"{what} is {height}x{width}, an aspect ratio of "
            f"{max(height, width) / min(height, width):.0f}; expected at most {MAX_ASPECT_RATIO}: "
            "crop it or pad it"
        )


def check_values(images: torch.Tensor | Sequence[torch.Tensor]) -> None:
    """Refuse NaN, infinities and values further than ``RANGE_TOLERANCE`` outside [0, 1].

    The check is one pass over the pixels and, on a GPU, one synchronization for all images. It is
    left out under ``torch.compile``, because a graph cannot depend on values.

    Args:
        images: a tensor of any shape or a sequence of them, on one device.

    Raises:
        ValueError: a value is outside the range; the message has the range and the remedy.
    """
    if torch.compiler.is_compiling():
        return
    tensors = [images] if isinstance(images, torch.Tensor) else images
    with torch.no_grad():
        ends = [torch.stack(t.detach().aminmax()).float() for t in tensors]
        low, high = zip(*torch.stack(ends).tolist())
    lowest, highest = min(low), max(high)
    # A NaN compares false with everything, so ask for what is right and negate; it can hide from
    # min() and max() among several tensors, hence each end is looked at
    if all(a >= -RANGE_TOLERANCE and b <= 1 + RANGE_TOLERANCE for a, b in zip(low, high)):
        return
    if not all(-float("inf") < v < float("inf") for v in (*low, *high)):
        raise ValueError(
            "images contain NaN or infinite values; expected finite values in [0, 1]: "
            "look upstream, e.g. with torch.autograd.set_detect_anomaly(True)"
        )
    if lowest >= -1 - RANGE_TOLERANCE and highest <= 1 + RANGE_TOLERANCE:
        remedy = "if they are in [-1, 1] pass (images + 1) / 2, otherwise images.clamp(0, 1)"
    elif lowest >= 0 and highest <= 255:
        remedy = "if they are 8-bit levels pass images / 255"
    else:
        remedy = "pass images before any mean/std normalization, or images.clamp(0, 1)"
    raise ValueError(
        f"images have values from {lowest:.4g} to {highest:.4g}; expected [0, 1]: {remedy}"
    )


def _check_devices(images: Sequence[torch.Tensor]) -> None:
    """Check that all images of a list are on the first one's device."""
    for i, image in enumerate(images):
        if image.device != images[0].device:
            raise ValueError(
                f"image {i} is on {image.device} and the first one on {images[0].device}; expected "
                "all images on one device: move them"
            )


def check_images(images: torch.Tensor | Sequence[torch.Tensor], *, values: bool = True) -> None:
    """Refuse anything but a batch of images as the processors take it.

    Args:
        images: floating ``(B, 3, H, W)`` in [0, 1], or a non-empty sequence of ``(3, H, W)`` of
            different sizes on one device.
        values: also check the values (see ``check_values``).

    Raises:
        TypeError: not a tensor, or an integer or boolean dtype.
        ValueError: wrong shape, channel count, aspect ratio or values, or no images.
    """
    if isinstance(images, torch.Tensor):
        _check_one(images, "images", 4)
    elif isinstance(images, (list, tuple)):
        if not images:
            raise ValueError(
                "images is an empty list; expected at least one (3, H, W) tensor: "
                "skip the call for an empty batch"
            )
        for i, image in enumerate(images):
            _check_one(image, f"images[{i}]", 3)
        _check_devices(images)
    else:
        _check_one(images, "images", 4)
    if values:
        check_values(images)


def flatten_views(
    images: Images, *, values: bool = True
) -> tuple[torch.Tensor | list[torch.Tensor], list[int]]:
    """All images of queries of one or several views, in order, and the number of views per query.

    Args:
        images: floating, in [0, 1]: ``(B, 3, H, W)`` for one image a query, ``(B, V, 3, H, W)``
            for V views a query; a list of ``(3, H, W)`` for one image of its own size a query; a
            list of lists of ``(3, H, W)``, or of ``(V, 3, H, W)`` tensors, for several.
        values: also check the values (see ``check_values``).

    Returns:
        ``(N, 3, H, W)`` or a list of N tensors ``(3, H, W)``, and B counts that sum to N. No copy.

    Raises:
        TypeError, ValueError: as ``check_images``.
    """
    if isinstance(images, torch.Tensor):
        _check_one(images, "images", 5 if images.ndim == 5 else 4)
        counts = [images.shape[1] if images.ndim == 5 else 1] * len(images)
        if values:
            check_values(images)
        return (images.flatten(0, 1) if images.ndim == 5 else images), counts
    if not isinstance(images, (list, tuple)):
        _check_one(images, "images", 4)
    flat: list[torch.Tensor] = []
    counts = []
    for i, query in enumerate(images):
        if isinstance(query, (list, tuple)):
            if not query:
                raise ValueError(
                    f"images[{i}] is an empty list; expected at least one view: drop that query"
                )
            for j, view in enumerate(query):
                _check_one(view, f"images[{i}][{j}]", 3)
            views = list(query)
        elif isinstance(query, torch.Tensor) and query.ndim == 4:
            _check_one(query, f"images[{i}]", 4)
            views = list(query)
        else:
            _check_one(query, f"images[{i}]", 3)
            views = [query]
        flat += views
        counts.append(len(views))
    check_images(flat, values=values)
    return flat, counts


def sizes_of(
    images: torch.Tensor | Sequence[torch.Tensor], counts: Sequence[int]
) -> list[list[tuple[int, int]]]:
    """Height and width of every image, query by query; arguments as ``flatten_views`` returns."""
    if isinstance(images, torch.Tensor):
        return [[(images.shape[-2], images.shape[-1])] * count for count in counts]
    sizes = iter([(image.shape[-2], image.shape[-1]) for image in images])
    return [[next(sizes) for _ in range(count)] for count in counts]
