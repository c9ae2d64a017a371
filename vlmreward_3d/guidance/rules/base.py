"""Interface of distillation rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from vlmreward_3d.guidance.rules.noising import Noising, fresh_noise
from vlmreward_3d.guidance.score_distillation import (
    classifier_free_guidance,
    predicted_original,
    rescale_guidance,
)

__all__ = ["Gradient", "Lesson", "Prediction", "Rule"]


@dataclass(frozen=True)
class Prediction:
    """A denoiser's prediction for noisy latents, from which a rule computes a gradient.

    Attributes:
        latents: (N, C, H, W) z of the rendered images, without a graph.
        noise: (N, C, H, W) eps that was added.
        noisy: (N, C, H, W) z_t.
        alpha_bar: (N,) abar of each image's timestep.
        unconditional: (N, C, H, W) noise predicted for the negative prompt.
        conditional: (N, C, H, W) noise predicted for the prompt.
        guidance_scale: Scale of classifier-free guidance.
        guidance_rescale: Factor of `rescale_guidance`.
        group_size: Number of consecutive images that show one object to the denoiser.
        level: (N,) timesteps as shares of the denoiser's, in [0, 1); None where no rule asks.
        progress: Share of the run that is done, in [0, 1].
        empty: (N, C, H, W) noise predicted for the empty prompt; None where no rule asks.
        student: (N, C, H, W) noise predicted by the student; None for a rule without one.
        student_free: The same, without cameras; None where no rule asks.
    """

    latents: Tensor
    noise: Tensor
    noisy: Tensor
    alpha_bar: Tensor
    unconditional: Tensor
    conditional: Tensor
    guidance_scale: float
    guidance_rescale: float
    group_size: int
    level: Tensor | None = None
    progress: float = 0.0
    empty: Tensor | None = None
    student: Tensor | None = None
    student_free: Tensor | None = None

    @property
    def guided(self) -> Tensor:
        """(N, C, H, W) noise with classifier-free guidance."""
        return classifier_free_guidance(self.unconditional, self.conditional, self.guidance_scale)

    @property
    def original(self) -> Tensor:
        """(N, C, H, W) predicted original with guidance, rescaled (Lin et al., 2024)."""
        return rescale_guidance(
            predicted_original(self.noisy, self.guided, self.alpha_bar),
            predicted_original(self.noisy, self.conditional, self.alpha_bar),
            self.guidance_rescale,
            self.group_size,
        )


Gradient: TypeAlias = Callable[[Prediction], Tensor]
"""A gradient (N, C, H, W) at the latents, divided by the number N of images."""


@dataclass(frozen=True)
class Lesson:
    """Training loss of a student: mean((eps_student - eps)^2) plus an optional repulsion term.

    The term is repulsion * mean((eps_student - eps_c)^2).

    Attributes:
        repulsion: gamma of adversarial score distillation (Wei et al., 2024): a negative number
            pushes the student away from the denoiser's prediction eps_c for the prompt; 0 is
            variational score distillation.
    """

    repulsion: float = 0.0


@dataclass(frozen=True)
class Rule:
    """A distillation rule: the noising of the latents, and the gradient from the prediction.

    Attributes:
        gradient: Function of the denoiser's prediction for the noisy latents.
        noising: Function that makes the latents noisy.
        draws: True if the noising draws random numbers, so that several noises can be ranked.
        asks_empty: True if the gradient needs `Prediction.empty`.
        lesson: Training loss of the student; None for a rule without a student.
        asks_free: True if the gradient needs `Prediction.student_free`.
        asks_surface: True if the noising needs `Teacher.surface`.
        asks_regions: True if the prediction for the prompt is composed of those for regions.
    """

    gradient: Gradient
    noising: Noising = fresh_noise
    draws: bool = True
    asks_empty: bool = False
    lesson: Lesson | None = None
    asks_free: bool = False
    asks_surface: bool = False
    asks_regions: bool = False

    def __call__(self, prediction: Prediction) -> Tensor:
        """The gradient (N, C, H, W) at the latents, divided by the number N of images."""
        return self.gradient(prediction)
