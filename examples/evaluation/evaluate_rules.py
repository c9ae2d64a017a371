"""Fixed points of distillation rules on Gaussian targets, measured and by theory:

    python examples/evaluation/evaluate_rules.py

A prompt stands for N(mean, variance) in every element of z; its denoiser is known:
eps(z_t) = s (z_t - a mean) / (a^2 variance + s^2), with a = sqrt(abar) and s = sqrt(1 - abar). All
gradients but those of a student and the clamped ones are affine in z and in the noise: the expected
gradient is the gradient without noise, and two of them give the point where it is 0. Prints a table
in float64.
"""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Iterator, Mapping
from unittest import mock

import torch
from torch import Tensor

from vlmreward_3d.config import RegionConfig
from vlmreward_3d.guidance.rules import RULES, Prediction, ism, sdi
from vlmreward_3d.guidance.score_distillation import add_noise
from vlmreward_3d.guidance.sds import ScoreDistillation
from vlmreward_3d.guidance.teacher import Prompts
from vlmreward_3d.presets import blocks
from vlmreward_3d.rendering.base import Surface
from vlmreward_3d.rendering.evaluation import evaluation_cameras
from vlmreward_3d.schedule import Schedule

Known = Mapping[str, tuple[float, float]]
T, LAST = 1000, 1.5
"""Timesteps, and the angle of the last one: abar = cos^2, in equal steps of the angle."""
DIFFERENT: Known = {
    "prompt": (0.5, 0.04),
    "negative": (-0.3, 0.09),
    "": (0.1, 0.25),
    "region": (0.7, 0.06),
}
EQUAL: Known = {text: (mean, 1.0) for text, (mean, _) in DIFFERENT.items()}
"""Mean and variance of each text."""
EVERYWHERE = RegionConfig(prompt="region", low=(-9.0, -9.0, -9.0), high=(9.0, 9.0, 9.0))
"""A region that is seen in all pixels."""
CAMERAS = evaluation_cameras(blocks("any").camera, 2)


class Gaussians:
    """A denoiser of single views that knows the Gaussian of each text."""

    n_views = 1

    def __init__(self, known: Known) -> None:
        self.known = known
        angles = torch.linspace(0, LAST, T, dtype=torch.float64)
        self.alphas_cumprod = angles.cos().square()

    def encode_text(self, texts: list[str]) -> Tensor:
        return torch.tensor([self.known[text] for text in texts], dtype=torch.float64)[:, None]

    def to_latents(self, images: Tensor) -> Tensor:
        return images * 2 - 1

    def predict_noise(self, noisy: Tensor, t: Tensor, text: Tensor, cameras: Tensor) -> Tensor:
        mean, variance = text[:, 0, :, None, None, None].unbind(1)
        abar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        a, s = abar.sqrt(), (1 - abar).sqrt()
        return s * (noisy - a * mean) / (a**2 * variance + s**2)


@contextlib.contextmanager
def expectation() -> Iterator[None]:
    """Noise is 0, and an inversion's steps are one timestep, for which theory is known."""

    def zeros(shape, generator=None):
        return torch.zeros(shape, dtype=torch.float64)

    with (
        mock.patch.object(torch, "randn", zeros),
        mock.patch.object(ism, "STEP", 1 / T),
        mock.patch.object(sdi, "STEP", 1 / T),
    ):
        yield


def _distillation(model: Gaussians, rule: str, scale: float, level: float) -> ScoreDistillation:
    """Distillation at one noise level, with a region that covers everything if the rule has any."""
    at = Schedule.constant(level)
    return ScoreDistillation(
        model,
        "prompt",
        negative_prompt="negative",
        rule=rule,
        guidance_scale=scale,
        t_min=at,
        t_max=at,
        regions=(EVERYWHERE,) if RULES[rule].asks_regions else (),
    )


