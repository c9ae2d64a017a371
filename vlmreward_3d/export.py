"""Pictures, a turntable and a mesh of a finished field; every file appears whole or not at all."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreward.progress import progress_bar
from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.fields import Field, update_occupancy
from vlmreward_3d.files import replacing, write_atomically
from vlmreward_3d.meshes.files import save_meshes
from vlmreward_3d.meshes.surface import NoSurface, extract_surface
from vlmreward_3d.render import render_rays
from vlmreward_3d.report.page import save_report
from vlmreward_3d.sampler import OccupancyGrid
from vlmreward_3d.splats.field import SplatField
from vlmreward_3d.splats.ply import save_splats
from vlmreward_3d.splats.render import render_splats
from vlmreward_3d.vlm3d import VLM3D, StepReport

__all__ = [
    "evaluation_cameras",
    "export_all",
    "image_bytes",
    "look",
    "save_curves",
    "save_turntable",
    "save_views",
]

_PIXELS_PER_NODE = 8 / 3


def evaluation_cameras(config: VLM3DConfig, n: int) -> Cameras:
    """`n` cameras around the object at 15 degrees elevation, as far away as in training."""
    fov = sum(config.fov_deg) / 2
    distance = sum(config.scale) / 2 / math.tan(math.radians(fov) / 2)
    return Cameras.turntable(n, elevation=15.0, distance=distance, fov=fov)


@torch.no_grad()
def look(
    field: Field,
    grid: OccupancyGrid,
    cameras: Cameras,
    size: int,
    *,
    normals: bool = False,
    n_samples: int = 64,
    chunk: int = 32768,
) -> Iterator[Tensor]:
    """Render without gradients on white, `chunk` rays at a time.

    Args:
        field: What to look at.
        grid: Its occupancy; splats are drawn without it.
        cameras: N cameras, on the field's device.
        size: Height and width in pixels.
        normals: Put the world-space normals, as colours, below the picture.
        n_samples: Samples per ray; of no meaning to splats, like `chunk`.
        chunk: Rays that are rendered together; bounds the memory.

    Yields:
        For each camera a picture (3, size or 2 * size, size) in [0, 1].
    """
    if isinstance(field, SplatField):
        yield from _look_at_splats(field, cameras, size, normals)
        return
    baked = field.bake(normals=normals)
    white = baked.like.new_ones(3)
    # what is occupied is three cells thick at least: as many bins as cells do not step over it
    n_bins = min(64, grid.occupied.shape[0])
    for index in range(len(cameras)):
        rows: list[list[Tensor]] = [[], []]
        origins, directions = cameras[index : index + 1].rays(size, size)
        for part in zip(origins.view(-1, 3).split(chunk), directions.view(-1, 3).split(chunk)):
            seen = render_rays(
                baked, grid, *part, n_samples=n_samples, background=white, n_bins=n_bins
            )
            rows[0].append(seen.rgb.clamp(0, 1))
            if seen.normals is not None:
                rows[1].append(_as_colors(seen.normals, seen.opacity))
        yield torch.cat([*rows[0], *rows[1]]).view(-1, size, 3).permute(2, 0, 1)


def _look_at_splats(
    field: SplatField, cameras: Cameras, size: int, normals: bool
) -> Iterator[Tensor]:
    gaussians = field.gaussians()
    for index in range(len(cameras)):
        view = cameras[index : index + 1]
        seen = render_splats(gaussians, view, size, size, normals=normals)
        rows = [seen.rgb[0].clamp(0, 1)]
        if seen.normals is not None:
            rows.append(_as_colors(seen.normals, seen.opacity)[0])
        yield torch.cat(rows, dim=1)


def _as_colors(normals: Tensor, opacity: Tensor) -> Tensor:
    """Normals as colours in [0, 1], on white."""
    return (normals + 1) / 2 * opacity + (1 - opacity)


def image_bytes(image: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 from (3, H, W) in [0, 1]."""
    return (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def save_views(
    path: Path,
    field: Field,
    grid: OccupancyGrid,
    cameras: Cameras,
    size: int = 256,
    *,
    told: Callable[[], object] = lambda: None,
) -> None:
    """A PNG with a column per camera: colours above, world-space normals below.

    Args:
        path: Where to.
        field: What to look at.
        grid: Its occupancy.
        cameras: One for each column.
        size: Height and width of a picture in pixels.
        told: Called after each picture.
    """
    pictures = _counted(look(field, grid, cameras, size, normals=True), told)
    sheet = torch.cat(list(pictures), dim=2)
    write_atomically(path, iio.imwrite("<bytes>", image_bytes(sheet), extension=".png"))


def save_turntable(
    folder: Path,
    field: Field,
    grid: OccupancyGrid,
    cameras: Cameras,
    size: int = 256,
    fps: int = 30,
    *,
    n_samples: int = 32,
    told: Callable[[], object] = lambda: None,
) -> Path:
    """The cameras' pictures as `turntable.mp4`, or `turntable.gif` where there is no encoder.

    A coarse field is rendered smaller and enlarged: more pixels than a few per node of the field
    cost time and show nothing more.

    Args:
        folder: Where to.
        field: What to look at.
        grid: Its occupancy.
        cameras: One for each frame.
        size: Height and width in pixels.
        fps: Frames per second.
        n_samples: Samples per ray.
        told: Called after each picture.

    Returns:
        The file.
    """
    side = size
    if not isinstance(field, SplatField):
        side = min(size, math.ceil(_PIXELS_PER_NODE * field.resolution))
    pictures = _counted(look(field, grid, cameras, side, n_samples=n_samples), told)
    frames = [image_bytes(_enlarged(picture, size)) for picture in pictures]
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


def _counted(pictures: Iterator[Tensor], told: Callable[[], object]) -> Iterator[Tensor]:
    for picture in pictures:
        yield picture
        told()


def _enlarged(picture: Tensor, size: int) -> Tensor:
    if picture.shape[-1] == size:
        return picture
    larger = F.interpolate(picture[None], size=(size, size), mode="bicubic", align_corners=False)
    return larger[0].clamp(0, 1)


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


def save_curves(path: Path, reports: Sequence[StepReport], title: str) -> None:
    """Score-distillation loss, reward and P(Yes) over the steps as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    asked = [r for r in reports if r.reward is not None]
    panels: list[tuple[str, list]] = [
        ("reward (log-odds of Yes)", [(r.step, r.reward) for r in asked]),
        ("P(Yes)", [(r.step, r.p_yes) for r in asked]),
        ("score-distillation loss", [(r.step, r.sds_loss) for r in reports]),
    ]
    axes = figure.subplots(len(panels), sharex=True)
    for axis, (label, points) in zip(axes, panels):
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        if points:
            axis.plot([at for at, _ in points], [value for _, value in points], linewidth=1)
        else:
            why = "the VLM was not asked" if reports else "the log has no steps"
            axis.text(0.5, 0.5, why, ha="center", transform=axis.transAxes)
    axes[1].set_ylim(-0.02, 1.02)
    if any(r.sds_loss > 0 for r in reports):
        axes[2].set_yscale("log")
    axes[2].set_xlabel("step")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def export_all(
    folder: Path,
    model: VLM3D,
    reports: Sequence[StepReport],
    *,
    meshes: Sequence[str] = ("glb", "texture"),
    seconds: float | None = None,
    notes: Sequence[str] = (),
    progress: bool = False,
) -> list[Path]:
    """Write views.png, turntable.mp4 (or .gif), the meshes, reward.png and report.html.

    Splats have no mesh: they are written as splats.ply instead. Where a field has no surface there
    is none either, and the report says so.

    Args:
        folder: Where to.
        model: The finished model; it is not changed.
        reports: Its log.
        meshes: Keys of `MESH_FILES`; of no meaning to splats.
        seconds: What the steps took together; None where it is not known.
        notes: What happened to the run that its owner should know, a sentence each.
        progress: Show a progress bar on stderr, lines where it is no terminal.

    Returns:
        The files.
    """
    grid = copy.deepcopy(model.grid)
    update_occupancy(grid, model.field)
    views = evaluation_cameras(model.config, 8).to(model.device)
    circle = evaluation_cameras(model.config, 120).to(model.device)
    total = len(views) + len(circle) + 3 + len(meshes)
    with progress_bar(total=total, desc="exporting", unit="part", disable=not progress) as bar:
        bar.set_postfix_str("views")
        save_views(folder / "views.png", model.field, grid, views, told=bar.update)
        bar.set_postfix_str("turntable")
        samples = model.config.samples_per_ray
        turntable = save_turntable(
            folder, model.field, grid, circle, n_samples=samples, told=bar.update
        )
        surface, model_files, notes = None, [], [*notes]
        bar.set_postfix_str("model")
        if isinstance(model.field, SplatField):
            model_files = [folder / "splats.ply"]
            save_splats(model_files[0], model.field)
        else:
            try:
                surface = extract_surface(model.field, grid)
                bar.update()
                for kind in meshes:
                    model_files += save_meshes(folder, surface, model.field, (kind,))
                    bar.update()
            except NoSurface as error:
                notes.append(f"no mesh: {error}")
        bar.set_postfix_str("report")
        save_curves(folder / "reward.png", reports, model.config.prompt)
        bar.update()
        report = folder / "report.html"
        save_report(
            report,
            model.config,
            reports,
            surface,
            folder / "views.png",
            turntable,
            done=model.step_index,
            seconds=seconds,
            notes=notes,
        )
        bar.update(total - bar.n)
    return [folder / "views.png", turntable, *model_files, folder / "reward.png", report]
