"""Guidance by the reward of a VLM."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreward.processors.resize import resize
from vlmreward.utils.arguments import reward_like, whole
from vlmreward.wrappers import ExpectationOverTransformations
from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import OBJECTIVES
from vlmreward_3d.guidance.base import GuidanceOutput

__all__ = ["Reward", "VLMGuidance"]

Reward = Callable[..., Tensor]
"""reward(images (B, V, 3, H, W) in [0, 1], prompt=str) -> (B,) float32, differentiable."""


class VLMGuidance:
    """The VLM's log-odds of "Yes" for all images seen together (VLM3D, Eq. 5): "vlm".

    Args:
        reward: The reward.
        prompt: Text prompt that the images are to match.
        resolution: Height and width in pixels of the reward's input images, resized bilinearly,
            with antialiasing where they shrink; None keeps the rendered size.
        n_transformations: Number of random transformations of the views over which the reward is
            averaged (`vlmreward.wrappers.ExpectationOverTransformations`); 0 for none.
        views_per_question: Number of views in one question; the reward is the mean over the
            questions about all views. None asks one question about all views.
        objective: Quantity that is maximized: "log-odds" of "Yes" (Eq. 5), or its
            "log-probability", whose gradient is that of the log-odds times the probability of
            "No", so that it vanishes as P("Yes") approaches 1.

    Raises:
        TypeError, ValueError: An argument has the wrong type or is out of range.
    """

    name = "vlm"

    def __init__(
        self,
        reward: Reward,
        prompt: str,
        *,
        resolution: int | None = None,
        n_transformations: int = 0,
        views_per_question: int | None = None,
        objective: str = "log-odds",
    ) -> None:
        reward_like(reward)
        if objective not in OBJECTIVES:
            raise ValueError(f"received objective={objective!r}; expected one of {OBJECTIVES}")
        whole("n_transformations", n_transformations, least=0)
        if resolution is not None:
            whole("resolution", resolution)
        if views_per_question is not None:
            whole("views_per_question", views_per_question)
        self.reward = reward
        self.prompt = prompt
        self.resolution = resolution
        self.n_transformations = n_transformations
        self.views_per_question = views_per_question
        self.objective = objective

    def __call__(
        self,
        images: Tensor,
        cameras: Cameras | None = None,
        progress: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> GuidanceOutput:
        """Evaluate the reward.

        Args:
            images: (V, 3, H, W) in [0, 1], the views of one object; no graph is kept to them.
            cameras: Not used.
            progress: Not used.
            generator: CPU source of the transformations; None for torch's global one.

        Returns:
            The reward, log-odds of "Yes", and the gradient (V, 3, H, W) of minus the objective,
            through the resize. The metrics are "reward" and "prob_yes", the probability of "Yes"
            (Eq. 4).

        Raises:
            ValueError: The number of views is no multiple of `views_per_question`.
        """
        size = self.resolution
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            shown = images if size is None else resize(images, (size, size), "bilinear")
            values = self._values(shown, self._reward(generator))
            sure = self.objective == "log-probability"
            increased = F.logsigmoid(values) if sure else values
            (gradient,) = torch.autograd.grad(increased.mean(), images)
        value = values.detach().mean()
        metrics = {"reward": value.item(), "prob_yes": value.sigmoid().item()}
        # in one layout in memory, on which the rounding of norms depends
        return GuidanceOutput(value, -gradient.contiguous(), metrics)

    def _values(self, shown: Tensor, reward: Reward) -> Tensor:
        """The reward of each question."""
        together = self.views_per_question or len(shown)
        if len(shown) % together:
            raise ValueError(
                f"received {len(shown)} views with views_per_question={together}; expected a "
                "multiple of it"
            )
        return reward(shown.unflatten(0, (-1, together)), prompt=self.prompt)

    def _reward(self, generator: torch.Generator | None) -> Reward:
        if self.n_transformations == 0:
            return self.reward
        return ExpectationOverTransformations(
            self.reward, num_samples=self.n_transformations, generator=generator
        )
