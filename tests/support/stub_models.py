"""Teachers small enough to reason about, and a configuration that runs in seconds."""

import functools
import math
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from solids import cast
from torch import Tensor

from vlmreward_3d.cameras import Cameras, look_at
from vlmreward_3d.config import CameraConfig, ShadingConfig, VLM3DConfig
from vlmreward_3d.export import geometry, run_artifacts
from vlmreward_3d.export.mesh import marching_cubes
from vlmreward_3d.guidance.loading import build_guidances
from vlmreward_3d.presets import blocks
from vlmreward_3d.rendering.evaluation import evaluation_cameras
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.vlm3d import VLM3D


class OracleDenoiser:
    """Sees the true picture of the solids, whatever noise it is shown.

    The camera condition has no distance and no field of view, so both are fixed here.
    """

    n_views = 4
    fov_deg = 40.0
    scale = 0.9

    def __init__(self, size: int = 32) -> None:
        self.size = size
        self.alphas_cumprod = torch.linspace(0.9999, 0.01, 1000)

    def encode_text(self, texts: list[str]) -> Tensor:
        return torch.zeros(len(texts), 2, 3)

    def to_latents(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, self.size) * 2 - 1

    def to_images(self, latents: Tensor) -> Tensor:
        return ((latents + 1) / 2).clamp(0, 1)

    def predict_noise(self, noisy: Tensor, t: Tensor, text: Tensor, cameras: Tensor) -> Tensor:
        assert text.shape == (len(noisy), 2, 3)
        fov = math.radians(self.fov_deg)
        eye = cameras.view(-1, 4, 4)[:, :3, 3] * (self.scale / math.tan(fov / 2))
        seen = Cameras(look_at(eye), torch.full((len(eye),), fov))
        target = cast(seen, self.size, torch.ones(len(eye), 3)) * 2 - 1
        abar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        return (noisy - abar.sqrt() * target) / (1 - abar).sqrt()


class RandomDenoiser(OracleDenoiser):
    """A frozen random convolution: cheap, and sensitive to everything it is given."""

    def __init__(self, size: int = 8) -> None:
        super().__init__(size)
        generator = torch.Generator().manual_seed(0)
        self.kernel = 0.2 * torch.randn(3, 3, 3, 3, generator=generator)

    def predict_noise(self, noisy: Tensor, t: Tensor, text: Tensor, cameras: Tensor) -> Tensor:
        view = cameras.sum(dim=1).view(-1, 1, 1, 1) + t.view(-1, 1, 1, 1) / 1000
        return torch.nn.functional.conv2d(noisy, self.kernel.to(noisy), padding=1) * (
            1 + 0.1 * view
        )


class AttentiveDenoiser(RandomDenoiser):
    """A random UNet of diffusers that attends to text and knows cameras."""

    def __init__(self, size: int = 8) -> None:
        super().__init__(size)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.unet = UNet2DConditionModel(
                sample_size=size,
                in_channels=3,
                out_channels=3,
                down_block_types=("CrossAttnDownBlock2D",),
                up_block_types=("CrossAttnUpBlock2D",),
                block_out_channels=(8,),
                layers_per_block=1,
                norm_num_groups=4,
                attention_head_dim=4,
                cross_attention_dim=3,
                class_embed_type="projection",
                projection_class_embeddings_input_dim=16,
            ).requires_grad_(False)

    def encode_text(self, texts: list[str]) -> Tensor:
        lengths = torch.tensor([[[float(len(text))]] for text in texts])
        return lengths.expand(-1, 2, 3) / 10

    def predict_noise(self, noisy: Tensor, t: Tensor, text: Tensor, cameras: Tensor) -> Tensor:
        return self.unet(noisy, t, encoder_hidden_states=text, class_labels=cameras).sample


def redness(images: Tensor, prompt: str) -> Tensor:
    """A reward (B,) that likes red where it is asked for."""
    sign = 1.0 if "red" in prompt else -1.0
    mean = images.mean(dim=(1, 3, 4))
    return sign * 4 * (mean[:, 0] - mean[:, 1:].mean(dim=1))


