"""Measure the share of captions that a denoiser tells apart.

``python -m vlmreward_3d.blocks.training.measure_denoiser``.

A denoiser that has learned the meaning of a caption predicts the noise of a scene better under the
scene's own caption than under another one. The share of scenes where it does is 0.5 for differences
of captions that it has not learned.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vlmreward_3d.blocks.training.train_denoiser import images_of
from vlmreward_3d.blocks.world.dataset import sample_cameras
from vlmreward_3d.blocks.world.descriptions import (
    caption,
    exchange_colors,
    exchange_order,
    same_meaning,
)
from vlmreward_3d.blocks.world.raycast import raycast
from vlmreward_3d.blocks.world.scenes import Scene, sample_scene
from vlmreward_3d.guidance.diffusion.pixel_space import PixelDiffusion
from vlmreward_3d.guidance.score_distillation import add_noise

__all__ = ["caption_choices"]

_TIMESTEPS = (600, 800)
_GRAY = 0.6


def caption_choices(
    model: PixelDiffusion, count: int, *, seed: int = 31_337
) -> dict[str, list[bool]]:
    """Compare the noise predictions for held-out pairs under the true caption and under other ones.

    Args:
        model: the denoiser.
        count: number of pairs.
        seed: fixes the pairs, their cameras and the noise.

    Returns:
        By kind of the other caption ("colors" exchanged, "order" exchanged where one thing is on
        top of the other, "another scene"): True for each pair whose noise is predicted better under
        the true caption. Pairs that have no such other caption are left out.
    """
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    choices: dict[str, list[bool]] = {"colors": [], "order": [], "another scene": []}
    for i in tqdm(range(count), desc="pairs"):
        scene, ring = sample_scene(rng, pair=True), sample_cameras(generator, 1)
        described = {
            "true": scene,
            "another scene": sample_scene(rng, pair=True),
            **_exchanged(scene),
        }
        rgba = (raycast(scene, ring, 64).rgba * 255).round().to(torch.uint8)
        images = images_of(rgba, torch.full((len(rgba),), _GRAY))
        noise = torch.randn(images.shape, generator=generator)
        camera = ring.condition().float()
        errors = {}
        for kind, other in described.items():
            text = caption(other, np.random.default_rng([seed, i]))
            errors[kind] = _error(model, images, noise, camera, text)
        true = errors.pop("true")
        for kind, error in errors.items():
            choices[kind].append(true < error)
    return choices


def _exchanged(scene: Scene) -> dict[str, Scene]:
    """The pair with exchanged colors and order, as far as that makes a difference."""
    a, b = scene.things
    found = {"order": exchange_order(scene)}
    if a.shape != b.shape:  # of equal shapes, it is the order that their colors tell
        found["colors"] = exchange_colors(scene)
    return {kind: other for kind, other in found.items() if not same_meaning(other, scene)}


@torch.no_grad()
def _error(
    model: PixelDiffusion, images: Tensor, noise: Tensor, camera: Tensor, text: str
) -> float:
    embedding = model.encode_text([text]).expand(len(images), -1, -1)
    total = 0.0
    for timestep in _TIMESTEPS:
        t = torch.full((len(images),), timestep)
        noisy = add_noise(images, noise, model.alphas_cumprod[timestep])
        predicted = model.predict_noise(noisy, t, embedding, camera)
        total += (predicted - noise).square().mean().item()
    return total


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--denoiser", default="builtin/blocks", help="built-in name or folder")
    parser.add_argument("--pairs", type=int, default=200, help="held-out pairs")
    args = parser.parse_args()
    choices = caption_choices(PixelDiffusion.from_pretrained(args.denoiser), args.pairs)
    for kind, right in choices.items():
        tqdm.write(f"{kind}: {sum(right)} of {len(right)}")


if __name__ == "__main__":
    main()
