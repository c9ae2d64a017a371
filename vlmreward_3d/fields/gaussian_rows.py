"""Parameters of Gaussians as rows of tensors: their activations, and cloning and splitting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreward_3d.rendering.gaussians.primitives import MOST_OPAQUE, rotations

__all__ = ["NEW", "EditedRows", "Rows", "grow", "logits_of", "opacity_of", "split"]

Rows: TypeAlias = dict[str, Tensor]
"""Parameters of N Gaussians, a row each, by their names in a `GaussianField`."""

NEW = -1
"""Origin of a row that continues no former row."""

_HALVES = 2
_SHRINKING = 0.8 * _HALVES
"""Divisor of the scales of halves (Kerbl et al., 2023, Sec. 5.2: 1.6)."""


def opacity_of(logits: Tensor) -> Tensor:
    """Opacities in (0, `MOST_OPAQUE`) of logits of any shape; differentiable."""
    return MOST_OPAQUE * logits.sigmoid()


def logits_of(opacity: Tensor) -> Tensor:
    """Logits of opacities in (0, `MOST_OPAQUE`); the inverse of `opacity_of`."""
    return (opacity / MOST_OPAQUE).logit()


@dataclass(frozen=True)
class EditedRows:
    """Rows of parameters after some rows have been added or removed.

    Attributes:
        rows: The M rows.
        origins: (M,) int, index of the former row that each row continues, or `NEW`.
    """

    rows: Rows
    origins: Tensor

    def keep(self, chosen: Tensor) -> EditedRows:
        """The rows of a mask (M,)."""
        return EditedRows({k: v[chosen] for k, v in self.rows.items()}, self.origins[chosen])


def split(rows: Rows, generator: torch.Generator) -> Rows:
    """Split each Gaussian into two halves (Kerbl et al., 2023, Sec. 5.2).

    The centers of the halves are drawn from the Gaussian, and their scales are its scales divided
    by 1.6: the mixture of many halves has its mean, and its covariance times 1 + 1 / 1.6^2.

    Args:
        rows: N Gaussians.
        generator: CPU source of the centers.

    Returns:
        2 N rows: the first half of each, then the second; without gradients.
    """
    halves = {
        name: value.detach().repeat(_HALVES, *[1] * (value.ndim - 1))
        for name, value in rows.items()
    }
    means, logarithms = halves["means"], halves["log_scales"]
    noise = torch.randn(means.shape, generator=generator, dtype=means.dtype).to(means.device)
    turned = rotations(F.normalize(halves["quaternions"], dim=-1))
    offsets = torch.einsum("nij,nj->ni", turned, logarithms.exp() * noise)
    return halves | {"means": means + offsets, "log_scales": logarithms - math.log(_SHRINKING)}


def grow(rows: Rows, cloned: Tensor, halved: Tensor, generator: torch.Generator) -> EditedRows:
    """Clone some Gaussians, and replace others by two halves.

    Args:
        rows: N Gaussians.
        cloned: (N,) bool, True for Gaussians to clone.
        halved: (N,) bool, True for Gaussians to split; none of them is cloned.
        generator: CPU source of the halves' centers.

    Returns:
        The Gaussians that are not split, in order, then the copies, then the halves; without
        gradients.
    """
    values = {name: value.detach() for name, value in rows.items()}
    halves = split({name: value[halved] for name, value in values.items()}, generator)
    stays = (~halved).nonzero()[:, 0]
    grown = {
        name: torch.cat([value[stays], value[cloned], halves[name]])
        for name, value in values.items()
    }
    added = len(grown["means"]) - len(stays)
    return EditedRows(grown, torch.cat([stays, stays.new_full((added,), NEW)]))
