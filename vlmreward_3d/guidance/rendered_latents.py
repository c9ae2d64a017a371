"""Decoding of rendered latents for guidances of images, and checks of denoisers of latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.guidance.base import Denoiser, Guidance, GuidanceOutput
from vlmreward_3d.rendering.base import Surface
from vlmreward_3d.rendering.latents import LATENT_CHANNELS, decode_latents, latent_matrix

__all__ = ["evaluate", "require_latents"]


def evaluate(
    guidance: Guidance,
    rendered: Tensor,
    cameras: Cameras,
    progress: float,
    generator: torch.Generator,
    surface: Callable[[], Surface] | None = None,
) -> GuidanceOutput:
    """A guidance's output for images or for latents, which are decoded if it needs images.

    A guidance for latents has the attribute `accepts_latents` set to True. All others are given the
    linear decoding, clamped to [0, 1], and their gradient is propagated through the decoding. The
    clamping does not set the gradient to 0, as for rendered RGB.

    A guidance that asks where its views meet the field has `accepts_surface` set to True; it is
    called with the keyword `surface` if the field can tell.

    Args:
        guidance: The guidance.
        rendered: (N, 3, H, W) images in [0, 1], or (N, 4, H, W) latents.
        cameras: The N cameras that rendered them.
        progress: Share of the run that is done, in [0, 1].
        generator: CPU source of random numbers.
        surface: Points at which the images meet the field; None if not known.

    Returns:
        The output, with the gradient at `rendered`.
    """
    known = {}
    if surface is not None and getattr(guidance, "accepts_surface", None):
        known = {"surface": surface()}
    if rendered.shape[1] == 3 or getattr(guidance, "accepts_latents", None):
        return guidance(rendered, cameras, progress, generator, **known)
    images = decode_latents(rendered.detach()).clamp(0, 1)
    output = guidance(images, cameras, progress, generator, **known)
    at_images = output.gradient.movedim(1, -1)
    at_latents = (at_images @ latent_matrix(at_images).T / 2).movedim(-1, 1)
    return replace(output, gradient=at_latents.contiguous())


def require_latents(denoiser: Denoiser) -> None:
    """Refuse a denoiser whose latents differ from those that fields render.

    Raises:
        ValueError: The denoiser works in pixels, or on latents with another number of channels.
    """
    channels = getattr(denoiser, "latent_channels", None)
    if channels == LATENT_CHANNELS:
        return
    has = "works in pixels" if channels is None else f"has latents of {channels} channels"
    raise ValueError(
        f"received rendered latents for a {type(denoiser).__name__}, which {has}; expected a "
        f"denoiser of latents with {LATENT_CHANNELS} channels, such as Stable Diffusion 1.x or "
        "2.x or MVDream; pass another --denoiser, or set field.latents to None"
    )
