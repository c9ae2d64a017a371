"""Execution of `vlm3d`: a run from the options, or a measurement of its time and memory."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from vlmreward.cli import process
from vlmreward.cli.versions import versions
from vlmreward_3d.cli.settings import configuration
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.export.run_artifacts import export_all
from vlmreward_3d.guidance.weighting import WeightedGuidance
from vlmreward_3d.training.run_directory import RunDirectory
from vlmreward_3d.training.trainer import train
from vlmreward_3d.vlm3d import VLM3D, StepReport

__all__ = ["load_guidances", "work"]


def work(options: argparse.Namespace, command: str) -> list[Path]:
    """Make the asset and return its files; or print the time and memory of a run and return none.

    Args:
        options: Those of `vlmreward_3d.cli.options.parse`.
        command: The command line, for the report.

    Raises:
        DivergenceError: The run failed more often than it may be retried.
        TrainingInterrupted: Ctrl-C was pressed; the run can be resumed.
        ValueError, OSError, ImportError: A requested setting is not possible on this machine.
    """
    process.usable_device(options.device)
    if options.vlm_device is not None:
        process.usable_device(options.vlm_device, "--vlm-device")
    if options.threads:
        torch.set_num_threads(options.threads)
    config = configuration(options)
    if options.dry_run:
        print(_measured(options, config))
        return []
    folder = RunDirectory(options.out, config, resume=options.resume, overwrite=options.overwrite)
    with folder.held():
        with _watching(options.viewer_port) as watch:
            guidances = load_guidances(config, options)
            model = VLM3D(config, guidances, device=options.device)
            train(model, folder, checkpoint_every=options.checkpoint_every, watch=watch)
        files = export_all(
            folder.path,
            model,
            folder.metrics(),
            meshes=options.export,
            seconds=folder.seconds or None,
            notes=folder.notes,
            provenance=_provenance(command),
            progress=True,
        )
        folder.finish()
    return files


def _provenance(command: str) -> dict[str, str]:
    """The command, the date and the versions, by name."""
    date = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    installed = ", ".join(f"{name} {version}" for name, version in versions().items())
    return {"Command": command, "Date": date, "Versions": installed}


def load_guidances(config: VLM3DConfig, options: argparse.Namespace) -> list[WeightedGuidance]:
    """Load the guidances of a configuration on the devices of the options, with messages."""
    vlm = [] if config.vlm is None else [config.vlm.model]
    # after bad devices and folders were refused, as it imports diffusers for seconds
    from vlmreward_3d.guidance import loading

    sds = config.score_distillation
    names = dict.fromkeys([*vlm, sds.denoiser, *([sds.adapter] if sds.adapter else [])])
    print(f"loading {' and '.join(names)} ...", file=sys.stderr)
    return loading.load_guidances(config, device=options.device, vlm_device=options.vlm_device)


def _measured(options: argparse.Namespace, config: VLM3DConfig) -> str:
    """The time and memory of the run's phases, as a table."""
    from vlmreward_3d.training import profiling

    guidances = load_guidances(config, options)
    said = ""
    in_chunks = config.flat().get("field.rays.rays_per_chunk") is not None
    if in_chunks and not options.rays_per_chunk:
        best = profiling.best_chunk(profiling.measure_chunks(config, device=options.device))
        config = config.replace({"field.rays.rays_per_chunk": best.rays})
        said = f"with --rays-per-chunk {best.rays}:\n"
    return said + profiling.table(profiling.measure(config, guidances, device=options.device))


@contextlib.contextmanager
def _watching(port: int | None) -> Iterator[Callable[[VLM3D, StepReport], None] | None]:
    """The function that `train` calls after each step, if any."""
    if port is None:
        yield None
        return
    from vlmreward_3d.training.viewer import LiveView

    with LiveView(port) as view:
        print(f"http://127.0.0.1:{view.port}", file=sys.stderr)
        yield view
