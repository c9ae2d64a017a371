"""Settings of the cameras and of the background of training views."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vlmreward_3d.config._checks import (
    COUNT,
    COUNT_STEPS,
    Rule,
    are,
    check,
    ends,
    is_number,
    one_of,
    or_none,
    require,
)
from vlmreward_3d.schedule import Schedule

__all__ = ["BACKGROUNDS", "ELEVATIONS", "PROJECTIONS", "CameraConfig"]

BACKGROUNDS = ("color", "gray", "mid-gray", "black-or-white", "white")
ELEVATIONS = ("uniform", "mvdream", "threestudio")
"""Distributions of the elevation; see `vlmreward_3d.cameras.sample_groups`."""
PROJECTIONS = ("perspective", "orthographic")
"""Projections; see `vlmreward_3d.cameras.Cameras`."""

_ONE_GROUP, _RESOLUTION = Schedule.constant(1), Schedule.constant(64)


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """Settings of the views that are rendered in a training step.

    Attributes:
        n_groups: Number of independent groups of views, a schedule of steps.
        views_per_group: Number of views in a group; the denoiser's group size.
        azimuth_deg: Azimuths of the views of every group, degrees; None for evenly spaced azimuths
            with a random start.
        resolution: Height and width of the rendered images in pixels, a schedule of steps.
        fov_deg: Lowest and highest field of view, degrees.
        elevation_deg: Lowest and highest elevation, degrees.
        elevations: Distribution of the elevation, one of `ELEVATIONS`.
        object_radius: Lowest and highest radius r of the ball that fills the picture, world units;
            the camera's distance is r / tan(fov / 2).
        projection: Projection, one of `PROJECTIONS`; an orthographic picture has the half height r.
        background: Color behind the object, one for all views of a group: "color" (any), "gray" (a
            level of at least 0.1), "mid-gray" (0.5), "black-or-white" (one or the other) or
            "white".

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    n_groups: Schedule = _ONE_GROUP
    views_per_group: int = 4
    azimuth_deg: tuple[float, ...] | None = None
    resolution: Schedule = _RESOLUTION
    fov_deg: tuple[float, float]
    elevation_deg: tuple[float, float]
    elevations: str = "uniform"
    object_radius: tuple[float, float]
    projection: str = "perspective"
    background: str = "color"

    def __post_init__(self) -> None:
        check(
            self,
            n_groups=COUNT_STEPS,
            views_per_group=COUNT,
            resolution=COUNT_STEPS,
            fov_deg=ends("0 < lowest <= highest < 180", lambda low, high: low > 0 and high < 180),
            elevation_deg=ends(
                "-90 <= lowest <= highest <= 90", lambda low, high: low >= -90 and high <= 90
            ),
            elevations=one_of(ELEVATIONS),
            object_radius=ends("0 < lowest <= highest", lambda low, high: 0 < low < math.inf),
            azimuth_deg=or_none(Rule(lambda x: are(x, is_number), "a tuple of finite numbers")),
            projection=one_of(PROJECTIONS),
            background=one_of(BACKGROUNDS),
        )
        fitting = self.azimuth_deg is None or len(self.azimuth_deg) == self.views_per_group
        require(fitting, self, "azimuth_deg", f"{self.views_per_group} azimuths, one a view")
