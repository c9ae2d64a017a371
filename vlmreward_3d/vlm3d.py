"""VLM3D (Algorithm 1): a radiance field, optimized by score distillation and a VLM's reward."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vlmreward.models.devices import checked_device
from vlmreward_3d.cameras import Cameras, sample_groups
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.errors import DivergenceError
from vlmreward_3d.fields.factory import build_field
from vlmreward_3d.guidance.base import Guidance
from vlmreward_3d.guidance.weighting import GuidanceSum, WeightedGuidance
from vlmreward_3d.rendering.base import RegularizerWeights, Views

__all__ = ["VLM3D", "DivergenceError", "StepReport", "VLM3DConfig"]

_SEMI_TRANSPARENT = (0.05, 0.95)
"""Range of opacities of a pixel that counts as neither empty nor solid."""
_OPTIMIZERS = {"adamw": torch.optim.AdamW, "adamax": torch.optim.Adamax}


@dataclass(frozen=True)
class StepReport:
    """Metrics and events of one step.

    Attributes:
        step: Number of steps done before this one.
        metrics: Values by name. Each guidance adds its own, prefixed by its name: "sds/loss",
            "vlm/reward" (log-odds of "Yes") and "vlm/prob_yes" at the steps of its evaluation,
            with "<name>/grad_norm" (norm of its gradient at the pixels or the rendered latents,
            without weight), and "<name>/weight" (the factor of that gradient; 0 once it has
            stopped) at every step. The field has "field/opacity" (mean opacity of the images),
            "field/semi_transparent_fraction" (of the pixels, neither empty nor solid) and
            "field/occupancy_fraction" (of the box's cells; 1 for Gaussians, which have none), and
            those of its own, such as "field/n_gaussians" (after the step).
        events: Sentences about changes of the field other than those of its parameters' values,
            such as new Gaussians; not in `to_json`.
    """

    step: int
    metrics: dict[str, float]
    events: tuple[str, ...] = field(default=(), compare=False)

    @property
    def headline(self) -> dict[str, float]:
        """The guidances' own metrics: without gradient norms, weights and those of the field."""
        return {
            name: value
            for name, value in self.metrics.items()
            if not name.startswith("field/") and not name.endswith(("/grad_norm", "/weight"))
        }

    def to_json(self) -> str:
        """One line: {"step": ..., "sds/loss": ..., ...}."""
        return json.dumps({"step": self.step, **self.metrics})

    @classmethod
    def from_json(cls, line: str) -> StepReport:
        """The report that `to_json` wrote.

        Raises:
            TypeError, ValueError: The line was not written by `to_json`.
        """
        read = json.loads(line)
        if not isinstance(read, dict) or "step" not in read:
            raise TypeError('not an object with a "step"')
        for name, value in read.items():
            if not isinstance(value, int if name == "step" else (int, float)):
                raise TypeError(f"{name} is {value!r}")
        return cls(read.pop("step"), read)


class VLM3D:
    """Optimization of one asset: its field, optimizer and random state, and its guidances.

    Args:
        config: The run's settings.
        guidances: The guidances, such as `load_guidances` returns; ratios of gradient norms are
            relative to the first. One that is no `WeightedGuidance` has weight 1.
        device: Device of the field and of its rendering.

    Raises:
        TypeError: An argument of another type.
        ValueError: There is no such device, or two guidances have the same name.
    """

    def __init__(
        self,
        config: VLM3DConfig,
        guidances: Sequence[Guidance | WeightedGuidance],
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        if not isinstance(config, VLM3DConfig):
            raise TypeError(
                f"config is a {type(config).__name__}; expected a VLM3DConfig, such as "
                "vlmreward_3d.presets makes"
            )
        self.config = config
        self.guidances = GuidanceSum(guidances)
        self.device = checked_device(device) or torch.device("cpu")
        self.generator = torch.Generator().manual_seed(config.seed)
        self._require_fresh_gradients()
        self.field = build_field(config.field, self.generator).to(self.device)
        self.optimizer = self._make_optimizer()
        self.retries = 0
        """How often the run has begun anew from an earlier state."""
        self.step_index = 0

    def _require_fresh_gradients(self) -> None:
        """Refuse guidances that cache gradients for a field whose parameters are replaced."""
        reason = self.config.field.expires_gradients
        for term in self.guidances.terms:
            if term.weighting.cache_gradient and reason is not None:
                raise ValueError(
                    f"received cache_gradient=True for the guidance {term.name!r} of a field with "
                    f"{reason}; expected False; leave one of the two out"
                )

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the field's parameters, before its first step."""
        config = self.config.optimizer
        groups = [
            {"params": chosen, "lr_scale": scale} for chosen, scale in self.field.parameter_groups()
        ]
        return _OPTIMIZERS[config.name](
            groups,
            lr=0.0,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
        )

    def step(self) -> StepReport:
        """One iteration of Algorithm 1.

        Returns:
            The step's numbers.

        Raises:
            DivergenceError: A gradient is not finite or the views are empty; no parameter has
                changed.
        """
        progress = self.step_index / self.config.steps
        self.field.begin_step(self.step_index, self.generator)
        cameras = self._sample_cameras(progress)
        views = self._render(cameras, progress)
        outputs = self.guidances(
            views.images,
            cameras,
            step=self.step_index,
            progress=progress,
            generator=self.generator,
            surface=views.surface,
        )
        outputs.backward(views, self.field.parameters(), self._regularizers(progress))
        self._update_parameters(progress)
        events = self.field.end_step(
            self.step_index,
            progress=(self.step_index + 1) / self.config.steps,
            optimizer=self.optimizer,
            generator=self.generator,
        )
        metrics = {**outputs.metrics, **self._field_metrics(views)}
        report = StepReport(self.step_index, metrics, events)
        self.step_index += 1
        return report

    def _sample_cameras(self, progress: float) -> Cameras:
        config = self.config.camera
        return sample_groups(
            int(config.n_groups(progress)),
            config.views_per_group,
            fov_deg=config.fov_deg,
            elevation_deg=config.elevation_deg,
            object_radius=config.object_radius,
            elevations=config.elevations,
            azimuth_deg=config.azimuth_deg,
            projection=config.projection,
            generator=self.generator,
            device=self.device,
        )

    def _render(self, cameras: Cameras, progress: float) -> Views:
        config = self.config.camera
        shader = self.field.sample_shader(cameras, config.views_per_group, progress, self.generator)
        views = self.field.render(
            cameras,
            int(config.resolution(progress)),
            background=self._background(int(config.n_groups(progress))),
            shader=shader,
            normals=self.field.regularizers(progress).orientation > 0,
            generator=self.generator,
        )
        if views.n_active_rays == 0:
            raise DivergenceError(
                f"step {self.step_index}: the field became empty, expected something to see; "
                "lower sparsity_weight or learning_rate, or try another seed"
            )
        return views

    def _update_parameters(self, progress: float) -> None:
        """One step of the optimizer, if all gradients are finite."""
        gradients = [p.grad for p in self.field.parameters() if p.grad is not None]
        if not all(bool(gradient.isfinite().all()) for gradient in gradients):
            raise DivergenceError(
                f"step {self.step_index}: the gradient of the field is not finite, expected "
                "finite numbers; lower learning_rate or the weights, or try another seed"
            )
        rate = self.config.optimizer.learning_rate(progress) / 2**self.retries
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.optimizer.step()

    def _field_metrics(self, views: Views) -> dict[str, float]:
        lowest, highest = _SEMI_TRANSPARENT
        between = (views.opacity > lowest) & (views.opacity < highest)
        return {
            "field/opacity": views.opacity.mean().item(),
            "field/semi_transparent_fraction": between.float().mean().item(),
            "field/occupancy_fraction": self.field.occupancy_fraction,
            **{f"field/{name}": value for name, value in self.field.metrics().items()},
        }

    def _background(self, n_groups: int) -> Tensor:
        """Colors (N, 3) behind the views, one for each group."""
        config = self.config.camera
        color = _colors(config.background, n_groups, self.generator)
        return color.repeat_interleave(config.views_per_group, dim=0).to(self.device)

    def _regularizers(self, progress: float) -> RegularizerWeights:
        config = self.config.regularizers
        return replace(
            self.field.regularizers(progress),
            entropy=config.entropy_weight(progress),
            sparsity=config.sparsity_weight(progress),
        )

    def reseed(self, retries: int) -> None:
        """Change the further course: new random numbers, and half the learning rate for each retry.

        Args:
            retries: Number of times that this run has gone back, this time included.
        """
        self.retries = retries
        self.generator.manual_seed((self.config.seed + 1_000_003 * retries) % 2**63)

    def state(self) -> dict[str, Tensor]:
        """Everything a later step depends on, as a flat dict of copied tensors."""
        state = {f"field.{k}": v for k, v in self.field.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            state |= {f"adam.{index}.{k}": v for k, v in moments.items()}
        state |= {f"guidance.{k}": v for k, v in self.guidances.state().items()}
        state["random"] = self.generator.get_state()
        state["retries"] = torch.tensor(self.retries)
        state["step"] = torch.tensor(self.step_index)
        return {k: v.detach().clone().contiguous() for k, v in state.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue exactly where `state()` was taken, in a run of the same configuration."""
        self.field.load_state_dict(_under("field.", state))
        self.optimizer = self._make_optimizer()  # the field may have other parameters now
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _under("adam.", state).items():
            index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.guidances.load_state(_under("guidance.", state), self.device)
        self.generator.set_state(state["random"].cpu())
        self.retries = int(state["retries"])
        self.step_index = int(state["step"])


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _colors(background: str, count: int, generator: torch.Generator) -> Tensor:
    """Colors (count, 3) of a kind of background."""
    if background == "color":
        return torch.rand(count, 3, generator=generator)
    level = torch.ones(count, 1)
    if background == "gray":
        level = 0.1 + 0.9 * torch.rand(count, 1, generator=generator)
    elif background == "mid-gray":
        level = level / 2
    elif background == "black-or-white":
        level = torch.rand(count, 1, generator=generator).round()
    return level.expand(-1, 3)
