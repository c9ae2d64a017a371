"""Diffusion samplers that can be differentiated: texts and noise in, images with a graph out.

Both kinds checkpoint the denoiser: a step keeps its input alone and is computed again on the way
back, so that memory does not grow with what is inside the network.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import common
import torch

import vlmreward_3d.guidance.diffusion  # noqa: F401 isort: skip (first: without what the next say on import)

from diffusers import DDIMScheduler, DiffusionPipeline
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion


class Sampler(Protocol):
    """Texts and noise to images.

    Attributes:
        network: the denoiser, frozen.
    """

    network: nn.Module

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Standard normal noise of ``count`` samples, (count, ...); the generator is on the CPU."""
        ...

    def __call__(self, prompts: list[str], noise: Tensor, *, last: int | None = None) -> Tensor:
        """Images (B, 3, H, W), or views (B, V, 3, H, W), in [0, 1].

        Args:
            prompts: B of them.
            noise: noise of B samples. Differentiable, unless ``last`` cuts the graph.
            last: number of final steps that are part of the graph (DRaFT-K); all by default.
        """
        ...


def add_sampler_options(parser: argparse.ArgumentParser, *, steps: int, guidance: float) -> None:
    """Add the options of the examples that use a diffusion model to the common ones."""
    parser.add_argument(
        "--diffusion",
        type=common.text,
        default=common.BUILTIN,
        metavar="MODEL",
        help="hub id or folder of a text-to-image pipeline of diffusers; default: %(default)s",
    )
    parser.add_argument(
        "--sampler-steps",
        type=common.positive,
        default=steps,
        metavar="N",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--guidance",
        type=common.above_zero,
        default=guidance,
        help="1 is none; default: %(default)s",
    )


def load_sampler(options: argparse.Namespace) -> Sampler:
    """The built-in denoiser, or any text-to-image pipeline of diffusers.

    Raises:
        OSError: the pipeline cannot be loaded.
        ValueError: the pipeline has no denoiser of latents (B, C, H, W).
    """
    model, device = options.diffusion, options.device
    how = {"steps": options.sampler_steps, "guidance": options.guidance}
    if model == common.BUILTIN:
        return BlocksSampler(PixelDiffusion.from_pretrained(model).to(device), **how)
    try:
        pipeline = DiffusionPipeline.from_pretrained(model, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise OSError(
            f"cannot load {model!r} ({str(error).strip().splitlines()[0]}); expected the hub id or "
            f"the folder of a diffusers pipeline, or {common.BUILTIN!r}"
        ) from error
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    return PipelineSampler(pipeline.to(device, dtype), **how)


class BlocksSampler:
    """DDIM (Song et al., 2021) through the built-in denoiser: four views of an object.

    Args:
        denoiser: model that predicts the noise.
        steps: number of sampling steps.
        guidance: scale of classifier-free guidance; 1 is none, at half the cost.
    """

    def __init__(self, denoiser: PixelDiffusion, *, steps: int, guidance: float) -> None:
        self.denoiser = denoiser
        self.network = denoiser.unet
        self.guidance = guidance
        self.scheduler = DDIMScheduler.from_config(
            denoiser.scheduler.config, timestep_spacing="trailing", clip_sample=False
        )
        most = self.scheduler.config.num_train_timesteps
        if steps > most:
            raise ValueError(f"received {steps} sampler steps; expected at most {most}")
        self.scheduler.set_timesteps(steps, device=self.network.device)
        self.cameras = Cameras.turntable(denoiser.n_views).condition().to(self.network.device)

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        side = self.denoiser.resolution
        shape = (count, self.denoiser.n_views, 3, side, side)
        return torch.randn(shape, generator=generator).to(self.network.device)

    def __call__(self, prompts: list[str], noise: Tensor, *, last: int | None = None) -> Tensor:
        views = self.denoiser.n_views
        guided = self.guidance > 1
        with torch.no_grad():
            told = prompts + [""] * len(prompts) if guided else prompts
            text = self.denoiser.encode_text(told).repeat_interleave(views, dim=0)
        cameras = self.cameras.repeat(len(told), 1)
        x = noise.flatten(0, 1)
        with_graph = torch.is_grad_enabled()
        times = self.scheduler.timesteps
        for i, t in enumerate(times):
            with torch.set_grad_enabled(with_graph and (last is None or i >= len(times) - last)):
                twice = torch.cat([x, x]) if guided else x
                output = checkpoint(
                    self.denoiser, twice, t.expand(len(twice)), text, cameras, use_reentrant=False
                )
                if guided:
                    conditional, free = output.chunk(2)
                    output = free + self.guidance * (conditional - free)
                x = self.scheduler.step(output, t, x).prev_sample
        return ((x + 1) / 2).clamp(0, 1).unflatten(0, (-1, views))


class PipelineSampler:
    """A text-to-image pipeline of diffusers, run with gradients.

    Args:
        pipeline: takes ``latents`` and ``output_type="pt"``, as the pipelines of Stable Diffusion 1
            to 3, SDXL, PixArt and others do. It is frozen; a safety checker is taken out, as it
            would cut the graph.
        steps: number of the scheduler's steps.
        guidance: ``guidance_scale``.
    """

    def __init__(self, pipeline: DiffusionPipeline, *, steps: int, guidance: float) -> None:
        network = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
        side = getattr(getattr(network, "config", None), "sample_size", None)
        if not isinstance(side, int):
            raise ValueError(
                f"{type(pipeline).__name__} has no denoiser of latents (B, C, H, W) of a known "
                "size; expected a text-to-image pipeline such as Stable Diffusion's"
            )
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        if getattr(pipeline, "safety_checker", None) is not None:
            pipeline.safety_checker = None
        pipeline.vae.enable_gradient_checkpointing()
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline
        self.network = network
        self.steps = steps
        self.guidance = guidance
        self.shape = (network.config.in_channels, side, side)
        # Pipelines are called under no_grad; what they are inside is not
        self.call = inspect.unwrap(type(pipeline).__call__)

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn((count, *self.shape), generator=generator)
        return noise.to(self.network.device, self.network.dtype)

    def __call__(self, prompts: list[str], noise: Tensor, *, last: int | None = None) -> Tensor:
        with self._part_of_the_graph(last) as count:
            images = self.call(
                self.pipeline,
                prompts,
                latents=noise,
                num_inference_steps=self.steps,
                guidance_scale=self.guidance,
                output_type="pt",
                callback_on_step_end=count,
            ).images
        return images.float()

    @contextmanager
    def _part_of_the_graph(self, last: int | None) -> Iterator[Any]:
        """Checkpoints the network, and keeps all but the last steps out of the graph."""
        forward, done, with_graph = self.network.forward, 0, torch.is_grad_enabled()

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            inside = last is None or done >= self.pipeline.num_timesteps - last
            with torch.set_grad_enabled(with_graph and inside):
                return checkpoint(forward, *args, use_reentrant=False, **kwargs)

        def count(pipeline: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            nonlocal done
            done = step + 1
            return tensors

        self.network.forward = wrapped
        try:
            yield count
        finally:
            del self.network.forward
