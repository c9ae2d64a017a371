"""Vocabulary of the tables' expressions: good objects, and ways to spoil them."""

from __future__ import annotations

import functools
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import stub_models
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import vlmreward_3d

WEIGHTS = Path(vlmreward_3d.__file__).parent / "blocks" / "weights"


def _toy(images: Any, prompt: Any = None, **_: Any) -> torch.Tensor:
    """A reward (B,) that takes anything with a first dimension."""
    if isinstance(images, torch.Tensor):
        return images.flatten(1).mean(1)
    return torch.stack([torch.as_tensor(query).float().mean() for query in images])


# --- image files


def make_pictures(folder: Path) -> None:
    """Good and bad image files."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    picture.save(folder / "picture.png")
    picture.resize((48, 48)).save(folder / "smaller.png")
    data = (folder / "picture.png").read_bytes()
    (folder / "truncated.png").write_bytes(data[: len(data) // 2])
    (folder / "header.png").write_bytes(data[:20])
    (folder / "empty.png").write_bytes(b"")
    (folder / "words.png").write_text("this is no picture\n")
    picture.save(folder / "whole.jpg")
    data = (folder / "whole.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (folder / "bomb.png").write_bytes(_png_of_size(60_000, 60_000))
    Image.new("RGB", (600, 2)).save(folder / "thin.png")
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(folder / "integers.tif")
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(folder / "floats.tif")


def _png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises more than there is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


# --- models


def _copy(source: Path, target: Path) -> Path:
    """A copy that shares what is not changed: every file is a link until it is replaced."""
    for path in source.rglob("*"):
        new = target / path.relative_to(source)
        if path.is_dir():
            new.mkdir(parents=True, exist_ok=True)
        else:
            new.parent.mkdir(parents=True, exist_ok=True)
            new.symlink_to(path)
    return target


def _replace(path: Path, data: bytes | str) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def _edited(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    _replace(path, json.dumps(content))


def _tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = {key: value.clone() for key, value in load_file(path).items()}
    change(tensors)
    path.unlink()
    save_file(tensors, path, {"format": "pt"})


def _first_matrix(tensors: dict[str, torch.Tensor]) -> str:
    return next(key for key, value in sorted(tensors.items()) if value.ndim == 2)


def _spoil_vlm(folder: Path, how: str) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    if how == "truncated weights":
        _replace(weights, (WEIGHTS / "vlm" / "model.safetensors").read_bytes()[:100_000])
    elif how == "garbage weights":
        _replace(weights, b"\xff" * 1000)
    elif how == "empty weights":
        _replace(weights, b"")
    elif how == "no weights":
        weights.unlink()
    elif how == "pickled weights":
        weights.unlink()
        torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")
    elif how == "a tensor missing":
        _tensors(weights, lambda tensors: tensors.pop(_first_matrix(tensors)))
    elif how == "a tensor too many":
        _tensors(weights, lambda tensors: tensors.update({"model.extra.weight": torch.zeros(2, 2)}))
    elif how == "a tensor of another shape":
        _tensors(
            weights,
            lambda tensors: tensors.update(
                {(key := _first_matrix(tensors)): tensors[key][:-1].contiguous()}
            ),
        )
    elif how == "more layers":

        def deeper(content: dict[str, Any]) -> None:
            text = content.get("text_config", content)
            text["num_hidden_layers"] += 2
            if "layer_types" in text:
                text["layer_types"] += text["layer_types"][-2:]

        _edited(config, deeper)
    elif how == "no config":
        config.unlink()
    elif how == "config no JSON":
        _replace(config, "{not json")
    elif how == "config a list":
        _replace(config, "[1, 2]")
    elif how == "config not UTF-8":
        _replace(config, b'{"model_type": "\xff"}')
    elif how == "unknown model type":
        _edited(config, lambda content: content.update(model_type="nonsense"))
    elif how == "no tokenizer":
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink(missing_ok=True)
    elif how == "garbage tokenizer":
        _replace(folder / "tokenizer.json", "{}")
    elif how == "no image processor":
        for name in ("preprocessor_config.json", "processor_config.json"):
            (folder / name).unlink(missing_ok=True)
    elif how == "bad chat template":
        _replace(folder / "chat_template.jinja", "{% for x in %}")
    elif how == "weights not finite":
        _tensors(weights, lambda tensors: tensors[_first_matrix(tensors)].fill_(float("nan")))
    else:
        raise AssertionError(how)


def _spoil_denoiser(folder: Path, how: str) -> None:
    unet = folder / "unet"
    weights = next(unet.glob("*.safetensors"))
    if how == "no scheduler":
        shutil.rmtree(folder / "scheduler")
    elif how == "truncated weights":
        _replace(weights, weights.read_bytes()[:100_000])
    elif how == "empty weights":
        _replace(weights, b"")
    elif how == "no weights":
        weights.unlink()
    elif how == "a tensor missing":
        _tensors(weights, lambda tensors: tensors.pop(_first_matrix(tensors)))
    elif how == "config a list":
        _replace(unet / "config.json", "[1, 2]")
    elif how == "config no JSON":
        _replace(unet / "config.json", "{not json")
    elif how == "no cameras":
        _edited(unet / "config.json", lambda content: content.update(class_embed_type=None))
    elif how == "another prediction":
        path = folder / "scheduler" / "scheduler_config.json"
        _edited(path, lambda content: content.update(prediction_type="sample"))
    else:
        raise AssertionError(how)


# --- runs


@functools.cache
class Workshop:
    """Makes files and folders for the rows that need some, each in a place of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0
        pictures = folder / "pictures"
        pictures.mkdir()
        make_pictures(pictures)
        self.pictures = pictures

    def fresh(self) -> Path:
        self.made += 1
        path = self.folder / str(self.made)
        path.mkdir()
        return path

    def at(self, name: str) -> Path:
        """One of the image files."""
        return self.pictures / name

    def file(self, data: bytes | str, name: str = "file.bin") -> Path:
        path = self.fresh() / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def vlm(self, how: str) -> str:
        """A copy of the built-in VLM, damaged."""
        folder = _copy(WEIGHTS / "vlm", self.fresh())
        _spoil_vlm(folder, how)
        return str(folder)

    def denoiser(self, how: str) -> str:
        """A copy of the built-in denoiser, damaged."""
        folder = _copy(WEIGHTS / "denoiser", self.fresh())
        _spoil_denoiser(folder, how)
        return str(folder)

    def run(self, **files: bytes | str) -> Path:
        """A folder of a run with these files; ``config="..."`` is config.json, and so on."""
        names = {
            "config": "config.json",
            "state": "state.json",
            "metrics": "metrics.jsonl",
            "checkpoint": "checkpoint.safetensors",
        }
        folder = self.fresh()
        for name, data in files.items():
            (folder / names[name]).write_bytes(data.encode() if isinstance(data, str) else data)
        return folder

    def resumed(self, **files: bytes | str) -> Any:
        """A run folder of the tiny configuration that is to go on with these files."""
        from vlmreward_3d.training.run_directory import RunDirectory

        files = {"config": stub_models.tiny().to_json(), **files}
        return RunDirectory(self.run(**files), stub_models.tiny(), resume=True)

    @functools.cached_property
    def checkpoint(self) -> bytes:
        """A checkpoint of a tiny run after two steps."""
        from vlmreward_3d.training.collapse_detector import CollapseDetector
        from vlmreward_3d.training.run_directory import RunDirectory

        model = stub_models.build_vlm3d(
            stub_models.tiny(), stub_models.RandomDenoiser(), stub_models.redness
        )
        folder = RunDirectory(self.fresh(), model.config)
        folder.initialize()
        for _ in range(2):
            model.step()
        folder.save(model, CollapseDetector(None))
        return folder.checkpoint_file.read_bytes()

    def restored(self, **files: bytes | str) -> Any:
        """Go on with a run from a sound checkpoint and these files, up to its end."""
        from vlmreward_3d.training.trainer import train

        folder = self.resumed(checkpoint=self.checkpoint, **files)
        model = stub_models.build_vlm3d(
            stub_models.tiny(), stub_models.RandomDenoiser(), stub_models.redness
        )
        train(model, folder, progress=False)
        return folder.metrics()

    def trained(self, **changes: Any) -> Any:
        """A tiny run with changed settings, up to its first step."""

        model = stub_models.build_vlm3d(
            stub_models.tiny(**changes), stub_models.RandomDenoiser(), stub_models.redness
        )
        return model.step()


