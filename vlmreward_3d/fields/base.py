"""The interface of fields, and that of the representations behind ray-sampled fields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.fields.color_heads import ColorHead
from vlmreward_3d.rendering.base import BakedField, RegularizerWeights, Shader, Views

__all__ = ["Field", "VolumeRepresentation"]


class Field(nn.Module, ABC):
    """Base of radiance fields, which render themselves.

    The training loop, the viewer and the exporters use only these methods. `state_dict()` holds
    everything that a later step depends on.
    """

    @abstractmethod
    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """All parameters in groups, each with the factor of its learning rate."""

    @abstractmethod
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
        """Render the views of a training step.

        Args:
            cameras: N cameras, on the field's device.
            resolution: Height and width of the images in pixels.
            background: (N, 3) colors in [0, 1], also where latents are rendered.
            generator: CPU source of the samples' positions.
            shader: Shader from `sample_shader`; None for the field's own colors.
            normals: True if an orientation loss is to be taken in `Views.backward`.

        Returns:
            The views; `Views.backward` differentiates to the field's parameters.
        """

    @abstractmethod
    def render_images(
        self, cameras: Cameras, size: int, *, normals: bool = False, n_samples: int | None = None
    ) -> Iterator[Tensor]:
        """Render RGB on white without gradients.

        Args:
            cameras: N cameras, on the field's device.
            size: Height and width in pixels.
            normals: If True, add the world-space normals, as colors, below the image.
            n_samples: Samples on each ray, for fields sampled along rays; as many as in training
                if not given.

        Yields:
            For each camera an image (3, size or 2 * size, size) in [0, 1].
        """

    def sample_shader(
        self, cameras: Cameras, group_size: int, progress: float, generator: torch.Generator
    ) -> Shader | None:
        """Draw the shading of a training step; None for a field that is not shaded.

        Args:
            cameras: The step's cameras, group by group.
            group_size: Views in a group.
            progress: Share of the run that is done, in [0, 1].
            generator: CPU source of the shading and the lights.
        """
        return None

    def regularizers(self, progress: float) -> RegularizerWeights:
        """Weights of the regularizers that only this kind of field has; none unless overridden.

        Args:
            progress: Share of the run that is done, in [0, 1].
        """
        return RegularizerWeights()

    def begin_step(self, step: int, generator: torch.Generator) -> None:
        """Update the state of the field beside its parameters, before the random draws of a step.

        Args:
            step: Steps done before this one.
            generator: CPU source of random numbers.
        """
        return None

    def end_step(
        self, step: int, *, progress: float, optimizer: Optimizer, generator: torch.Generator
    ) -> tuple[str, ...]:
        """Change the structure of the field, after a step has changed its parameters.

        A field that replaces parameters by others of another shape replaces them in the optimizer
        too; the attribute `grows` of its configuration is True.

        Args:
            step: Steps done before this one.
            progress: Share of the run that is done with this step, in (0, 1].
            optimizer: Optimizer of the field's parameters.
            generator: CPU source of random numbers.

        Returns:
            Sentences about the changes, for the run's log; none if nothing has changed.
        """
        return ()

    def metrics(self) -> dict[str, float]:
        """Numbers for the run's log, by name; none unless overridden."""
        return {}

    def update_occupancy(self, generator: torch.Generator | None = None) -> None:
        """Update the record of occupied space, if the field has one.

        Args:
            generator: CPU source of the sampled points; None for fixed points.
        """
        return None

    @property
    def occupancy_fraction(self) -> float:
        """Share of the field's box that is occupied; 1 for a field that does not record it."""
        return 1.0

    def for_evaluation(self) -> Field:
        """A field with the same parameters and an up-to-date occupancy; this one is unchanged."""
        return self

    def render_size(self, size: int) -> int:
        """Side in pixels at which to render an image that is shown at `size` pixels.

        It is smaller than `size` if more pixels would show no more detail.
        """
        return size


class VolumeRepresentation(nn.Module, ABC):
    """Base of representations of density and color in a box [-bound, bound]^3.

    Attributes:
        bound: Half the side of the box, world units.
        head: Color head, from features to rendered values.
    """

    bound: float
    head: ColorHead

    @property
    @abstractmethod
    def resolution(self) -> int:
        """Nodes per side of the finest level."""

    @abstractmethod
    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """All parameters in groups, each with the factor of its learning rate."""

    @abstractmethod
    def bake(self, *, normals: bool = False, rgb: bool = False) -> BakedField:
        """Precompute everything that does not depend on the query points.

        Args:
            normals: If True, queries return normals too.
            rgb: If True, queries return RGB in any case, beyond [0, 1] too where it is decoded from
                latents; otherwise what training renders now.

        Returns:
            The baked field; differentiable to the parameters.
        """
