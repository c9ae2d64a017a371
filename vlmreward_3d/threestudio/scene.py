"""The scene of a threestudio configuration: cameras, geometry, material, background, renderer."""

from __future__ import annotations

import math
from typing import Any

from vlmreward_3d.config import (
    CameraConfig,
    DenseGridConfig,
    FieldConfig,
    HashGridConfig,
    LatentRenderingConfig,
    OccupancyConfig,
    RaySamplingConfig,
    ShadingConfig,
)
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.threestudio.settings import Settings

__all__ = ["camera_of", "field_of"]

_SINGLE = "random-camera-datamodule"
_MULTI = "mvdream-random-multiview-camera-datamodule"
_GEOMETRIES = ("implicit-volume", "volume-grid")
_SAMPLES = 96
"""Samples on a ray in occupied space, in place of 512 along the whole ray, as in the presets."""
_SAMPLES_OF_SJC = 300
"""Samples on a ray if the emptiness loss is a mean over samples, as in the preset `sjc`."""


def camera_of(settings: Settings, steps: int, changed: list[str]) -> CameraConfig:
    """Settings of the cameras, with the color of the background.

    Raises:
        ValueError: A data module without a counterpart.
    """
    kind = settings.values.get("data_type")
    if kind not in (_SINGLE, _MULTI):
        raise ValueError(
            f"received data_type={kind!r}, which has no counterpart; expected {_SINGLE!r} or "
            f"{_MULTI!r}: random cameras"
        )
    at = settings.take("data.resolution_milestones", [])
    views = int(settings.number("data.n_view", 4)) if kind == _MULTI else 1
    batch = settings.milestones("data.batch_size", 1 if kind == _SINGLE else views, at, steps)
    if any(size % views for _, size in batch.points):
        raise ValueError(
            f"received data.batch_size of {batch}; expected multiples of data.n_view={views}"
        )
    width, height = (settings.values.get(f"data.{side}", 64) for side in ("width", "height"))
    if width != height:
        changed.append(f"data.width = {width!r}: {height!r}, as pictures are square")
    fov = settings.pair("data.fovy_range", (40.0, 70.0) if kind == _SINGLE else (15.0, 60.0))
    elevation = settings.pair("data.elevation_range", (-10.0, 90.0))
    return CameraConfig(
        n_groups=Schedule(tuple((p, size // views) for p, size in batch.points)),
        views_per_group=views,
        resolution=settings.milestones("data.height", 64, at, steps),
        fov_deg=fov,
        elevation_deg=elevation,
        elevations="threestudio" if kind == _SINGLE else "mvdream",
        object_radius=_radius(settings, fov, kind == _MULTI, changed),
        background=_background(settings, changed),
    )


def _radius(
    settings: Settings, fov: tuple[float, float], multi: bool, changed: list[str]
) -> tuple[float, float]:
    near, far = settings.pair("data.camera_distance_range", (1.0, 1.5))
    for name, default in (("camera", 0.1), ("center", 0.2), ("up", 0.02)):
        if not multi and f"data.{name}_perturb" not in settings.values:
            changed.append(f"data.{name}_perturb = {default} (threestudio's default): 0")
    if settings.values.get("data.batch_uniform_azimuth") is True:
        settings.take("data.batch_uniform_azimuth")
    if multi and settings.take("data.relative_radius", default=True):
        return near, far
    middle = math.tan(math.radians(sum(fov) / 4))
    radii = round(near * middle, 4), round(far * middle, 4)
    changed.append(
        f"data.camera_distance_range = [{near:g}, {far:g}]: distances at which a ball of radius "
        f"{radii[0]:g} to {radii[1]:g} fills the picture, whatever the field of view"
    )
    return radii


def _background(settings: Settings, changed: list[str]) -> str:
    kind = settings.values.get("system.background_type", "solid-color-background")
    color = settings.take("system.background.color", [1.0, 1.0, 1.0])
    settings.skip(r"system\.background\.(color_activation|random_aug.*|share_aug_bg|n_output_dims)")
    settings.skip(r"system\.(background\.(height|width)|optimizer\.params\.background\.lr)")
    if kind == "solid-color-background" and all(x == 1 for x in color):
        return "white"
    changed.append(f"system.background_type = {kind!r}: one random color for each group of views")
    return "color"


def field_of(settings: Settings, steps: int, changed: list[str]) -> FieldConfig:
    """Settings of the field, with its shading and its sampling.

    Raises:
        ValueError: A geometry without a counterpart.
    """
    kind = settings.values.get("system.geometry_type")
    if kind not in _GEOMETRIES:
        raise ValueError(
            f"received geometry_type={kind!r}, which has no counterpart; expected one of "
            f"{_GEOMETRIES}"
        )
    shared = _volume(settings, steps, changed)
    if kind == "volume-grid":
        # where it has no blob, its logits are multiplied by the exponential of a parameter
        gain = "density_bias" in shared
        levels = _levels(settings, changed, one=gain)
        return DenseGridConfig(resolutions=levels, learned_gain=gain, **shared)
    return HashGridConfig(**_tables(settings), **shared)


def _volume(settings: Settings, steps: int, changed: list[str]) -> dict[str, Any]:
    """Settings that all kinds of volumes have."""
    where = "system.geometry"
    bound = float(settings.number(f"{where}.radius", 1.0))
    settings.skip(rf"{where}\.(normal_type|isosurface.*|mlp_network_config\..*)")
    blob = _blob(settings, changed)
    emptiness = settings.schedule("system.loss.lambda_emptiness", 0, steps)
    most = _SAMPLES_OF_SJC if any(weight for _, weight in emptiness.points) else _SAMPLES
    samples = int(settings.number("system.renderer.num_samples_per_ray", 512))
    if samples > most:
        changed.append(
            f"system.renderer.num_samples_per_ray = {samples}: {most} within what is occupied"
        )
    prunes = settings.take("system.renderer.grid_prune", default=True)
    settings.skip(r"system\.renderer\.(radius|randomized|return_.*)")
    return {
        "bound": bound,
        **blob,
        "rays": RaySamplingConfig(samples_per_ray=min(samples, most), rays_per_chunk=16384),
        "occupancy": OccupancyConfig(resolution=64, threshold=0.01 if prunes else 0.0),
        "shading": _shading(settings, steps, changed),
        "latents": _latents(settings, changed),
        "orientation_weight": settings.schedule("system.loss.lambda_orient", 0, steps),
        "emptiness_weight": emptiness,
        "emptiness_scale": float(settings.number("system.loss.emptiness_scale", 10.0)),
    }


def _blob(settings: Settings, changed: list[str]) -> dict[str, float]:
    where = "system.geometry"
    bias = settings.take(f"{where}.density_bias", "blob_magic3d")
    activation = settings.take(f"{where}.density_activation", "softplus")
    height = float(settings.number(f"{where}.density_blob_scale", 10.0))
    width = float(settings.number(f"{where}.density_blob_std", 0.5))
    if activation != "softplus":
        changed.append(f"{where}.density_activation = {activation!r}: softplus")
    if isinstance(bias, (int, float)) and not isinstance(bias, bool):
        return {"blob_density": 0.0, "density_bias": float(bias)}
    if bias != "blob_magic3d":
        changed.append(f"{where}.density_bias = {bias!r}: the linear blob of Magic3D")
    return {"blob_density": height, "blob_radius": width}


def _shading(settings: Settings, steps: int, changed: list[str]) -> ShadingConfig | None:
    kind, where = settings.values.get("system.material_type"), "system.material"
    settings.skip(rf"{where}\.(albedo_activation|color_activation)")
    if kind != "diffuse-with-point-light-material":
        if kind != "no-material":
            changed.append(f"system.material_type = {kind!r}: the field's own colors")
        settings.skip(r"data\.light_.*")
        return None
    diffuse = float(settings.number(f"{where}.diffuse_prob", 0.75))
    textureless = float(settings.number(f"{where}.textureless_prob", 0.5))
    if not settings.take(f"{where}.soft_shading", default=False):
        changed.append(f"{where}.soft_shading = False: shading of random strength")
    else:  # whose strength is drawn anew in place of these colors
        settings.skip(rf"{where}\.(ambient|diffuse)_light_color")
    if settings.values.get("data.light_sample_strategy") == "dreamfusion":
        settings.take("data.light_sample_strategy")
    start = settings.number(f"{where}.ambient_only_steps", 1000) / steps
    parts = (1 - diffuse, diffuse * textureless, diffuse * (1 - textureless))
    return ShadingConfig(probabilities=parts, start=min(start, 1.0))


def _latents(settings: Settings, changed: list[str]) -> LatentRenderingConfig | None:
    """Settings of rendering latents, for SJC's four channels without an activation."""
    channels = settings.take("system.material.n_output_dims", 3)
    if channels == 3:
        return None
    settings.skip(r"system\.geometry\.n_feature_dims")
    if channels == 4 and settings.values.get("system_type") == "sjc-system":
        return LatentRenderingConfig()
    changed.append(f"system.material.n_output_dims = {channels}: RGB, which is encoded to latents")
    return None


def _tables(settings: Settings) -> dict[str, Any]:
    """The hash tables, from `pos_encoding_config`."""
    where = "system.geometry.pos_encoding_config"
    settings.skip(rf"{where}\.otype")
    levels = int(settings.number(f"{where}.n_levels", 16))
    base = int(settings.number(f"{where}.base_resolution", 16))
    scale = float(settings.number(f"{where}.per_level_scale", 1.447269237440378))
    if settings.values.get(f"{where}.n_features_per_level") == 2:
        settings.take(f"{where}.n_features_per_level")
    return {
        "levels": levels,
        "resolution_range": (base, round(base * scale ** (levels - 1))),
        "table_size": 2 ** int(settings.number(f"{where}.log2_hashmap_size", 19)),
    }


def _levels(settings: Settings, changed: list[str], *, one: bool) -> tuple[int, ...]:
    """The file's grid, or dense grids up to it, each half as fine as the next."""
    size = settings.take("system.geometry.grid_size", [100, 100, 100])
    if one and len(set(size)) == 1:
        return (size[0],)
    sides = sorted({max(2, round(max(size) / 2**i)) for i in range(5)})
    changed.append(f"system.geometry.grid_size = {size!r}: grids of {sides} nodes, added up")
    return tuple(sides)
