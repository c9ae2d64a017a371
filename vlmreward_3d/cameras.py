"""Cameras in MVDream's convention: z up, camera-to-world columns [right, up, -forward].

Azimuth 0 puts the camera on the +x axis, looking at the origin; azimuth grows counter-clockwise
seen from above. Angles are degrees in every public function; `Cameras.fov` is in radians.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vlmreward.utils.arguments import interval, number, whole
from vlmreward_3d.config.camera import ELEVATIONS, PROJECTIONS

__all__ = ["Cameras", "look_at", "orbit", "sample_groups"]


@dataclass(frozen=True)
class Cameras:
    """N cameras with square pixels and a centered principal point.

    Attributes:
        c2w: (N, 4, 4) float camera-to-world matrices, columns [right, up, -forward, position].
        fov: (N,) vertical fields of view in radians. An orthographic picture has the half height
            that a pinhole camera of this field of view sees at the origin's distance,
            |position| tan(fov / 2).
        projection: One of `PROJECTIONS`: "perspective" (a pinhole) or "orthographic" (parallel
            rays).
    """

    c2w: Tensor
    fov: Tensor
    projection: str = "perspective"

    def __post_init__(self) -> None:
        if not (isinstance(self.c2w, Tensor) and isinstance(self.fov, Tensor)):
            raise TypeError(
                f"received c2w and fov of types {type(self.c2w).__name__} and "
                f"{type(self.fov).__name__}; expected two tensors"
            )
        if self.c2w.ndim != 3 or self.c2w.shape[1:] != (4, 4) or self.fov.shape != (len(self.c2w),):
            raise ValueError(
                f"received c2w {tuple(self.c2w.shape)} and fov {tuple(self.fov.shape)}; "
                "expected (N, 4, 4) and (N,); stack one matrix and one angle per camera"
            )
        if self.projection not in PROJECTIONS:
            raise ValueError(
                f"received projection={self.projection!r}; expected one of {PROJECTIONS}"
            )

    def __len__(self) -> int:
        return len(self.c2w)

    def __getitem__(self, index: slice | Tensor | Sequence[int]) -> Cameras:
        return replace(self, c2w=self.c2w[index], fov=self.fov[index])

    def to(self, *args: Any, **kwargs: Any) -> Cameras:
        """Move both tensors, with the arguments of `torch.Tensor.to`."""
        return replace(self, c2w=self.c2w.to(*args, **kwargs), fov=self.fov.to(*args, **kwargs))

    @property
    def positions(self) -> Tensor:
        """(N, 3) camera centers in the world."""
        return self.c2w[:, :3, 3]

    @property
    def half_heights(self) -> Tensor:
        """(N,) half the height of the view at the distance of the origin, world units."""
        return self.positions.norm(dim=-1) * torch.tan(self.fov / 2)

    def angles(self) -> Tensor:
        """(N, 2) azimuth in (-180, 180] and elevation in degrees of cameras that face the origin.

        The inverse of `orbit`.
        """
        x, y, z = torch.nn.functional.normalize(self.positions, dim=-1).unbind(-1)
        return torch.rad2deg(torch.stack([torch.atan2(y, x), torch.asin(z.clamp(-1, 1))], dim=-1))

    def rays(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Rays through the pixel centers (at +0.5).

        Args:
            height: Rows of the image, the top one first.
            width: Columns, the left one first.

        Returns:
            Origins and unit directions in the world, both (N, height, width, 3), in the dtype and
            on the device of `c2w`. Differentiable to `c2w` and `fov`.

        Raises:
            TypeError, ValueError: A side is no whole number >= 1.
        """
        whole("height", height)
        whole("width", width)
        row = (torch.arange(height).to(self.c2w) + 0.5 - height / 2) * (2 / height)
        column = (torch.arange(width).to(self.c2w) + 0.5 - width / 2) * (2 / height)
        down, right = torch.meshgrid(row, column, indexing="ij")
        plane = torch.stack([right, -down, torch.zeros_like(right)], dim=-1)
        backward = torch.zeros_like(plane)
        backward[..., 2] = 1
        if self.projection == "orthographic":
            offsets = self._in_world(self.half_heights[:, None, None, None] * plane)
            directions = self._in_world(-backward.expand_as(offsets))
            return self.positions[:, None, None] + offsets, directions
        slope = torch.tan(self.fov / 2)[:, None, None, None]
        directions = self._in_world(slope * plane - backward)
        directions = torch.nn.functional.normalize(directions, dim=-1)
        return self.positions[:, None, None].expand_as(directions), directions

    def _in_world(self, local: Tensor) -> Tensor:
        """Vectors (N, H, W, 3) along the cameras' axes as vectors of the world."""
        return torch.einsum("nij,nhwj->nhwi", self.c2w[:, :3, :3], local)

    def condition(self) -> Tensor:
        """The (N, 16) camera condition of MVDream: c2w, row by row, the position at unit length."""
        matrix = self.c2w.clone()
        matrix[:, :3, 3] = torch.nn.functional.normalize(self.positions, dim=-1)
        return matrix.flatten(1)

    @staticmethod
    def turntable(
        n: int,
        elevation: float = 15.0,
        distance: float = 3.0,
        fov: float = 40.0,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Cameras:
        """`n` cameras on one circle, azimuth 0 first; angles in degrees, as `orbit` takes them."""
        whole("n", n)
        azimuth = torch.arange(n, dtype=dtype, device=device) * (360 / n)
        return orbit(azimuth, elevation, distance, fov)


def look_at(
    eye: Tensor,
    target: Tensor | Sequence[float] = (0.0, 0.0, 0.0),
    up: Tensor | Sequence[float] = (0.0, 0.0, 1.0),
) -> Tensor:
    """Camera-to-world matrices of cameras at `eye` that look at `target`.

    Args:
        eye: (N, 3) positions.
        target: (3,) or (N, 3) points to look at, different from `eye`.
        up: (3,) direction that is up in the image; where it is parallel to the view, +x is.

    Returns:
        (N, 4, 4), columns [right, up, -forward, position], in the dtype and device of `eye`.

    Raises:
        ValueError: `eye` is not (N, 3).
    """
    if eye.ndim != 2 or eye.shape[1] != 3:
        raise ValueError(f"received eye of shape {tuple(eye.shape)}; expected (N, 3)")
    target = torch.as_tensor(target, dtype=eye.dtype, device=eye.device).expand_as(eye)
    upward = torch.as_tensor(up, dtype=eye.dtype, device=eye.device).expand_as(eye)
    backward = torch.nn.functional.normalize(eye - target, dim=-1)
    right = torch.linalg.cross(upward, backward)
    parallel = right.norm(dim=-1, keepdim=True) < 1e-6 * upward.norm(dim=-1, keepdim=True)
    aside = torch.zeros_like(eye)
    aside[:, 0] = 1
    right = torch.where(parallel, torch.linalg.cross(aside, backward), right)
    right = torch.nn.functional.normalize(right, dim=-1)
    c2w = torch.zeros(len(eye), 4, 4, dtype=eye.dtype, device=eye.device)
    columns = [right, torch.linalg.cross(backward, right), backward, eye]
    c2w[:, :3] = torch.stack(columns, dim=-1)
    c2w[:, 3, 3] = 1
    return c2w


def orbit(
    azimuth: Tensor | float,
    elevation: Tensor | float,
    distance: Tensor | float,
    fov: Tensor | float,
    *,
    projection: str = "perspective",
) -> Cameras:
    """Cameras on spheres around the origin that look at the origin.

    Args:
        azimuth: Degrees, scalar or (N,); 0 is +x, 90 is +y.
        elevation: Degrees above the horizon, scalar or (N,).
        distance: World units from the origin, scalar or (N,).
        fov: Vertical field of view in degrees, scalar or (N,).
        projection: One of `PROJECTIONS`; see `Cameras`.

    Returns:
        N cameras, in the dtype and on the device of the first (N,) float tensor (float32 without).

    Raises:
        TypeError, ValueError: A number, other than those in tensors, is none or out of range.
    """
    limits = {
        "azimuth": (azimuth, {}),
        "elevation": (elevation, {"least": -90, "most": 90}),
        "distance": (distance, {"above": 0}),
        "fov": (fov, {"above": 0, "below": 180}),
    }
    for name, (value, bounds) in limits.items():
        if not isinstance(value, Tensor):  # whose values a GPU would be waited for
            number(name, value, **bounds)
    numbers = [torch.as_tensor(x) for x in (azimuth, elevation, distance, fov)]
    like = next((x for x in numbers if x.ndim and x.is_floating_point()), torch.zeros(()))
    parts = [x.to(like) for x in numbers]
    around, above, radius, angle = torch.broadcast_tensors(*(x.reshape(-1) for x in parts))
    around, above, angle = torch.deg2rad(around), torch.deg2rad(above), torch.deg2rad(angle)
    outward = torch.stack(
        [above.cos() * around.cos(), above.cos() * around.sin(), above.sin()], dim=-1
    )
    return Cameras(look_at(radius[:, None] * outward), angle.clone(), projection)


def sample_groups(
    n_groups: int,
    views_per_group: int,
    *,
    fov_deg: tuple[float, float],
    elevation_deg: tuple[float, float],
    object_radius: tuple[float, float],
    elevations: str = "uniform",
    azimuth_deg: Sequence[float] | None = None,
    projection: str = "perspective",
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Cameras:
    """Random groups of equally spaced views, as MVDream was trained on, or of fixed azimuths.

    Within a group the views share elevation, field of view and distance; view i has the azimuth
    360 (u + i) / n - 180 with one u ~ U(0, 1) per group, unless the azimuths are given. The
    distance is r / tan(fov / 2), so that a ball of radius r just fills the picture whatever the
    field of view; the half height of an orthographic picture is r.

    Args:
        n_groups: Number of independent groups.
        views_per_group: Number of views in each group.
        fov_deg: Range of the uniform field of view, degrees.
        elevation_deg: Range (lo, hi) of the elevation, degrees.
        object_radius: Range of the uniform r, world units.
        elevations: One of `ELEVATIONS`: "uniform" in degrees; or, in half of the calls, the sine is
            uniform, from lo / 90 to hi / 90 in "mvdream" (MVDream-threestudio: of 0 to 30 degrees
            0 to 19.5, mean 9.6) and from sin(lo) to sin(hi) in "threestudio" (uniform in area).
        azimuth_deg: Azimuths of the views of every group, degrees; None for the random ones.
        projection: One of `PROJECTIONS`; see `Cameras`.
        generator: Source of the draws; they are made on its device (CPU by default).
        dtype: Dtype of the cameras.
        device: Device of the cameras.

    Returns:
        n_groups * views_per_group cameras, group by group.

    Raises:
        TypeError: A number of groups or views is not whole, or a range is not a pair of numbers.
        ValueError: One of them is out of bounds, `elevations` is none of the three, or there is
            not one azimuth a view.
    """
    whole("n_groups", n_groups)
    whole("views_per_group", views_per_group)
    interval("fov_deg", fov_deg, above=0, below=180)
    interval("elevation_deg", elevation_deg, least=-90, most=90)
    interval("object_radius", object_radius, above=0)
    if elevations not in ELEVATIONS:
        raise ValueError(f"received elevations={elevations!r}; expected one of {ELEVATIONS}")
    where = generator.device if generator is not None else torch.device("cpu")
    draws = torch.rand(4, n_groups, generator=generator, device=where, dtype=dtype).to(device)

    def uniform(index: int, bounds: tuple[float, float]) -> Tensor:
        return bounds[0] + (bounds[1] - bounds[0]) * draws[index]

    elevation, fov = uniform(1, elevation_deg), uniform(2, fov_deg)
    radius = uniform(3, object_radius)
    if elevations != "uniform" and torch.rand((), generator=generator, device=where) < 0.5:
        lo, hi = (
            x / 90 if elevations == "mvdream" else math.sin(math.radians(x)) for x in elevation_deg
        )
        elevation = torch.rad2deg(torch.asin(uniform(1, (lo, hi))))
    view = torch.arange(views_per_group, dtype=dtype, device=device)
    azimuth = 360 * (draws[0, :, None] + view) / views_per_group - 180
    if azimuth_deg is not None:
        if len(azimuth_deg) != views_per_group:
            raise ValueError(
                f"received {len(azimuth_deg)} azimuths for groups of {views_per_group} views; "
                "expected one a view"
            )
        azimuth = azimuth.new_tensor(azimuth_deg).expand_as(azimuth)
    distance = radius / torch.tan(fov * (math.pi / 360))
    return orbit(
        azimuth.flatten(),
        elevation.repeat_interleave(views_per_group),
        distance.repeat_interleave(views_per_group),
        fov.repeat_interleave(views_per_group),
        projection=projection,
    )
