"""Pictures, a turntable and a mesh of a finished field; every file appears whole or not at all."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.field import PyramidField
from vlmreward_3d.files import replacing, write_atomically
from vlmreward_3d.render import render_rays
from vlmreward_3d.sampler import OccupancyGrid
from vlmreward_3d.vlm3d import VLM3D, StepReport

__all__ = [
    "evaluation_cameras",
    "export_all",
    "look",
    "save_curves",
    "save_mesh",
    "save_turntable",
    "save_views",
]


def evaluation_cameras(config: VLM3DConfig, n: int) -> Cameras:
    """`n` cameras around the object at 15 degrees elevation, as far away as in training."""
    fov = sum(config.fov_deg) / 2
    distance = sum(config.scale) / 2 / math.tan(math.radians(fov) / 2)
    return Cameras.turntable(n, elevation=15.0, distance=distance, fov=fov)


@torch.no_grad()
def look(
    field: PyramidField,
    grid: OccupancyGrid,
    cameras: Cameras,
    size: int,
    *,
    n_samples: int = 96,
    chunk: int = 32768,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Render without gradients on white, `chunk` rays at a time.

    Args:
        field: What to look at.
        grid: Its occupancy.
        cameras: N cameras, on the field's device.
        size: Height and width in pixels.
        n_samples: Samples per ray.
        chunk: Rays that are rendered together; bounds the memory.

    Yields:
        For each camera the colours and the normals as colours, (3, size, size) in [0, 1].
    """
    baked = field.bake(normals=True)
    white = baked.logits.new_ones(3)
    for index in range(len(cameras)):
        rays = cameras[index : index + 1].rays(size, size)
        colors, normals = [], []
        parts = zip(*(x.reshape(-1, 3).split(chunk) for x in rays))
        for origins, directions in parts:
            seen = render_rays(
                baked, grid, origins, directions, n_samples=n_samples, background=white
            )
            colors.append(seen.rgb.clamp(0, 1))
            assert seen.normals is not None  # baked with them
            shown = (seen.normals + 1) / 2
            normals.append(shown * seen.opacity + white * (1 - seen.opacity))
        yield tuple(  # type: ignore[misc]
            torch.cat(x).view(size, size, 3).permute(2, 0, 1) for x in (colors, normals)
        )