def gradient(
    rule: str,
    z: float,
    *,
    level: float,
    scale: float,
    known: Known = DIFFERENT,
    progress: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """N times the gradient (2, 3, 4, 4) at latents that are z everywhere."""
    distillation = _distillation(Gaussians(known), rule, scale, level)
    images = torch.full((2, 3, 4, 4), (z + 1) / 2, dtype=torch.float64)
    output = distillation(images, CAMERAS, progress, torch.Generator().manual_seed(seed))
    return output.gradient  # 1 / N is 1 / 2, and 2 by the latents' 2 x - 1


def fixed_point(rule: str, **settings) -> float:
    """Root of the expected gradient, which is affine in z."""
    with expectation():
        at0, at1 = (gradient(rule, z, **settings).flatten()[0].item() for z in (0.0, 1.0))
    return at0 / (at0 - at1)


def a_and_s(level: float) -> tuple[float, float]:
    """cos and sin of the angle of a noise level."""
    angle = LAST * int(level * T) / (T - 1)
    return math.cos(angle), math.sin(angle)


def pulls(level: float, known: Known) -> dict[str, float]:
    """Slope of the prediction in z for each text."""
    a, s = a_and_s(level)
    return {text: a * s / (a * a * variance + s * s) for text, (_, variance) in known.items()}


def theory(rule: str, *, level: float, scale: float, known: Known) -> float:
    """The fixed point; for "ism" and "sdi" at variances of 1, and for "ism" at scale 1."""
    (a, s), pull = a_and_s(level), pulls(level, known)
    mean = {text: m for text, (m, _) in known.items()}
    if rule == "ism":
        a_s, s_s = a_and_s(level - ism.INTERVAL)
        apart = (s * a_s - a * s_s) * _shrinking(level - ism.INTERVAL)
        return mean[""] + (mean["prompt"] - mean[""]) * s / apart
    if rule == "sdi":
        forward = mean["negative"] + scale * (mean["prompt"] - mean["negative"])
        back = mean[""] + sdi.SCALE * (mean["prompt"] - mean[""])
        share = a * (_shrinking(level) - a) / s
        return (s * forward - share * back) / (s - share)
    if rule == "csd":
        terms = {"prompt": 1.0, "negative": -1.0}
    elif rule == "semantic-sds":
        terms = {"region": scale, "negative": 1 - scale}
    elif rule == "nfsd":
        terms = {"prompt": scale, "": 1 - scale, "negative": 0.0 if level < 0.2 else -1.0}
    else:
        terms = {"prompt": scale, "negative": 1 - scale}
    if rule == "rfds-rev":  # the noise is that for the prompt, which the guided one contains
        terms["prompt"] += sum(k * pull[text] * s / a for text, k in terms.items()) - 1
    total = sum(k * pull[text] for text, k in terms.items())
    return sum(k * pull[text] * mean[text] for text, k in terms.items()) / total


def _shrinking(level: float) -> float:
    """The factor of z - m after an inversion in steps of one timestep, at a variance of 1."""
    return math.cos(LAST / (T - 1)) ** int(level * T)


CASES = [
    *(
        (rule, DIFFERENT, k)
        for rule in ("x0", "sds", "semantic-sds", "sjc", "rfds", "rfds-rev")
        for k in (1.0, 4.0)
    ),
    ("csd", DIFFERENT, 4.0),
    ("nfsd", DIFFERENT, 4.0),
    ("ism", EQUAL, 1.0),
    ("sdi", EQUAL, 3.0),
]
LEVELS = (0.1, 0.5, 0.9)


def particles(rule: str, steps: int = 600) -> tuple[float, float]:
    """Numbers that a rule moves on N(0.5, 0.04), with a student that fits them exactly.

    400 numbers, spread over [-2, 3] at first, in steps of 0.2 at abar = 0.5.

    Returns:
        Their mean and variance at the end.
    """
    mean, variance, abar = 0.5, 0.04, 0.5
    z = torch.linspace(-2, 3, 400, dtype=torch.float64).reshape(-1, 1, 1, 1)
    draws = torch.Generator().manual_seed(0)

    def denoised(noisy: Tensor, m: float, v: float) -> Tensor:
        return (1 - abar) ** 0.5 * (noisy - abar**0.5 * m) / (abar * v + 1 - abar)

    for _ in range(steps):
        noise = torch.randn(z.shape, generator=draws, dtype=torch.float64)
        noisy = add_noise(z, noise, torch.tensor(abar))
        told = denoised(noisy, mean, variance)
        given = Prediction(
            latents=z,
            noise=noise,
            noisy=noisy,
            alpha_bar=torch.full((len(z),), abar, dtype=torch.float64),
            unconditional=told,
            conditional=told,
            guidance_scale=1.0,
            guidance_rescale=0.0,
            group_size=1,
            student=denoised(noisy, z.mean().item(), z.var(correction=0).item()),
        )
        z = z - 0.2 * len(z) * RULES[rule](given)
    return z.mean().item(), z.var(correction=0).item()


def left_by_noise() -> float:
    """The variance that "sds" leaves in `particles`: that of a step's noise, and no other.

    With g = A (z - m) + B eps it is step^2 B^2 / (1 - (1 - step A)^2).
    """
    abar, step, variance = 0.5, 0.2, 0.04
    s2 = 1 - abar
    share = s2**0.5 / (abar * variance + s2)
    pull, push = s2 * share * abar**0.5, s2 * (share * s2**0.5 - 1)
    return (step * push) ** 2 / (1 - (1 - step * pull) ** 2)


def flow_of_samples(rule: str, side: int = 8) -> tuple[Tensor, Tensor]:
    """Images that a rule carries from the highest noise level to the lowest, and their noise.

    A step of gradient descent at a level is as long as s / a falls to the next one, as in DDIM's
    steps for (z_t - s eps) / a. All pixels see a surface around the cameras' origin.

    Returns:
        The ends (2, 3, side, side), and the noise of the same pixels that "cfd" has throughout.
    """
    model, scale = Gaussians(DIFFERENT), 1.0
    depth = torch.full((2, 1, side, side), 1.0, dtype=torch.float64)
    surface = Surface(depth, torch.ones_like(depth))
    levels = (1 / model.alphas_cumprod - 1).sqrt().tolist()
    images = torch.full((2, 3, side, side), (DIFFERENT["prompt"][0] + 1) / 2, dtype=torch.float64)
    draws = torch.Generator().manual_seed(0)
    prompts = Prompts(model, "prompt", "negative", of_views=False)
    teacher = prompts.seen_from(CAMERAS, images, 0, surface)
    t = torch.full((2,), T - 1)
    noise, _ = RULES["cfd"].noising(teacher, images, t, torch.Generator())
    for index in range(T - 1, 0, -1):
        distillation = _distillation(model, rule, scale, (index + 0.5) / T)
        output = distillation(images, CAMERAS, 0.0, draws, surface)
        # N is 2, the latents are 2 x - 1, and so is their gradient
        images = images - (levels[index] - levels[index - 1]) * output.gradient / 2
    return images * 2 - 1, noise


def main(arguments: list[str] | None = None) -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    print(
        "| rule | scale | noise level | measured | theory | difference |\n|---|--:|--:|--:|--:|--:|"
    )
    for rule, known, scale in CASES:
        for level in LEVELS:
            found = fixed_point(rule, level=level, scale=scale, known=known)
            expected = theory(rule, level=level, scale=scale, known=known)
            apart = abs(found - expected)
            print(
                f"| `{rule}` | {scale:g} | {level} | {found:.6f} | {expected:.6f} | {apart:.0e} |"
            )
    print("\n| rule | mean | variance | theory |\n|---|--:|--:|--:|")
    for rule, variance in (("vsd", 0.04), ("sds", left_by_noise())):
        mean, spread = particles(rule)
        print(f"| `{rule}` | {mean:.4f} | {spread:.6f} | 0.5, {variance:.6f} |")
    ends, noise = flow_of_samples("cfd")
    mean, variance = DIFFERENT["prompt"]
    apart = (ends - mean - variance**0.5 * noise).abs().max().item()
    print("\n| rule | largest distance of an end from the sample of its noise |\n|---|--:|")
    print(f"| `cfd` | {apart:.4f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
