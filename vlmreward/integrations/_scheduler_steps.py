"""Signal and noise levels before and after the latest step of a scheduler of diffusers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["NoiseLevels", "noise_levels"]

_SUPPORTED = (
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
)


@dataclass(frozen=True)
class NoiseLevels:
    """A step from x = a z + s e to x' = a' z + s' e, z the predicted original, e the noise.

    Attributes:
        signal: a and a'.
        noise: s and s'.
        prediction: z, where the scheduler keeps it.
        adds_noise: the step exchanges noise for fresh noise, as SDE-DPM-Solver++ does (Lu et al.,
            2022).
    """

    signal: tuple[float, float]
    noise: tuple[float, float]
    prediction: torch.Tensor | None = None
    adds_noise: bool = False

    @property
    def gain(self) -> float:
        """Derivative dx'/dz at fixed x: a' (1 - r) with r = s' a / (s a').

        If the step adds noise, it is a' (1 - r^2). r = exp(-h), with h the step in half the
        logarithm of the signal-to-noise ratio.
        """
        kept = self.noise[1] * self.signal[0] / (self.noise[0] * self.signal[1])
        return self.signal[1] * (1 - (kept**2 if self.adds_noise else kept))

    def predicted_original(
        self, before: torch.Tensor | None, after: torch.Tensor
    ) -> torch.Tensor | None:
        """z in float32 or float64, from the samples x and x'; None where it cannot be known."""
        if self.prediction is not None:
            return self.prediction.to(_wide(self.prediction))
        if before is None or self.gain == 0:
            return None
        dtype = _wide(after)
        return (after.to(dtype) - self.noise[1] / self.noise[0] * before.to(dtype)) / self.gain


def noise_levels(scheduler: Any, timestep: Any) -> NoiseLevels:
    """The levels of signal and noise before and after a scheduler's latest step.

    Args:
        scheduler: a scheduler of diffusers that has just taken a step.
        timestep: the timestep of that step.

    Raises:
        TypeError: a scheduler whose steps do not determine the predicted original.
    """
    # by name, so that diffusers need not be there; a subclass may take other steps, and is refused
    kind = type(scheduler).__name__
    if kind == "DDIMScheduler":
        return _ddim(scheduler, int(timestep))
    if kind == "EulerDiscreteScheduler":
        sigma, following = _sigmas(scheduler)
        return NoiseLevels((1.0, 1.0), (sigma, following))
    if kind == "FlowMatchEulerDiscreteScheduler":
        if scheduler.config.stochastic_sampling:
            raise _refused(scheduler, "stochastic_sampling=True")
        sigma, following = _sigmas(scheduler)
        return NoiseLevels((1 - sigma, 1 - following), (sigma, following))
    if kind == "DPMSolverMultistepScheduler":
        return _dpm_solver(scheduler)
    raise _refused(scheduler)


def _ddim(scheduler: Any, timestep: int) -> NoiseLevels:
    config = scheduler.config
    for option in ("clip_sample", "thresholding"):
        if getattr(config, option):
            raise _refused(scheduler, f"{option}=True")
    previous = timestep - config.num_train_timesteps // scheduler.num_inference_steps
    last = scheduler.final_alpha_cumprod
    bar = float(scheduler.alphas_cumprod[timestep])
    following = float(scheduler.alphas_cumprod[previous] if previous >= 0 else last)
    return NoiseLevels((bar**0.5, following**0.5), ((1 - bar) ** 0.5, (1 - following) ** 0.5))


def _dpm_solver(scheduler: Any) -> NoiseLevels:
    if not scheduler.config.algorithm_type.endswith("dpmsolver++"):
        raise _refused(scheduler, f"algorithm_type={scheduler.config.algorithm_type!r}")
    sigma, following = _sigmas(scheduler)
    if scheduler.config.get("use_flow_sigmas"):
        signal, noise = (1 - sigma, 1 - following), (sigma, following)
    else:
        signal = ((1 + sigma**2) ** -0.5, (1 + following**2) ** -0.5)
        noise = (sigma * signal[0], following * signal[1])
    sde = scheduler.config.algorithm_type.startswith("sde")
    return NoiseLevels(signal, noise, scheduler.model_outputs[-1], adds_noise=sde)


def _sigmas(scheduler: Any) -> tuple[float, float]:
    """Sigmas before and after the latest step; the scheduler already points at the next step."""
    index = scheduler.step_index - 1
    return float(scheduler.sigmas[index]), float(scheduler.sigmas[index + 1])


def _wide(tensor: torch.Tensor) -> torch.dtype:
    # a difference of samples over a small step: half precision would leave little of it
    return torch.promote_types(tensor.dtype, torch.float32)


def _refused(scheduler: Any, setting: str = "") -> TypeError:
    name = type(scheduler).__name__ + (f" with {setting}" if setting else "")
    return TypeError(
        f"the pipeline's scheduler is {name}, whose steps do not tell what was predicted; expected "
        f"one of {', '.join(_SUPPORTED)}, without clipping and added noise: pipe.scheduler = "
        "DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)"
    )
