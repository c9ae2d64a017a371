"""The student of variational score distillation: a denoiser that learns to denoise the renders."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreward_3d.config import StudentConfig
from vlmreward_3d.guidance.base import Denoiser
from vlmreward_3d.guidance.rules.base import Lesson
from vlmreward_3d.guidance.score_distillation import add_noise
from vlmreward_3d.guidance.teacher import Teacher

__all__ = ["Student"]

_ADAPTED = ["to_q", "to_k", "to_v", "to_out.0"]
"""Layers with low-rank weights: those of all attentions, as in the source."""


class Student:
    """A denoiser with additional trainable low-rank weights (LoRA; Hu et al., 2022).

    It shares all weights of the given denoiser, and none of them changes.

    Args:
        denoiser: The frozen denoiser, with a diffusers `unet`.
        config: Settings of the student.
        lesson: Training loss of the student.
        seed: Seed of the first low-rank weights.

    Raises:
        ImportError: peft is not installed.
        TypeError: The denoiser has no `unet`.
    """

    def __init__(
        self, denoiser: Denoiser, config: StudentConfig, lesson: Lesson, *, seed: int = 0
    ) -> None:
        self.config = config
        self.lesson = lesson
        self.denoiser = _adapted(denoiser, config.rank, seed)
        named = self.denoiser.unet.named_parameters()  # type: ignore[attr-defined]
        self.weights = {name: p for name, p in named if "lora_" in name}
        for weight in self.weights.values():
            weight.data = weight.data.float()  # also where the denoiser is in half precision
        self.optimizer = torch.optim.AdamW([*self.weights.values()], lr=config.learning_rate)

    def predict(
        self, teacher: Teacher, noisy: Tensor, t: Tensor, *, cameras: bool = True
    ) -> Tensor:
        """Noise (N, C, H, W) for the prompt, without words for the sides of views.

        Args:
            teacher: The denoiser with the prompts and cameras of the batch.
            noisy: (N, C, H, W) at the timesteps t (N,).
            t: Timesteps.
            cameras: True for the cameras as condition; False for zeros.
        """
        condition = teacher.cameras.condition().to(noisy)
        return self.denoiser.predict_noise(
            noisy, t, teacher.text["plain"], condition if cameras else torch.zeros_like(condition)
        )

    def predictions(
        self, teacher: Teacher, noisy: Tensor, t: Tensor, *, free: bool
    ) -> dict[str, Tensor]:
        """The student's part of a `Prediction`, also without cameras if `free` is True."""
        said = {"student": self.predict(teacher, noisy, t)}
        if free:
            said["student_free"] = self.predict(teacher, noisy, t, cameras=False)
        return said

    def learn(self, teacher: Teacher, latents: Tensor, generator: torch.Generator | None) -> float:
        """Make one step of the optimizer on latents of the renders, and return the loss.

        Timesteps, one for each group of views, are uniform over all, the noise is normal, and at
        a share of the steps (`StudentConfig.camera_dropout`) there are no cameras.
        """
        n_views, alphas = self.denoiser.n_views, teacher.alphas_cumprod.to(latents)
        t = torch.randint(len(alphas), (len(latents) // n_views,), generator=generator)
        t = t.repeat_interleave(n_views).to(latents.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        cameras = torch.rand((), generator=generator).item() >= self.config.camera_dropout
        noisy = add_noise(latents, noise, alphas[t])
        with torch.enable_grad():
            predicted = self.predict(teacher, noisy, t, cameras=cameras)
            loss = F.mse_loss(predicted, noise)
            if self.lesson.repulsion:
                with torch.no_grad():
                    (shown,) = teacher.predict(noisy, t, ("prompt",))
                loss = loss + self.lesson.repulsion * F.mse_loss(predicted, shown)
            gradients = torch.autograd.grad(loss, list(self.weights.values()))
        for weight, gradient in zip(self.weights.values(), gradients):
            weight.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def state(self) -> dict[str, Tensor]:
        """The low-rank weights and the optimizer's moments."""
        state = {f"weight.{name}": weight for name, weight in self.weights.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            state |= {f"adam.{index}.{name}": value for name, value in moments.items()}
        return state

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state`."""
        for name, weight in self.weights.items():
            weight.copy_(state[f"weight.{name}"])
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            kind, *rest = key.split(".")
            if kind == "adam":
                moments.setdefault(int(rest[0]), {})[rest[1]] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _adapted(denoiser: Denoiser, rank: int, seed: int) -> Any:
    """A denoiser that shares the weights of the given one and has additional low-rank weights."""
    if not hasattr(denoiser, "unet"):
        raise TypeError(
            f"denoiser is a {type(denoiser).__name__} without a unet; expected one of diffusers, "
            "such as load_denoiser returns: a student has low-rank weights in it"
        )
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ImportError(
            f"{error}; expected peft, which a student's low-rank weights need: "
            "pip install 'vlmreward[lora]'"
        ) from error
    shared = {id(p): p for p in denoiser.unet.parameters()}
    unet = copy.deepcopy(denoiser.unet, shared)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=_ADAPTED))
    student = copy.copy(denoiser)
    if isinstance(student, torch.nn.Module):
        student._modules = {**student._modules, "unet": unet}  # a copy shares its modules
    else:
        student.unet = unet  # type: ignore[attr-defined]
    return student
