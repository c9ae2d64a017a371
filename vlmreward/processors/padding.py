"""Images of several samples, padded to one tensor with a mask: the Idefics families' output."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlmreward.processors.base import Nested

__all__ = ["as_samples", "avoid_all_zero_images", "pad_samples"]


def as_samples(images: Nested) -> list[list[torch.Tensor]]:
    """Lists of images ``(3, H, W)``, one list per sample; images without nesting are one sample."""
    if isinstance(images, torch.Tensor):
        return [list(sample) for sample in images] if images.ndim == 5 else [list(images)]
    first = images[0]
    if isinstance(first, torch.Tensor) and first.ndim == 3:
        return [[image for image in images if isinstance(image, torch.Tensor)]]
    return [list(sample) for sample in images]


def avoid_all_zero_images(values: torch.Tensor) -> torch.Tensor:
    """Move images ``(N, C, H, W)`` that are zero everywhere by 2**-20, in place.

    The models take an image of zeros for padding and drop it; mid-gray, normalized by mean 0.5, is
    one. The shift survives the cast to half precision. Differentiable.
    """
    zero = (values == 0).flatten(1).all(dim=1).view(-1, 1, 1, 1)
    return values.add_(zero * 2.0**-20)


def pad_samples(samples: list[list[torch.Tensor]], *, pad: bool = True) -> dict[str, torch.Tensor]:
    """``pixel_values`` with zeros below, to the right and for missing images, and their mask.

    Args:
        samples: images ``(C, h, w)``; at least one in all.
        pad: False for images that need no padding, and then no mask.

    Returns:
        ``pixel_values`` ``(B, N, C, H, W)``, differentiable to the images, and with ``pad`` also
        ``pixel_attention_mask`` ``(B, N, H, W)``, int64 with 1 on images.

    Raises:
        ValueError: without ``pad``, images of different sizes or in different numbers.
    """
    flat = [image for sample in samples for image in sample]
    if not pad:
        _check_alike(samples)
        return {"pixel_values": torch.stack(flat).view(len(samples), -1, *flat[0].shape)}
    n = max(len(sample) for sample in samples)
    height, width = (max(image.shape[axis] for image in flat) for axis in (-2, -1))
    mask = torch.zeros(len(samples), n, height, width, dtype=torch.int64, device=flat[0].device)
    shape = (flat[0].shape[0], height, width)
    rows = []
    for i, sample in enumerate(samples):
        for j, image in enumerate(sample):
            h, w = image.shape[-2:]
            mask[i, j, :h, :w] = 1
            rows.append(
                image if (h, w) == (height, width) else F.pad(image, (0, width - w, 0, height - h))
            )
        if missing := n - len(sample):
            rows += [flat[0].new_zeros(shape)] * missing
    values = torch.stack(rows) if len(rows) > 1 else rows[0]
    return {"pixel_values": values.view(len(samples), n, *shape), "pixel_attention_mask": mask}


def _check_alike(samples: list[list[torch.Tensor]]) -> None:
    counts = sorted({len(sample) for sample in samples})
    sizes = sorted({tuple(image.shape[-2:]) for sample in samples for image in sample})
    if len(counts) > 1 or len(sizes) > 1:
        raise ValueError(
            f"samples become {' or '.join(map(str, counts))} images of "
            f"{' or '.join(f'{h}x{w}' for h, w in sizes)} pixels, and the image processor has "
            "do_pad=False; expected one number and one size: set do_pad=True"
        )
