"""Fields that are sampled along rays."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import RaySamplingConfig, ShadingConfig
from vlmreward_3d.fields.base import Field, VolumeRepresentation
from vlmreward_3d.rendering.base import RegularizerWeights, Shader, Views
from vlmreward_3d.rendering.deferred import render_deferred, render_with_graph
from vlmreward_3d.rendering.evaluation import render_volume_images
from vlmreward_3d.rendering.occupancy import OccupancyGrid
from vlmreward_3d.rendering.shading import sample_shader
from vlmreward_3d.schedule import Schedule

__all__ = ["VolumeField"]

_OFF = Schedule.constant(0)
_PIXELS_PER_NODE = 8 / 3
"""More pixels than this per node of a volume show no more detail."""


class VolumeField(Field):
    """A field of a volume representation, with the occupancy grid and ray sampling to render it.

    Args:
        representation: Density and color, such as a `DenseGrid` or a `HashGrid`.
        occupancy: Record of occupied space, over the same box.
        rays: Sampling along rays in training; None for the defaults.
        shading: Shading in training; None for the volume's own colors.
        occupancy_interval: Steps between updates of the occupancy grid.
        orientation_weight: Weight of the orientation loss.
        emptiness_weight: Weight of the emptiness loss.
        emptiness_scale: Scale of the emptiness loss.
        tv_weight: Weight of the total variation, for representations that have one.

    Raises:
        ValueError: The representation and the occupancy grid have different boxes.
    """

    def __init__(
        self,
        representation: VolumeRepresentation,
        occupancy: OccupancyGrid,
        *,
        rays: RaySamplingConfig | None = None,
        shading: ShadingConfig | None = None,
        occupancy_interval: int = 8,
        orientation_weight: Schedule = _OFF,
        emptiness_weight: Schedule = _OFF,
        emptiness_scale: float = 10.0,
        tv_weight: Schedule = _OFF,
    ) -> None:
        super().__init__()
        if representation.bound != occupancy.bound:
            raise ValueError(
                f"received a representation with bound={representation.bound} and an occupancy "
                f"grid with bound={occupancy.bound}; expected the same box; change one of them"
            )
        self.representation = representation
        self.occupancy = occupancy
        self.rays = rays or RaySamplingConfig()
        self.shading = shading
        self.occupancy_interval = occupancy_interval
        self.orientation_weight = orientation_weight
        self.emptiness_weight = emptiness_weight
        self.emptiness_scale = emptiness_scale
        self.tv_weight = tv_weight

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameter groups of the representation."""
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
        if self.rays.rays_per_chunk is not None:
            render = partial(render_deferred, rays_per_chunk=self.rays.rays_per_chunk)
        return render(
            self.representation.bake(normals=normals or shader is not None),
            self.occupancy,
            cameras,
            resolution,
            n_samples=self.rays.samples_per_ray,
            background=self.representation.head.background(background),
            shader=shader,
            generator=generator,
        )

    @torch.no_grad()
    def render_images(
        self, cameras: Cameras, size: int, *, normals: bool = False, n_samples: int | None = None
    ) -> Iterator[Tensor]:
        """Render RGB on white without gradients. See `Field.render_images`."""
        yield from render_volume_images(
            self.representation.bake(normals=normals, rgb=True),
            self.occupancy,
            cameras,
            size,
            n_samples=n_samples or self.rays.samples_per_ray,
        )

    def sample_shader(
        self, cameras: Cameras, group_size: int, progress: float, generator: torch.Generator
    ) -> Shader | None:
        """Draw the shading of a step; None before shading starts. See `Field.sample_shader`."""
        if self.shading is None or progress < self.shading.start:
            return None
        return sample_shader(cameras.positions, self.shading.probabilities, group_size, generator)

    def regularizers(self, progress: float) -> RegularizerWeights:
        """Weights of the orientation and emptiness losses and the total variation.

        See `Field.regularizers`.
        """
        return RegularizerWeights(
            orientation=self.orientation_weight(progress),
            variation=self.tv_weight(progress),
            emptiness=self.emptiness_weight(progress),
            emptiness_scale=self.emptiness_scale,
        )

    def begin_step(self, step: int, generator: torch.Generator) -> None:
        """Update the occupancy grid at every `occupancy_interval`-th step."""
        if step % self.occupancy_interval == 0:
            self.update_occupancy(generator)

    def end_step(
        self, step: int, *, progress: float, optimizer: Optimizer, generator: torch.Generator
    ) -> tuple[str, ...]:
        """Change the rendered values if it is due, and then clear the optimizer's state.

        The reason to clear it: gradients of latents and of RGB differ in size. See
        `Field.end_step`.
        """
        event = self.representation.head.end_step(progress)
        if event is None:
            return ()
        optimizer.state.clear()
        return (f"step {step + 1}: {event}",)

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
            rays=self.rays,
            shading=self.shading,
            occupancy_interval=self.occupancy_interval,
            orientation_weight=self.orientation_weight,
            emptiness_weight=self.emptiness_weight,
            emptiness_scale=self.emptiness_scale,
            tv_weight=self.tv_weight,
        )
        other.update_occupancy()
        return other

    def render_size(self, size: int) -> int:
        """At most 8/3 pixels per node of the finest level."""
        return min(size, math.ceil(_PIXELS_PER_NODE * self.representation.resolution))
