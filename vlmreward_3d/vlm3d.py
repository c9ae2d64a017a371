"""VLM3D (Algorithm 1): score distillation and a VLM's reward teach one radiance field."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vlmreward.models.loading import checked_device
from vlmreward.utils.arguments import reward_like
from vlmreward_3d.cameras import sample_rings
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.fields.factory import build_field
from vlmreward_3d.guidance.base import Denoiser, GuidanceOutput
from vlmreward_3d.guidance.sds import ScoreDistillation
from vlmreward_3d.guidance.vlm import Reward, judge
from vlmreward_3d.rendering.base import RegularizerWeights, Views

__all__ = ["VLM3D", "DivergenceError", "StepReport", "VLM3DConfig"]

_MEMORY = 0.9
"""How much of the running gradient norms each step keeps."""


_HAZE = (0.05, 0.95)
"""Opacities of a pixel that is neither empty nor solid."""


class DivergenceError(RuntimeError):
    """The optimisation cannot go on; the parameters are still those before the failing step."""


@dataclass(frozen=True)
class StepReport:
    """Numbers of one step.

    Attributes:
        step: Steps done before this one.
        sds_loss: Value of the score-distillation loss.
        reward: Log-odds of "Yes", or None when the VLM was not asked.
        p_yes: Probability of "Yes" (Eq. 4), or None.
        vlm_weight: What multiplied the reward's gradient: lambda_VLM, or what limit or balance made
            of it; 0 where the VLM has no say.
        sds_norm: Norm of the score-distillation gradient at the pixels.
        reward_norm: Norm of the reward's gradient at the pixels, before any weight, or None.
        opacity: Mean opacity of the images.
        haze: Share of the pixels that are neither empty nor solid.
        occupied: Share of the box's cells that is occupied; 1 for splats, which have none.
    """

    step: int
    sds_loss: float
    reward: float | None
    p_yes: float | None
    vlm_weight: float
    sds_norm: float
    reward_norm: float | None
    opacity: float
    haze: float
    occupied: float


class VLM3D:
    """One asset being made: field, optimiser and the random state, with its teachers.

    Args:
        config: The run's settings.
        denoiser: The score-distillation teacher.
        reward: The VLM's reward; None leaves score distillation alone.
        device: Where the field lives and is rendered.
        concurrent: Ask the VLM while the denoiser works, for one that has a device to itself. The
            results are the same.

    Raises:
        TypeError: An argument of another type.
        ValueError: There is no such device.
    """

    def __init__(
        self,
        config: VLM3DConfig,
        denoiser: Denoiser,
        reward: Reward | None = None,
        *,
        device: torch.device | str = "cpu",
        concurrent: bool = False,
    ) -> None:
        if not isinstance(config, VLM3DConfig):
            raise TypeError(
                f"config is a {type(config).__name__}; expected a VLM3DConfig, such as "
                "vlmreward_3d.presets makes"
            )
        if reward is not None:
            reward_like(reward)
        self.config = config
        self.reward = reward
        self.pool = ThreadPoolExecutor(1) if concurrent else None
        self.device = checked_device(device) or torch.device("cpu")
        self.distil = ScoreDistillation(
            denoiser,
            config.prompt,
            negative_prompt=config.negative_prompt,
            method=config.distillation,
            guidance_scale=config.guidance_scale,
            guidance_rescale=config.guidance_rescale,
            view_prompts=config.view_prompts,
            shared_timestep=config.shared_timestep,
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.field = build_field(config, self.generator).to(self.device)
        groups = [
            {"params": chosen, "scale": scale} for chosen, scale in self.field.parameter_groups()
        ]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=0.0,
            betas=config.adam_betas,
            eps=config.adam_eps,
            weight_decay=config.weight_decay,
        )
        self.norms = torch.zeros(2, dtype=torch.float64)
        """Running gradient norms at the pixels: score distillation, reward; 0 before the first."""
        self.held: list[Tensor] = []
        """With `vlm_reuse`, the gradient of the last answer at each parameter."""
        self.retries = 0
        """How often the run has begun anew from an earlier state."""
        self.step_index = 0

    def step(self) -> StepReport:
        """One iteration of Algorithm 1.

        Returns:
            The step's numbers.

        Raises:
            Diverged: A gradient is not finite or nothing is left to see; no parameter was changed.
        """
        config, progress = self.config, self.step_index / self.config.steps
        self.field.begin_step(self.step_index, self.generator)
        rings, side = config.rings_at(progress), config.resolution_at(progress)
        cameras = sample_rings(
            rings,
            config.views_per_ring,
            fov_deg=config.fov_deg,
            elevation_deg=config.elevation_deg,
            scale=config.scale,
            elevations=config.elevations,
            generator=self.generator,
            device=self.device,
        )
        shader = self.field.sample_shader(cameras, config.views_per_ring, progress, self.generator)
        views = self.field.render(
            cameras,
            side,
            background=self._background(rings),
            shader=shader,
            normals=config.orientation_weight(progress) > 0,
            generator=self.generator,
        )
        if views.n_active_rays == 0:
            raise DivergenceError(
                f"step {self.step_index}: the field became empty, expected something to see; "
                "lower sparsity_weight or learning_rate, or try another seed"
            )

        # rounding may take a sum of weights past 1; teachers get clean pixels
        pixels = views.rgb.clamp(0, 1)
        may_ask = self.reward is not None and progress < config.vlm_until
        answer = None
        if may_ask and self.step_index % config.vlm_every == 0:
            answer = self._ask(pixels)
        sds = self.distil(
            pixels,
            cameras,
            (config.t_min(progress), config.t_max(progress)),
            self.generator,
        )
        verdict = answer() if answer else None
        self._require_finite("score distillation", sds.value, sds.gradient)
        if verdict is not None:
            self._require_finite("the reward", verdict.value, verdict.gradient)
        norms = self._updated_norms(sds, verdict)
        weight = self._weight(progress, norms) if may_ask else 0.0

        held = self._backward(views, sds, verdict, weight)
        self._require_finite("the field", *(p.grad for p in self.field.parameters()))
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate(progress) / 2**self.retries * group["scale"]
        self.optimizer.step()
        self.held = held
        self.norms = norms

        report = StepReport(
            step=self.step_index,
            sds_loss=sds.value.item(),
            reward=verdict.value.item() if verdict else None,
            p_yes=verdict.value.sigmoid().item() if verdict else None,
            vlm_weight=weight,
            sds_norm=sds.gradient.norm().item(),
            reward_norm=verdict.gradient.norm().item() if verdict else None,
            opacity=views.opacity.mean().item(),
            haze=((views.opacity > _HAZE[0]) & (views.opacity < _HAZE[1])).float().mean().item(),
            occupied=self.field.occupancy_fraction,
        )
        self.step_index += 1
        return report

    def _ask(self, pixels: Tensor) -> Callable[[], GuidanceOutput]:
        """Put the question, about all views or some that are drawn anew; the result waits for it.

        The gradient is one at all views.
        """
        assert self.reward is not None
        count = len(pixels)
        chosen = torch.arange(count)
        if self.config.vlm_views is not None and self.config.vlm_views < count:
            chosen = torch.randperm(count, generator=self.generator)[: self.config.vlm_views]
            chosen = chosen.sort().values
        chosen = chosen.to(pixels.device)
        side = self.config.vlm_resolution
        work = partial(judge, self.reward, pixels[chosen], self.config.prompt, side)
        waiting = self.pool.submit(work) if self.pool else None

        def answer() -> GuidanceOutput:
            verdict = waiting.result() if waiting else work()
            gradient = torch.zeros_like(pixels).index_copy(0, chosen, verdict.gradient)
            return GuidanceOutput(verdict.value, gradient)

        return answer

    def _backward(
        self, views: Views, sds: GuidanceOutput, verdict: GuidanceOutput | None, weight: float
    ) -> list[Tensor]:
        """Leave the gradient of all teachers and penalties at the parameters.

        Returns:
            With `vlm_reuse`, the reward's part, to be held for the next steps.
        """
        penalties = self._penalties(self.step_index / self.config.steps)
        self.optimizer.zero_grad(set_to_none=True)
        if not self.config.vlm_reuse:
            gradient = sds.gradient
            if verdict is not None:
                gradient = gradient - weight * verdict.gradient
            views.backward(gradient, penalties)
            return []
        parameters = list(self.field.parameters())
        held = self.held
        if verdict is not None:
            views.backward(verdict.gradient, RegularizerWeights(), retain_graph=True)
            held = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            self.optimizer.zero_grad(set_to_none=True)
        views.backward(sds.gradient, penalties)
        for parameter, part in zip(parameters, held):
            others = torch.zeros_like(part) if parameter.grad is None else parameter.grad
            parameter.grad = others.sub(part, alpha=weight)
        return held

    def _background(self, rings: int) -> Tensor:
        config = self.config
        color = torch.ones(rings, 3)
        if config.background == "color":
            color = torch.rand(rings, 3, generator=self.generator)
        elif config.background == "gray":
            color *= 0.1 + 0.9 * torch.rand(rings, 1, generator=self.generator)
        return color.repeat_interleave(config.views_per_ring, dim=0).to(self.device)

    def _updated_norms(self, sds: GuidanceOutput, verdict: GuidanceOutput | None) -> Tensor:
        norms = self.norms.clone()
        for index, teacher in enumerate((sds, verdict)):
            if teacher is not None:
                now = teacher.gradient.norm().double().cpu()
                before = norms[index]
                norms[index] = _MEMORY * before + (1 - _MEMORY) * now if before > 0 else now
        return norms

    def _weight(self, progress: float, norms: Tensor) -> float:
        """What multiplies the reward's gradient: lambda, what limit or balance make of it."""
        limit, balance = self.config.vlm_limit, self.config.vlm_balance
        weight = self.config.vlm_weight(progress)
        if norms[1] == 0:
            return weight if balance is None else 0.0
        ratio = (norms[0] / norms[1]).item()
        if balance is not None:
            return balance * ratio
        return weight if limit is None else min(weight, limit * ratio)

    def _penalties(self, progress: float) -> RegularizerWeights:
        config = self.config
        return RegularizerWeights(
            orientation=config.orientation_weight(progress),
            entropy=config.entropy_weight(progress),
            sparsity=config.sparsity_weight(progress),
            variation=config.variation_weight(progress),
        )

    def _require_finite(self, source: str, *tensors: Tensor | None) -> None:
        if not all(x is None or bool(x.isfinite().all()) for x in tensors):
            raise DivergenceError(
                f"step {self.step_index}: the gradient of {source} is not finite, expected finite "
                "numbers; lower learning_rate or the weights, or try another seed"
            )

    def branch_off(self, retries: int) -> None:
        """Take another way from here: fresh random numbers, and half the learning rate each time.

        Args:
            retries: How often this run has gone back, this time included.
        """
        self.retries = retries
        self.generator.manual_seed((self.config.seed + 1_000_003 * retries) % 2**63)

    def state(self) -> dict[str, Tensor]:
        """Everything a later step depends on, as flat tensors that share no memory with it."""
        state = {f"field.{k}": v for k, v in self.field.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            state |= {f"adam.{index}.{k}": v for k, v in moments.items()}
        state |= {f"held.{index}": part for index, part in enumerate(self.held)}
        state["random"] = self.generator.get_state()
        state["norms"] = self.norms
        state["retries"] = torch.tensor(self.retries)
        state["step"] = torch.tensor(self.step_index)
        return {k: v.detach().clone().contiguous() for k, v in state.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue exactly where `state()` was taken, in a run of the same configuration."""
        self.field.load_state_dict(_under("field.", state))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _under("adam.", state).items():
            index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        held = _under("held.", state)
        self.held = [held[str(i)].to(self.device) for i in range(len(held))]
        self.generator.set_state(state["random"].cpu())
        self.norms = state["norms"].cpu().clone()
        self.retries = int(state["retries"])
        self.step_index = int(state["step"])


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