def _bytes(image: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 from (3, H, W) in [0, 1]."""
    return (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def save_views(
    path: Path, field: PyramidField, grid: OccupancyGrid, cameras: Cameras, size: int = 256
) -> None:
    """A PNG with a column per camera: colours above, world-space normals below."""
    pairs = list(look(field, grid, cameras, size))
    rows = [torch.cat([pair[row] for pair in pairs], dim=2) for row in (0, 1)]
    write_atomically(path, iio.imwrite("<bytes>", _bytes(torch.cat(rows, 1)), extension=".png"))


def save_turntable(
    folder: Path,
    field: PyramidField,
    grid: OccupancyGrid,
    cameras: Cameras,
    size: int = 192,
    fps: int = 20,
) -> Path:
    """The cameras' pictures as `turntable.mp4`, or `turntable.gif` where there is no encoder.

    Returns:
        The file.
    """
    frames = [_bytes(colors) for colors, _ in look(field, grid, cameras, size)]
    try:
        return _write_mp4(folder / "turntable.mp4", frames, fps)
    except (ImportError, RuntimeError, OSError):
        # imageio-ffmpeg is absent or has no binary for this machine
        path = folder / "turntable.gif"
        data = iio.imwrite(
            "<bytes>", np.stack(frames), extension=".gif", duration=1000 / fps, loop=0
        )
        write_atomically(path, data)
        return path


def _write_mp4(path: Path, frames: Sequence[np.ndarray], fps: int) -> Path:
    import imageio_ffmpeg

    height, width, _ = frames[0].shape
    with replacing(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            str(temporary), (width, height), fps=fps, quality=8, macro_block_size=2
        )
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
    return path


@torch.no_grad()
def save_mesh(
    path: Path,
    field: PyramidField,
    *,
    resolution: int = 96,
    level: float | None = None,
    chunk: int = 262144,
) -> None:
    """The surface of equal density as a GLB with vertex colours, closed and y up (glTF).

    Cavities that are closed on all sides are filled: no view has ever seen them.

    Args:
        path: The .glb file.
        field: What to mesh.
        resolution: Nodes per side.
        level: Density of the surface; by default the one that dims a ray by half over one spacing
            of nodes, or half of the highest density where that is less.
        chunk: Points that are asked at once.

    Raises:
        ValueError: There is no density anywhere.
    """
    import trimesh
    from scipy.ndimage import binary_fill_holes
    from skimage.measure import marching_cubes

    baked = field.bake()
    axis = torch.linspace(-field.bound, field.bound, resolution, device=baked.logits.device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
    density = torch.cat([baked.density(p) for p in points.split(chunk)])
    volume = density.view(resolution, resolution, resolution).cpu().numpy()
    highest = float(volume.max())
    if not highest > 0:
        raise ValueError("received a field without density; expected something to mesh; train it")
    spacing = 2 * field.bound / (resolution - 1)
    if level is None:
        level = min(math.log(2) / spacing, highest / 2)
    solid = volume > level
    volume[binary_fill_holes(solid) & ~solid] = highest
    volume = np.pad(volume, 1)
    vertices, faces, _, _ = marching_cubes(volume, level)
    vertices = (vertices - 1) * spacing - field.bound
    places = torch.from_numpy(vertices).to(baked.logits)
    rgb = torch.cat([baked(p).rgb for p in places.split(chunk)]).cpu().numpy()
    alpha = np.ones((len(rgb), 1))
    mesh = trimesh.Trimesh(
        vertices[:, [0, 2, 1]] * (1, 1, -1),
        faces,
        vertex_colors=np.round(255 * np.concatenate([_linear(rgb), alpha], 1)).astype(np.uint8),
    )
    write_atomically(path, mesh.export(file_type="glb", tree_postprocessor=_matte))


def _linear(srgb: np.ndarray) -> np.ndarray:
    """glTF's vertex colours are linear; rendered pixels are sRGB."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _matte(tree: dict) -> None:
    """Without a material glTF means polished metal, which shows the colours as black."""
    matte = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    tree["materials"] = [{"pbrMetallicRoughness": matte}]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0


def save_curves(path: Path, reports: Sequence[StepReport], title: str) -> None:
    """Score-distillation loss, reward and P(Yes) over the steps as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    asked = [r for r in reports if r.reward is not None]
    panels = [
        ("reward (log-odds of Yes)", [(r.step, r.reward) for r in asked]),
        ("P(Yes)", [(r.step, r.p_yes) for r in asked]),
        ("score-distillation loss", [(r.step, r.sds_loss) for r in reports]),
    ]
    axes = figure.subplots(len(panels), sharex=True)
    for axis, (label, points) in zip(axes, panels):
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        if points:
            axis.plot(*zip(*points), linewidth=1)
        else:
            axis.text(0.5, 0.5, "the VLM was not asked", ha="center", transform=axis.transAxes)
    axes[1].set_ylim(-0.02, 1.02)
    if any(r.sds_loss > 0 for r in reports):
        axes[2].set_yscale("log")
    axes[2].set_xlabel("step")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def export_all(folder: Path, model: VLM3D, reports: Sequence[StepReport]) -> list[Path]:
    """Write views.png, turntable.mp4 (or .gif), mesh.glb and reward.png.

    Args:
        folder: Where to.
        model: The finished model; it is not changed.
        reports: Its log.

    Returns:
        The files.
    """
    grid = copy.deepcopy(model.grid)
    grid.update(model.field.bake().density)
    views = evaluation_cameras(model.config, 8).to(model.device)
    circle = evaluation_cameras(model.config, 60).to(model.device)
    save_views(folder / "views.png", model.field, grid, views)
    turntable = save_turntable(folder, model.field, grid, circle)
    save_mesh(folder / "mesh.glb", model.field)
    save_curves(folder / "reward.png", reports, model.config.prompt)
    return [folder / "views.png", turntable, folder / "mesh.glb", folder / "reward.png"]
