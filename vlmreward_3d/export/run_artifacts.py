"""Export of a finished run: pictures, turntable, mesh and report, each written atomically."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreward.utils.progress import progress_bar
from vlmreward_3d.atomic_io import replacing, write_atomically
from vlmreward_3d.cameras import Cameras
from vlmreward_3d.export.geometry import export_geometry
from vlmreward_3d.export.report.page import save_report
from vlmreward_3d.export.report.panels import panels
from vlmreward_3d.fields.base import Field
from vlmreward_3d.rendering.evaluation import evaluation_cameras, image_bytes
from vlmreward_3d.vlm3d import VLM3D, StepReport

__all__ = ["export_all", "save_curves", "save_turntable", "save_views"]


def save_views(
    path: Path,
    field: Field,
    cameras: Cameras,
    size: int = 256,
    *,
    told: Callable[[], object] = lambda: None,
) -> None:
    """Save a PNG with a column per camera: colors above, world-space normals below.

    Args:
        path: The PNG file.
        field: The field to render.
        cameras: Camera of each column.
        size: Height and width of a picture in pixels.
        told: Function that is called after each picture.
    """
    pictures = field.render_images(cameras, size, normals=True, n_samples=64)
    sheet = torch.cat(list(_counted(pictures, told)), dim=2)
    write_atomically(path, iio.imwrite("<bytes>", image_bytes(sheet), extension=".png"))


def save_turntable(
    folder: Path,
    field: Field,
    cameras: Cameras,
    size: int = 256,
    fps: int = 30,
    *,
    told: Callable[[], object] = lambda: None,
) -> Path:
    """Save the cameras' pictures as `turntable.mp4`, or `turntable.gif` without an encoder.

    A coarse field is rendered smaller and enlarged; see `Field.render_size`.

    Args:
        folder: Folder that the files are written to.
        field: The field to render.
        cameras: Camera of each frame.
        size: Height and width in pixels.
        fps: Frames per second.
        told: Function that is called after each picture.

    Returns:
        The file.
    """
    pictures = _counted(field.render_images(cameras, field.render_size(size)), told)
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
    """Save the guidances' losses and rewards over the steps as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    shown = panels(reports, headline=True)
    axes = figure.subplots(max(len(shown), 1), sharex=True, squeeze=False)[:, 0]
    for axis, panel in zip(axes, shown):
        axis.set_ylabel(panel.title)
        axis.grid(alpha=0.3)
        for name, points in panel.series.items():
            axis.plot(*zip(*points), linewidth=1, label=name)
        axis.legend()
        if panel.limits is not None:
            axis.set_ylim(panel.limits[0] - 0.02, panel.limits[1] + 0.02)
        if panel.log and any(value > 0 for points in panel.series.values() for _, value in points):
            axis.set_yscale("log")
    if not shown:
        axes[0].text(0.5, 0.5, "the log has no steps", ha="center", transform=axes[0].transAxes)
    axes[-1].set_xlabel("step")
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
    provenance: Mapping[str, str] | None = None,
    progress: bool = False,
) -> list[Path]:
    """Write views.png, turntable.mp4 (or .gif), the meshes, reward.png and report.html.

    Gaussians have no mesh; they are written as splats.ply. A field without a surface has no mesh
    either, and the report says so.

    Args:
        folder: Folder that the files are written to.
        model: The finished model; it is not changed.
        reports: Log of the run.
        meshes: Keys of `MESH_FILES`; without effect on Gaussians.
        seconds: Total time of the steps in seconds; None if unknown.
        notes: Sentences about events of the run, such as retries.
        provenance: The command and the versions that made the asset, by name.
        progress: Show a progress bar on stderr, lines where it is no terminal.

    Returns:
        The files.
    """
    field = model.field.for_evaluation()
    views = evaluation_cameras(model.config.camera, 8).to(model.device)
    circle = evaluation_cameras(model.config.camera, 120).to(model.device)
    total = len(views) + len(circle) + 3
    with progress_bar(total=total, desc="exporting", unit="part", disable=not progress) as bar:
        bar.set_postfix_str("views")
        save_views(folder / "views.png", field, views, told=bar.update)
        bar.set_postfix_str("turntable")
        turntable = save_turntable(folder, field, circle, told=bar.update)
        bar.set_postfix_str("model")
        geometry = export_geometry(field, folder, meshes)
        bar.update()
        bar.set_postfix_str("report")
        save_curves(folder / "reward.png", reports, model.config.prompt)
        bar.update()
        report = folder / "report.html"
        save_report(
            report,
            model.config,
            reports,
            geometry,
            folder / "views.png",
            turntable,
            done=model.step_index,
            seconds=seconds,
            notes=notes,
            provenance=provenance,
        )
        bar.update(total - bar.n)
    return [folder / "views.png", turntable, *geometry.files, folder / "reward.png", report]
