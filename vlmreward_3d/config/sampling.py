"""Settings of the samples along rays and of the occupancy grid."""

from __future__ import annotations

from dataclasses import dataclass

from vlmreward_3d.config._checks import COUNT, COUNT_OR_NONE, SHARE, check

__all__ = ["OccupancyConfig", "RaySamplingConfig"]


@dataclass(frozen=True, kw_only=True)
class RaySamplingConfig:
    """Settings of the samples of a field along rays in training.

    Attributes:
        samples_per_ray: Samples on a ray through occupied space.
        rays_per_chunk: Number of rays rendered together in deferred back-propagation, which renders
            all rays twice and needs the memory of one chunk; None renders all rays of a step at
            once and keeps their graph.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    samples_per_ray: int = 64
    rays_per_chunk: int | None = None

    def __post_init__(self) -> None:
        check(self, samples_per_ray=COUNT, rays_per_chunk=COUNT_OR_NONE)


@dataclass(frozen=True, kw_only=True)
class OccupancyConfig:
    """Settings of the occupancy grid, the record of the space in which a field is not empty.

    Attributes:
        resolution: Cells per side.
        threshold: Opacity of a ray's path through a cell under which the cell is empty, in [0, 1].
        decay: Factor of a cell's former peak density at each update, in [0, 1].
        interval: Steps between updates.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    resolution: int = 32
    threshold: float = 0.01
    decay: float = 0.8
    interval: int = 8

    def __post_init__(self) -> None:
        check(self, resolution=COUNT, threshold=SHARE, decay=SHARE, interval=COUNT)
