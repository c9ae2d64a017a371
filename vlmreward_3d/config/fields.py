"""Settings of fields: one record for each kind of field."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from vlmreward_3d.config._checks import (
    BOOLEAN,
    FINITE,
    POSITIVE,
    WEIGHT,
    Rule,
    are,
    check,
    instance_of,
    is_whole,
    or_none,
    require,
    whole,
)
from vlmreward_3d.config.colors import LatentRenderingConfig, ShadingConfig
from vlmreward_3d.config.densification import DensificationConfig
from vlmreward_3d.config.sampling import OccupancyConfig, RaySamplingConfig
from vlmreward_3d.schedule import Schedule

__all__ = [
    "FIELDS",
    "DenseGridConfig",
    "FieldConfig",
    "GaussiansConfig",
    "HashGridConfig",
    "VolumeConfig",
]

_OFF = Schedule.constant(0)


@dataclass(frozen=True, kw_only=True)
class FieldConfig:
    """Settings of a field; each kind of field has a record of its own.

    A new kind of field has a subclass of this record and a registered builder; see
    `vlmreward_3d.fields.build_field`.

    Attributes:
        kind: Name of the kind in `config.json`.
    """

    kind: ClassVar[str] = ""

    @property
    def changes_at(self) -> tuple[float, ...]:
        """Values of progress at which the time of a step changes; none for most fields."""
        return ()

    @property
    def grows(self) -> bool:
        """True if the field's parameters change their shapes in a run."""
        return False

    @property
    def renders_latents(self) -> bool:
        """True if the field renders the denoiser's latents, at least in a part of the run."""
        return False

    @property
    def expires_gradients(self) -> str | None:
        """Cause, in words, that invalidates gradients of earlier steps; None without one."""
        return "a field that grows" if self.grows else None


@dataclass(frozen=True, kw_only=True)
class VolumeConfig(FieldConfig):
    """Settings of every field that is sampled along rays.

    Attributes:
        bound: Half the side of the field's box, world units.
        blob_density: Height of the initial blob in logits.
        blob_radius: Distance from the center at which the initial blob is zero, world units.
        density_bias: Constant added to the density's logit, beside the blob.
        density_scale: Factor of the density.
        rays: Sampling along rays.
        occupancy: Settings of the occupancy grid.
        shading: Random shading; None for the field's own colors.
        latents: Rendering of latents; None for RGB. Latents have no shading.
        orientation_weight: Weight of the orientation loss.
        emptiness_weight: Weight of the emptiness loss.
        emptiness_scale: Scale of the emptiness loss; see `vlmreward_3d.losses.emptiness_loss`.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    bound: float = 1.0
    blob_density: float = 10.0
    blob_radius: float = 0.5
    density_bias: float = 0.0
    density_scale: float = 1.0
    rays: RaySamplingConfig = dataclasses.field(default_factory=RaySamplingConfig)
    occupancy: OccupancyConfig = dataclasses.field(default_factory=OccupancyConfig)
    shading: ShadingConfig | None = None
    latents: LatentRenderingConfig | None = None
    orientation_weight: Schedule = _OFF
    emptiness_weight: Schedule = _OFF
    emptiness_scale: float = 10.0

    def __post_init__(self) -> None:
        check(
            self,
            bound=POSITIVE,
            blob_density=FINITE,
            blob_radius=POSITIVE,
            density_bias=FINITE,
            density_scale=POSITIVE,
            rays=instance_of(RaySamplingConfig),
            occupancy=instance_of(OccupancyConfig),
            shading=or_none(instance_of(ShadingConfig)),
            latents=or_none(instance_of(LatentRenderingConfig)),
            orientation_weight=WEIGHT,
            emptiness_weight=WEIGHT,
            emptiness_scale=POSITIVE,
        )
        plain = self.shading is None or self.latents is None
        require(plain, self, "shading", "None beside latents, which have no shading")

    @property
    def changes_at(self) -> tuple[float, ...]:
        """The progress at which shading or the refinement starts, if one does."""
        if self.latents is not None and self.latents.refine_at is not None:
            return (self.latents.refine_at,)
        return () if self.shading is None else (self.shading.start,)

    @property
    def renders_latents(self) -> bool:
        """True if there are `latents`."""
        return self.latents is not None

    @property
    def expires_gradients(self) -> str | None:
        """The refinement, if there is one."""
        if self.latents is None or self.latents.refine_at is None:
            return None
        return "field.latents.refine_at, which changes what is rendered"


@dataclass(frozen=True, kw_only=True)
class DenseGridConfig(VolumeConfig):
    """Settings of a field of dense grids, whose values are summed.

    Attributes:
        resolutions: Nodes per side of the levels, ascending.
        learned_gain: Multiply the density's logit by the exponential of one more parameter, as in
            score Jacobian chaining, so that the scale of all densities can change at once.
        tv_weight: Weight of the total variation.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    kind: ClassVar[str] = "dense_grid"

    resolutions: tuple[int, ...]
    learned_gain: bool = False
    tv_weight: Schedule = _OFF

    def __post_init__(self) -> None:
        super().__post_init__()
        ascending = Rule(
            lambda x: are(x, lambda side: is_whole(side, 2)) and list(x) == sorted(set(x)),
            "ascending whole numbers >= 2",
        )
        check(self, resolutions=ascending, learned_gain=BOOLEAN, tv_weight=WEIGHT)


@dataclass(frozen=True, kw_only=True)
class HashGridConfig(VolumeConfig):
    """Settings of a field of hash tables and a small network (Instant-NGP), for fine detail.

    Attributes:
        levels: Number of levels.
        resolution_range: Nodes per side of the first and the last level.
        table_size: Largest number of rows of a level's table, a power of two.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    kind: ClassVar[str] = "hash_grid"

    levels: int = 16
    resolution_range: tuple[int, int] = (16, 1024)
    table_size: int = 2**19

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self,
            levels=whole(2),
            resolution_range=Rule(
                lambda x: are(x, lambda side: is_whole(side, 2), 2) and x[0] < x[1],
                "two whole numbers, 2 <= first < last",
            ),
            table_size=Rule(lambda x: is_whole(x, 2) and x & (x - 1) == 0, "a power of two >= 2"),
        )


@dataclass(frozen=True, kw_only=True)
class GaussiansConfig(FieldConfig):
    """Settings of a field of 3D Gaussians.

    Attributes:
        n_gaussians: Number of Gaussians at the start, at least 4.
        radius: Radius of the ball that they begin as, world units.
        densification: Changes of the number of Gaussians in a run; None keeps it fixed.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    kind: ClassVar[str] = "gaussians"

    n_gaussians: int = 2000
    radius: float = 0.5
    densification: DensificationConfig | None = None

    def __post_init__(self) -> None:
        check(
            self,
            n_gaussians=whole(4),
            radius=POSITIVE,
            densification=or_none(instance_of(DensificationConfig)),
        )
        if self.densification is not None:
            most = self.densification.max_gaussians
            require(self.n_gaussians <= most, self, "n_gaussians", f"at most max_gaussians={most}")

    @property
    def grows(self) -> bool:
        """True if there is a densification."""
        return self.densification is not None

    @property
    def expires_gradients(self) -> str | None:
        """The densification, if there is one."""
        if self.densification is None:
            return None
        return "field.densification, which changes the shapes of the parameters"


FIELDS: dict[str, type[FieldConfig]] = {
    kind.kind: kind for kind in (DenseGridConfig, HashGridConfig, GaussiansConfig)
}
"""The records of fields by their kind."""
