"""Runs of ``examples/text_to_3d.py`` as assets in GPTEval3D's layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from tournament.layout import PROMPTS, REWARDS, asset_folder, frame, read_prompts
from tournament.pictures import save_png
from vlmreward.utils.output import write_atomically
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.fields.base import Field
from vlmreward_3d.fields.factory import build_field
from vlmreward_3d.rendering.evaluation import evaluation_cameras
from vlmreward_3d.training.checkpoint import load_checkpoint
from vlmreward_3d.training.run_files import RunFiles


def load_run(folder: Path, device: str = "cpu") -> tuple[VLM3DConfig, Field]:
    """The settings and the field of a run, without its denoiser and VLM.

    Args:
        folder: Folder of the run, with a checkpoint.
        device: device of the field.

    Raises:
        OSError: there is no checkpoint.
        ValueError: the checkpoint is damaged, or does not fit its settings.
    """
    file = RunFiles(folder).checkpoint_file
    try:
        checkpoint = load_checkpoint(file)
    except OSError as error:
        raise OSError(
            f"cannot read {file} ({error.strerror}); expected the folder of a run of "
            "examples/text_to_3d.py"
        ) from None
    config = VLM3DConfig.from_json(checkpoint.config)
    field = build_field(config.field, torch.Generator().manual_seed(0))
    own = {
        name.removeprefix("field."): value
        for name, value in checkpoint.state.items()
        if name.startswith("field.")
    }
    try:
        field.load_state_dict(own)
    except (RuntimeError, KeyError) as error:
        what = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{file} does not fit its settings ({what}); expected a run of this version"
        ) from None
    return config, field.to(device).for_evaluation()


def prompt_number(root: Path, prompt: str, *, add: bool) -> int:
    """The number of a prompt in a tournament's list.

    Args:
        root: the tournament's folder; a list that is not there is begun.
        prompt: the text.
        add: add it to a list that lacks it.

    Raises:
        ValueError: the list lacks it.
    """
    file = root / PROMPTS
    prompts = list(read_prompts(root)) if file.exists() else []
    if prompt not in prompts:
        if prompts and not add:
            raise ValueError(
                f"{file} lacks the prompt {prompt!r}; expected one of its {len(prompts)}; pass "
                "--add-prompts to add it behind them"
            )
        prompts.append(prompt)
        root.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(prompts, indent=1, ensure_ascii=False) + "\n")
    return prompts.index(prompt)


@torch.no_grad()
def export_turntable(
    run: Path,
    root: Path,
    method: str,
    *,
    frames: int = 120,
    size: int = 512,
    add_prompts: bool = False,
    device: str = "cpu",
    told: Callable[[], object] = lambda: None,
) -> Path:
    """Render a run's turntable, colors and world-space normals, as the asset of a method.

    Frame 0 is seen from the front (azimuth 0), at the evaluation cameras' 15 degrees elevation.
    Existing frames are replaced. The names of the VLM that steered the run, if one did, are written
    beside them.

    Args:
        run: the folder of the run.
        root: the tournament's folder.
        method: the method's name.
        frames: number of frames, at even azimuths.
        size: height and width in pixels.
        add_prompts: add the run's prompt to a list that lacks it.
        device: device that renders the field.
        told: function that is called after each frame.

    Returns:
        The folder of the frames.

    Raises:
        OSError, ValueError: errors of ``load_run`` and ``prompt_number``.
    """
    config, field = load_run(run, device)
    folder = asset_folder(root, method, prompt_number(root, config.prompt, add=add_prompts))
    folder.mkdir(parents=True, exist_ok=True)
    steered = [] if config.vlm is None else [config.vlm.model]
    write_atomically(folder / REWARDS, json.dumps(steered) + "\n")
    cameras = evaluation_cameras(config.camera, frames).to(device)
    for i, picture in enumerate(field.render_images(cameras, size, normals=True)):
        for kind, part in zip(("rgb", "normal"), picture.cpu().split(size, dim=1)):
            save_png(frame(folder, kind, i), part)
        told()
    for stale in folder.glob("*.png"):  # of an earlier export with more frames
        number = stale.stem.rpartition("_")[2]
        if number.isdecimal() and int(number) >= frames:
            stale.unlink()
    return folder
