"""Matrices of few dense bands, and their products with images in full precision.

The work is linear in the size of the image, the transpose is one more set of bands, and no sum uses
atomic operations, so that results are bitwise repeatable.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch

__all__ = [
    "BandedOperator",
    "apply_operator",
    "banded_operator",
    "full_precision",
    "plane_by_plane",
]


@dataclass(frozen=True)
class _Band:
    """Outputs ``[out_from, out_to)`` are ``matrix @ inputs[in_from:in_to]``."""

    out_from: int
    out_to: int
    in_from: int
    in_to: int
    matrix: torch.Tensor


@dataclass(frozen=True)
class BandedOperator:
    """A banded matrix and its transpose; immutable, shared between calls."""

    n_in: int
    n_out: int
    bands: tuple[_Band, ...]
    adjoint_bands: tuple[_Band, ...]

    @property
    def dtype(self) -> torch.dtype:
        return self.bands[0].matrix.dtype

    @property
    def adjoint(self) -> BandedOperator:
        return BandedOperator(self.n_out, self.n_in, self.adjoint_bands, self.bands)


def _band_length(n_in: int, n_out: int, device: torch.device) -> int:
    """Number of outputs per band, chosen by measurements.

    Shorter bands hold fewer zeros, longer bands need fewer calls: each output widens a band by
    ``n_in / n_out`` inputs. On a GPU the arithmetic is fast and every call costs time.
    """
    if device.type != "cpu":
        return 512
    usual = 32 if max(n_in, n_out) <= 512 else 64
    return max(16, round(usual * math.sqrt(n_out / n_in) / 16) * 16)


def _bands(weights: torch.Tensor, length: int) -> tuple[_Band, ...]:
    bands = []
    if weights.shape[0] <= 2 * length:
        length = weights.shape[0]
    for start in range(0, weights.shape[0], length):
        rows = weights[start : start + length]
        used = rows.ne(0).any(dim=0).nonzero()
        lo, hi = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        matrix = rows[:, lo:hi].contiguous()
        bands.append(_Band(start, start + rows.shape[0], lo, hi, matrix))
    return tuple(bands)


def banded_operator(
    weights: torch.Tensor, dtype: torch.dtype, device: torch.device
) -> BandedOperator:
    weights = weights.to(dtype)

    def moved(matrix: torch.Tensor) -> tuple[_Band, ...]:
        length = _band_length(matrix.shape[1], matrix.shape[0], device)
        return tuple(
            _Band(b.out_from, b.out_to, b.in_from, b.in_to, b.matrix.to(device))
            for b in _bands(matrix, length)
        )

    return BandedOperator(weights.shape[1], weights.shape[0], moved(weights), moved(weights.T))


class _Precision(Protocol):
    fp32_precision: str


class _Shortcuts:
    """Process-wide TF32 or bfloat16 shortcut in float32 products, switched off in a context.

    Several threads may enter the context: the first switches the shortcut off, the last one to
    leave restores it.

    Args:
        settings: torch's settings of matrix products of one kind of device, an object with the
            attribute ``fp32_precision``.
    """

    def __init__(self, settings: _Precision) -> None:
        self.settings = settings
        self.lock = threading.Lock()
        self.within = 0
        self.chosen = ""

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        with self.lock:
            counted = self.within > 0 or self.settings.fp32_precision not in ("none", "ieee")
            if counted and not self.within:
                self.chosen, self.settings.fp32_precision = self.settings.fp32_precision, "ieee"
            self.within += counted
        try:
            yield
        finally:
            with self.lock:
                self.within -= counted
                if counted and not self.within:
                    self.settings.fp32_precision = self.chosen


_BACKENDS: Any = torch.backends
_OF_CUDA, _OF_OTHERS = _Shortcuts(_BACKENDS.cuda.matmul), _Shortcuts(_BACKENDS.mkldnn.matmul)


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Keep autocast and TF32 or bfloat16 shortcuts out of the resampling products."""
    shortcuts = _OF_CUDA if device.type == "cuda" else _OF_OTHERS
    with shortcuts.off(), torch.autocast(device.type, enabled=False):
        yield


def apply_operator(
    x: torch.Tensor, operator: BandedOperator, axis: int, out: torch.Tensor | None = None
) -> torch.Tensor:
    """The operator along the last (-1) or next to last (-2) axis of planes ``(N, H, W)``."""
    if out is None:
        shape = list(x.shape)
        shape[axis] = operator.n_out
        out = x.new_empty(shape)
    with full_precision(x.device):
        for b in operator.bands:
            if axis == -1:
                seen = x.reshape(-1, operator.n_in)[:, b.in_from : b.in_to]
                rows = out.view(-1, operator.n_out)[:, b.out_from : b.out_to]
                torch.mm(seen, b.matrix.T, out=rows)
            elif len(x) == 1:
                torch.mm(b.matrix, x[0, b.in_from : b.in_to], out=out[0, b.out_from : b.out_to])
            else:  # bmm is slow with an `out` that is not in one piece
                matrix = b.matrix.expand(len(x), -1, -1)
                out[:, b.out_from : b.out_to] = torch.bmm(matrix, x[:, b.in_from : b.in_to])
    return out


# Values at a time on a CPU, by measurement: what is between the two passes stays in the cache, and
# a large image needs little memory beside its result
_PART = 2**20

Passes = Callable[[torch.Tensor, torch.Tensor], None]
"""Function of both passes of a resize, from planes into existing planes."""


def plane_by_plane(
    x: torch.Tensor, size: tuple[int, int], passes: Passes, out: torch.Tensor | None
) -> torch.Tensor:
    """Apply ``passes`` to some planes of ``(..., H, W)`` at a time, on a GPU to all at once."""
    if out is None:
        out = x.new_empty(*x.shape[:-2], *size)
    planes, results = x.reshape(-1, *x.shape[-2:]), out.view(-1, *size)
    largest = max(x.shape[-2] * x.shape[-1], size[0] * size[1])
    step = max(1, _PART // largest) if x.device.type == "cpu" else len(planes)
    for part, result in zip(planes.split(step), results.split(step)):
        passes(part, result)
    return out