_SMALL_VOLUME = {
    "field.occupancy.resolution": 8,
    "field.occupancy.interval": 3,
    "field.rays.samples_per_ray": 6,
    "field.orientation_weight": Schedule.constant(0),
}
_SMALL_FIELDS = {
    "dense_grid": {"field.resolutions": (4, 8), **_SMALL_VOLUME},
    "hash_grid": _SMALL_VOLUME,
    "gaussians": {},
}


def tiny(**changes: Any) -> VLM3DConfig:
    """The preset, shrunk to milliseconds a step and without regularizers.

    Args:
        **changes: Settings by dotted name, or with "__" for the dots; `field` is its kind. Numbers
            stand for constant schedules of cameras, three probabilities for a shading.
    """
    kind = changes.pop("field", "dense_grid")
    settings = {
        "steps": 12,
        "camera.resolution": 16,
        "camera.background": "color",
        "regularizers.entropy_weight": Schedule.constant(0),
        "score_distillation.denoiser": "stub",
        "vlm.model": "stub",
        **_SMALL_FIELDS[kind],
    }
    settings |= {name.replace("__", "."): value for name, value in changes.items()}
    if settings.get("vlm", "stub") is None:
        settings = {name: x for name, x in settings.items() if not name.startswith("vlm.")}
    for name in ("camera.n_groups", "camera.resolution"):
        if isinstance(settings.get(name), int):
            settings[name] = Schedule.constant(settings[name])
    if isinstance(settings.get("field.shading"), tuple):
        settings["field.shading"] = ShadingConfig(probabilities=settings["field.shading"])
    return blocks("a red cube", field=kind).replace(settings)


def between(low: float, high: float) -> dict[str, Schedule]:
    """The range of timesteps of a `ScoreDistillation`, the same throughout."""
    return {"t_min": Schedule.constant(low), "t_max": Schedule.constant(high)}


def build_vlm3d(
    config: VLM3DConfig, denoiser, reward=None, *, device="cpu", concurrent=False
) -> VLM3D:
    """A model that score distillation and, with a reward, a VLM guide."""
    guidances = build_guidances(config, denoiser, reward, concurrent=concurrent)
    return VLM3D(config, guidances, device=device)


def error_at_solids(**settings) -> float:
    """Squared error of a field that an oracle has taught, relative to that of white pictures."""
    lens = OracleDenoiser.fov_deg, OracleDenoiser.scale
    config = tiny(
        camera__resolution=32,
        camera__background="white",
        camera__fov_deg=(lens[0],) * 2,
        camera__object_radius=(lens[1],) * 2,
        score_distillation__guidance_scale=1.0,
        vlm=None,
        **settings,
    )
    model = build_vlm3d(config, OracleDenoiser())
    for _ in range(config.steps):
        model.step()
    cameras = evaluation_cameras(config.camera, 4)
    seen = torch.stack(list(model.field.render_images(cameras, 32, n_samples=64)))
    truth = cast(cameras, 32, torch.ones(4, 3))
    return float((seen - truth).square().mean() / (1 - truth).square().mean())


def shrink_exports(monkeypatch, *, frames: int = 8) -> None:
    """Make `export_all` write small files, which take a moment.

    Args:
        monkeypatch: Fixture that restores the sizes.
        frames: Largest number of the turntable's frames.
    """

    def cameras(config: CameraConfig, n: int) -> Cameras:
        return evaluation_cameras(config, min(n, frames))

    monkeypatch.setattr(run_artifacts, "evaluation_cameras", cameras)
    for module, name, smaller in (
        (run_artifacts, "save_views", {"size": 16}),
        (run_artifacts, "save_turntable", {"size": 16}),
        (marching_cubes, "carve", {"n_views": 4, "size": 48}),
        (geometry, "extract_surface", {"resolution": 24}),
        (geometry, "save_meshes", {"texture_resolution": 64}),
    ):
        monkeypatch.setattr(module, name, functools.partial(getattr(module, name), **smaller))


def random_vlm(family: str = "qwen2_5_vl"):
    """A (model, processor) pair of a small random VLM, made by the core's test helpers."""
    import tiny_models

    return tiny_models.build(family)
