"""3D Gaussian splats (Kerbl et al., 2023): a radiance field made of soft ellipsoids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from vlmreward.utils.arguments import number, whole
from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import DensificationConfig
from vlmreward_3d.fields.base import Field
from vlmreward_3d.fields.densification import RESET_OPACITY, Densifier
from vlmreward_3d.fields.gaussian_rows import EditedRows, Rows, logits_of, opacity_of
from vlmreward_3d.fields.optimizer_rows import exchange_parameters, forget_moments
from vlmreward_3d.rendering.base import Shader, Views
from vlmreward_3d.rendering.gaussians.primitives import MOST_OPAQUE, Gaussians
from vlmreward_3d.rendering.gaussians.render import render_gaussian_images, render_gaussian_views

__all__ = ["GaussianField"]

_NEIGHBORS = 3
_OPACITY = 0.1
_MEANS_RATE = 0.04
_SHAPE_RATE = 0.2
_ROWS = 1024


class GaussianField(Field):
    """Gaussians that are rasterized instead of sampled along rays.

    As in Kerbl et al. (2023), scales are optimized as logarithms and opacities as logits; colors
    are logits too, the same from every side (spherical harmonics of degree 0). Opacities are
    `MOST_OPAQUE` times a sigmoid, so that no alpha reaches the cutoff of gsplat, which is 0.999 up
    to version 1.5 and 0.99 after it. The Gaussians begin as a gray ball of uniformly drawn points,
    each round and as wide as the root of the mean squared distance to its three nearest neighbors
    (Sec. 5), with an opacity of 0.1. Their positions are not bounded by a box.

    The number of Gaussians is fixed, or changes at the end of steps by a `DensificationConfig`:
    then parameters are replaced, in the field and in the optimizer, and `load_state_dict` accepts
    any number.

    Args:
        count: Number of Gaussians, at least 4.
        radius: Radius of the initial ball, world units.
        generator: CPU source of the initial positions and of small noise in the colors; None draws
            from torch's own generator.
        densification: Settings of changes of the number; None keeps it fixed.

    Attributes:
        densifier: Statistics that determine the changes of the number; None if it is fixed.

    Raises:
        TypeError: The count is not a whole number, or the radius is not a number.
        ValueError: The count or the radius is too small.
    """

    def __init__(
        self,
        count: int = 2000,
        *,
        radius: float = 0.5,
        generator: torch.Generator | None = None,
        densification: DensificationConfig | None = None,
    ) -> None:
        super().__init__()
        if whole("count", count) <= _NEIGHBORS:
            raise ValueError(
                f"count is {count}; expected at least {_NEIGHBORS + 1} Gaussians; pass for "
                "example 2000"
            )
        number("radius", radius, above=0)
        directions = F.normalize(torch.randn(count, 3, generator=generator), dim=-1)
        means = radius * torch.rand(count, 1, generator=generator) ** (1 / 3) * directions
        sizes = _spacing(means).clamp_min(1e-4 * radius)
        self.means = nn.Parameter(means)
        self.log_scales = nn.Parameter(sizes.log()[:, None].repeat(1, 3))
        self.quaternions = nn.Parameter(torch.tensor([1.0, 0, 0, 0]).repeat(count, 1))
        self.opacity_logits = nn.Parameter(torch.full((count,), _OPACITY / MOST_OPAQUE).logit())
        self.color_logits = nn.Parameter(0.1 * torch.randn(count, 3, generator=generator))
        self.densifier = None if densification is None else Densifier(densification, count)

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """All parameters in groups, each with the factor of its learning rate.

        Opacities and colors learn at the full rate, as logits do in the other fields; scales and
        rotations at a fifth and centers at a 25th of it, in the proportions of Kerbl et al.
        """
        return [
            ([self.means], _MEANS_RATE),
            ([self.log_scales, self.quaternions], _SHAPE_RATE),
            ([self.opacity_logits, self.color_logits], 1.0),
        ]

    def render(
        self,
        cameras: Cameras,
        resolution: int,
        *,
        background: Tensor,
        generator: torch.Generator,
        shader: Shader | None = None,
        normals: bool = False,
    ) -> Views:
        """Render the views of a step and keep their graph; nothing is drawn at random.

        Of the regularizers, entropy and sparsity apply. See `Field.render`.

        Raises:
            ValueError: A shader or normals are requested, which Gaussians do not have in training.
        """
        if shader is not None or normals:
            raise ValueError(
                "received a shader or normals for Gaussians; expected neither, for they have no "
                "surface to shade or orient; turn shading and the orientation loss off"
            )
        return render_gaussian_views(
            self.gaussians(),
            cameras,
            resolution,
            background=background,
            observe=None if self.densifier is None else self.densifier.observe,
        )

    @torch.no_grad()
    def render_images(
        self, cameras: Cameras, size: int, *, normals: bool = False, n_samples: int | None = None
    ) -> Iterator[Tensor]:
        """Render on white without gradients; `n_samples` has no effect."""
        yield from render_gaussian_images(self.gaussians(), cameras, size, normals=normals)

    def gaussians(self) -> Gaussians:
        """The Gaussians as they are now; differentiable to the parameters."""
        return Gaussians(
            means=self.means,
            scales=self.log_scales.exp(),
            quaternions=F.normalize(self.quaternions, dim=-1),
            opacity=opacity_of(self.opacity_logits),
            rgb=self.color_logits.sigmoid(),
        )

    def metrics(self) -> dict[str, float]:
        """The number of Gaussians, "n_gaussians"."""
        return {"n_gaussians": len(self.means)}

    def begin_step(self, step: int, generator: torch.Generator) -> None:
        """Discard the views of a step that was not completed."""
        if self.densifier is not None:
            self.densifier.begin_step()

    def end_step(
        self, step: int, *, progress: float, optimizer: Optimizer, generator: torch.Generator
    ) -> tuple[str, ...]:
        """Add the step's views to the statistics, and change the number of Gaussians if due.

        Rows that stay keep the optimizer's state; it is 0 for new rows, and for all opacities
        after a reset. See `Field.end_step`.
        """
        densifier, events = self.densifier, []
        if densifier is None:
            return ()
        densifier.end_step()
        if densifier.is_due(step + 1, progress):
            rows: Rows = {**self._parameters_by_name()}
            change = densifier.densify(rows, progress, generator)
            self._exchange(change.edited, optimizer)
            events.append(str(change))
        if densifier.is_reset_due(step + 1, progress):
            with torch.no_grad():
                most = logits_of(self.opacity_logits.new_tensor(RESET_OPACITY))
                self.opacity_logits.clamp_(max=most)
            forget_moments(optimizer, self.opacity_logits)
            events.append(f"opacities reset to {RESET_OPACITY} at most")
        return tuple(f"step {step + 1}: {event}" for event in events)

    def _parameters_by_name(self) -> dict[str, nn.Parameter]:
        return dict(self.named_parameters(recurse=False))

    def _exchange(self, edited: EditedRows, optimizer: Optimizer) -> None:
        """Replace the parameters, here and in the optimizer."""
        former = self._parameters_by_name()
        replaced = {name: nn.Parameter(edited.rows[name]) for name in former}
        exchange_parameters(
            optimizer, {former[name]: replaced[name] for name in former}, edited.origins
        )
        for name, parameter in replaced.items():
            setattr(self, name, parameter)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """Take another number of Gaussians, where it may change, before their values are copied."""
        means = state_dict.get(f"{prefix}means")
        if self.densifier is not None and means is not None and len(means) != len(self.means):
            for name, value in self._parameters_by_name().items():
                setattr(self, name, nn.Parameter(value.new_zeros(len(means), *value.shape[1:])))
            self.densifier.resize(len(means))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def _spacing(points: Tensor) -> Tensor:
    """Root of the mean squared distance (N,) from points (N, 3) to their nearest neighbors."""
    parts = []
    for part in points.split(_ROWS):  # all distances at once would be N^2 numbers
        near = torch.cdist(part, points).topk(_NEIGHBORS + 1, largest=False).values
        parts.append(near[:, 1:].square().mean(dim=-1).sqrt())  # the first is the point itself
    return torch.cat(parts)
