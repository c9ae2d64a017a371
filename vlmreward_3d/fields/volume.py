"""Fields that are sampled along rays."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.fields.base import Field, VolumeRepresentation
from vlmreward_3d.rendering.base import Shader, Views
from vlmreward_3d.rendering.deferred import render_deferred, render_with_graph
from vlmreward_3d.rendering.evaluation import render_volume_images
from vlmreward_3d.rendering.occupancy import OccupancyGrid
from vlmreward_3d.rendering.shading import sample_shader

__all__ = ["RaySampling", "Shading", "VolumeField"]

_PIXELS_PER_NODE = 8 / 3
"""More pixels than this per node of a volume show no more detail."""


@dataclass(frozen=True, kw_only=True)
class RaySampling:
    """How a field is sampled along rays in training.

    Attributes:
        samples_per_ray: Samples on a ray through occupied space.
        rays_per_chunk: Rays rendered together, twice ("deferred"); None renders all rays of a step
            at once and keeps their graph.
        occupancy_interval: Steps between updates of the occupancy grid.
    """

    samples_per_ray: int = 64
    rays_per_chunk: int | None = None
    occupancy_interval: int = 8


@dataclass(frozen=True, kw_only=True)
class Shading:
    """Random shading in training.

    Attributes:
        probabilities: Probabilities of albedo, textureless and diffuse shading.
        start: Progress in [0, 1] before which the field's own colors are rendered.
    """

    probabilities: tuple[float, float, float]
    start: float = 0.0


class VolumeField(Field):
    """A volume with the occupancy grid and the sampling that render it.

    Args:
        representation: Density and color, such as a `DenseGrid` or a `HashGrid`.
        occupancy: Record of occupied space, over the same box.
        sampling: How rays are sampled in training.
        shading: How views are shaded in training; None for the volume's own colors.

    Raises:
        ValueError: The representation and the occupancy grid have different boxes.
    """

    def __init__(
        self,
        representation: VolumeRepresentation,
        occupancy: OccupancyGrid,
        *,
        sampling: RaySampling | None = None,
        shading: Shading | None = None,
    ) -> None:
        super().__init__()
        if representation.bound != occupancy.bound:
            raise ValueError(
                f"received a representation with bound={representation.bound} and an occupancy "
                f"grid with bound={occupancy.bound}; expected the same box; change one of them"
            )
        self.representation = representation
        self.occupancy = occupancy
        self.sampling = sampling or RaySampling()
        self.shading = shading

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Those of the representation."""
        return self.representation.parameter_groups()

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
        """Render the views of a step, all rays at once or in chunks. See `Field.render`."""
        render: Callable[..., Views] = render_with_graph
        if self.sampling.rays_per_chunk is not None:
            render = partial(render_deferred, chunk=self.sampling.rays_per_chunk)
        return render(
            self.representation.bake(normals=normals or shader is not None),
            self.occupancy,
            cameras,
            resolution,
            n_samples=self.sampling.samples_per_ray,
            background=background,
            shader=shader,
            generator=generator,
        )

    @torch.no_grad()
    def render_images(
        self, cameras: Cameras, size: int, *, normals: bool = False, n_samples: int | None = None
    ) -> Iterator[Tensor]:
        """Render on white without gradients. See `Field.render_images`."""
        yield from render_volume_images(
            self.representation.bake(normals=normals),
            self.occupancy,
            cameras,
            size,
            n_samples=n_samples or self.sampling.samples_per_ray,
        )

    def sample_shader(
        self, cameras: Cameras, group_size: int, progress: float, generator: torch.Generator
    ) -> Shader | None:
        """Draw the shading of a step; None before shading starts. See `Field.sample_shader`."""
        if self.shading is None or progress < self.shading.start:
            return None
        return sample_shader(cameras.positions, self.shading.probabilities, group_size, generator)

    def begin_step(self, step: int, generator: torch.Generator) -> None:
        """Update the occupancy grid at every `occupancy_interval`-th step."""
        if step % self.sampling.occupancy_interval == 0:
            self.update_occupancy(generator)

    @torch.no_grad()
    def update_occupancy(self, generator: torch.Generator | None = None) -> None:
        """Update the occupancy grid; see `OccupancyGrid.update`."""
        self.occupancy.update(self.representation.bake().density, generator)

    @property
    def occupancy_fraction(self) -> float:
        """Share of the grid's cells that is occupied."""
        return self.occupancy.occupied.float().mean().item()

    def for_evaluation(self) -> VolumeField:
        """A field with the same parameters and an up-to-date copy of the occupancy grid."""
        other = VolumeField(
            self.representation,
            copy.deepcopy(self.occupancy),
            sampling=self.sampling,
            shading=self.shading,
        )
        other.update_occupancy()
        return other

    def render_size(self, size: int) -> int:
        """At most 8/3 pixels per node of the finest level."""
        return min(size, math.ceil(_PIXELS_PER_NODE * self.representation.resolution))