def names(folder: Path) -> dict[str, Any]:
    """Names that the tables' expressions may use."""
    import transformers
    from samplers import BlocksSampler, PipelineSampler

    import vlmreward
    from vlmreward import explain, processors, wrappers
    from vlmreward.doctor.checks import run_checks
    from vlmreward.images import io as files
    from vlmreward.images.find import find_images
    from vlmreward.images.validation import check_images, flatten_views
    from vlmreward.integrations import diffusion_trainers as adapters
    from vlmreward.processors._resize_weights import weight_matrix
    from vlmreward.processors.quantized_resize import resize_uint8
    from vlmreward.processors.resize import resize
    from vlmreward.wrappers.gradient_blur import blur_gradient
    from vlmreward.wrappers.microbatching import parse_bytes
    from vlmreward_3d import cameras, presets
    from vlmreward_3d import losses as regularizers
    from vlmreward_3d.config import ShadingConfig, VLM3DConfig, WeightingConfig
    from vlmreward_3d.export.gaussian_ply import save_gaussians
    from vlmreward_3d.export.mesh.writers import save_meshes
    from vlmreward_3d.fields.dense_grid import DenseGrid
    from vlmreward_3d.fields.gaussians import GaussianField
    from vlmreward_3d.fields.hash_grid import HashGrid
    from vlmreward_3d.guidance import score_distillation
    from vlmreward_3d.guidance.diffusion import ldm_conversion as ldm
    from vlmreward_3d.guidance.diffusion.multiview_attention import merge_views
    from vlmreward_3d.guidance.diffusion.mvdream import MVDream
    from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion
    from vlmreward_3d.guidance.loading import load_denoiser, load_guidances, load_reward
    from vlmreward_3d.guidance.sds import ScoreDistillation
    from vlmreward_3d.rendering.evaluation import evaluation_cameras
    from vlmreward_3d.rendering.gaussians.render import render_gaussians
    from vlmreward_3d.rendering.occupancy import OccupancyGrid
    from vlmreward_3d.rendering.volume import render
    from vlmreward_3d.schedule import Schedule
    from vlmreward_3d.training.checkpoint import load_checkpoint
    from vlmreward_3d.training.collapse_detector import CollapseDetector
    from vlmreward_3d.training.run_directory import RunDirectory
    from vlmreward_3d.training.viewer import LiveView
    from vlmreward_3d.vlm3d import VLM3D

    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 16, 16, generator=generator)
    reward = vlmreward.YesNoReward("builtin/blocks")
    hf = reward.backbone.processor.image_processor
    workshop = Workshop(folder)

    def changed(name: str, value: Any, field: str = "dense_grid") -> VLM3DConfig:
        config = presets.blocks("a red cube", field=field)
        if name.startswith("field.shading."):
            shading = ShadingConfig(probabilities=(1, 0, 0))
            config = config.replace({"field.shading": shading})
        return config.replace({name: value})

    def hf_like(**settings: Any) -> Any:
        """A CLIP image processor of transformers with other settings."""
        return transformers.CLIPImageProcessor(**settings)

    known = {
        # values
        **{"torch": torch, "np": np, "nan": float("nan"), "inf": float("inf"), "Path": Path},
        **{"images": images, "views": images[None], "image": images[0]},
        **{"reward": reward, "hf": hf, "clip": processors.from_hf(hf_like())},
        **{"toy": _toy, "tokenizer": reward.backbone.processor.tokenizer},
        **{"pair": (reward.backbone.vlm, reward.backbone.processor), "red": "a red cube"},
        # workshop
        **{"at": workshop.at, "file": workshop.file, "fresh": workshop.fresh},
        **{"vlm": workshop.vlm, "denoiser": workshop.denoiser, "run": workshop.run},
        **{"resumed": workshop.resumed, "restored": workshop.restored},
        **{"trained": workshop.trained, "workshop": workshop, "pictures": workshop.pictures},
        # vlmreward
        **{name: getattr(vlmreward, name) for name in vlmreward.__all__},
        **{name: getattr(wrappers, name) for name in wrappers.__all__},
        **{
            "from_hf": processors.from_hf,
            "hf_like": hf_like,
            "Image": Image,
            "blur_gradient": blur_gradient,
        },
        **{"check_images": check_images, "flatten_views": flatten_views, "explain": explain},
        **{"resize": resize, "resize_uint8": resize_uint8, "weight_matrix": weight_matrix},
        **{"adapters": adapters, "load_image": files.load_image, "find_images": find_images},
        **{"run_checks": run_checks, "parse_bytes": parse_bytes},
        # vlmreward_3d
        **{"changed": changed, "tiny": stub_models.tiny, "presets": presets, "Schedule": Schedule},
        **{"VLM3DConfig": VLM3DConfig, "WeightingConfig": WeightingConfig},
        **{"cameras": cameras, "Cameras": cameras.Cameras, "orbit": cameras.orbit},
        **{"ring": cameras.Cameras.turntable(4), "DenseGrid": DenseGrid},
        **{
            "HashGrid": HashGrid,
            "GaussianField": GaussianField,
            "OccupancyGrid": OccupancyGrid,
        },
        **{"regularizers": regularizers, "score_distillation": score_distillation},
        **{"ScoreDistillation": ScoreDistillation, "stub": stub_models.RandomDenoiser, "ldm": ldm},
        **{"MVDream": MVDream, "PixelDiffusion": PixelDiffusion, "merge_views": merge_views},
        **{"load_denoiser": load_denoiser, "load_reward": load_reward},
        **{"load_guidances": load_guidances, "load_checkpoint": load_checkpoint},
        **{"save_meshes": save_meshes, "save_gaussians": save_gaussians, "render": render},
        **{
            "render_gaussians": render_gaussians,
            "LiveView": LiveView,
            "CollapseDetector": CollapseDetector,
        },
        **{"RunDirectory": RunDirectory, "VLM3D": VLM3D, "build_vlm3d": stub_models.build_vlm3d},
        **{"evaluation_cameras": evaluation_cameras},
        # examples
        **{"BlocksSampler": BlocksSampler, "PipelineSampler": PipelineSampler},
    }
    return known
