"""The weighted sum of guidances (VLM3D, Eq. 6, for any number of them)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import WeightingConfig
from vlmreward_3d.errors import DivergenceError
from vlmreward_3d.guidance.base import Guidance, GuidanceOutput, Stateful
from vlmreward_3d.guidance.rendered_latents import evaluate
from vlmreward_3d.rendering.base import RegularizerWeights, Surface, Views, part_of

__all__ = ["GuidanceSum", "WeightedGuidance", "WeightedOutputs"]

_MEMORY = 0.9
"""Share of the running gradient norms that each step keeps."""


@dataclass(frozen=True)
class WeightedGuidance:
    """A guidance with its weighting in a sum of guidances.

    Attributes:
        guidance: The guidance.
        weighting: Steps and views of its evaluation, and its weight.
        concurrent: Evaluate it on a separate thread while the other guidances work, for a guidance
            with its own device. The results are the same, unless it draws random numbers: then it
            draws them from a copy of the generator.
    """

    guidance: Guidance
    weighting: WeightingConfig = field(default_factory=WeightingConfig)
    concurrent: bool = False


class _Term:
    """A guidance of a sum, and its state in a run."""

    def __init__(self, weighted: WeightedGuidance) -> None:
        self.guidance, self.weighting = weighted.guidance, weighted.weighting
        self.name = self.guidance.name
        self.pool = ThreadPoolExecutor(1) if weighted.concurrent else None
        self.norm = torch.zeros((), dtype=torch.float64)
        """Running norm of the gradient at the pixels; 0 before the first output."""
        self.cache: list[Tensor] = []
        """With `cache_gradient`, the gradient of the last output at each parameter."""

    def start(
        self,
        images: Tensor,
        cameras: Cameras,
        *,
        step: int,
        progress: float,
        generator: torch.Generator,
        surface: Callable[[], Surface] | None,
    ) -> Callable[[], GuidanceOutput | None]:
        """Begin an evaluation, if it is this step's turn; the returned function waits for it."""
        if not self._is_on(progress) or step % self.weighting.interval:
            return lambda: None
        if self.pool is not None:
            source = torch.Generator()
            source.set_state(generator.get_state())
        shown = self._choose_views(len(images), generator)
        if shown is None:
            seen, part = (images, cameras), surface
        else:
            shown = shown.to(images.device)
            seen, part = (images[shown], cameras[shown]), part_of(surface, shown)
        work = partial(evaluate, self.guidance, *seen, progress, surface=part)
        wait = (
            partial(work, generator) if self.pool is None else self.pool.submit(work, source).result
        )

        def finish() -> GuidanceOutput:
            output = wait()
            if shown is None:
                return output
            gradient = torch.zeros_like(images).index_copy(0, shown, output.gradient)
            return replace(output, gradient=gradient)

        return finish

    def _is_on(self, progress: float) -> bool:
        return self.weighting.start_at <= progress < self.weighting.stop_at

    def _choose_views(self, count: int, generator: torch.Generator) -> Tensor | None:
        n_views = self.weighting.n_views
        if n_views is None or n_views >= count:
            return None
        return torch.randperm(count, generator=generator)[:n_views].sort().values

    def update_norm(self, output: GuidanceOutput) -> None:
        now = output.gradient.norm().double().cpu()
        self.norm = _MEMORY * self.norm + (1 - _MEMORY) * now if self.norm > 0 else now

    def weight(self, progress: float, reference_norm: Tensor) -> float:
        """Factor of the gradient: the schedule, capped or replaced relative to the reference."""
        cap, balance = self.weighting.max_grad_ratio, self.weighting.grad_ratio
        if not self._is_on(progress):
            return 0.0
        weight = self.weighting.weight(progress)
        if self.norm == 0:
            return weight if balance is None else 0.0
        ratio = (reference_norm / self.norm).item()
        if balance is not None:
            return balance * ratio
        return weight if cap is None else min(weight, cap * ratio)


@dataclass(frozen=True)
class WeightedOutputs:
    """The outputs of a step's guidances, and their weights.

    Attributes:
        terms: The guidances.
        outputs: Output of each guidance; None if it was not evaluated at this step.
        weights: Factor of each guidance's gradient.
    """

    terms: Sequence[_Term]
    outputs: Sequence[GuidanceOutput | None]
    weights: Sequence[float]

    @property
    def metrics(self) -> dict[str, float]:
        """Each guidance's metrics as "name/metric", with "grad_norm" at the pixels and "weight"."""
        found: dict[str, float] = {}
        for term, output, weight in zip(self.terms, self.outputs, self.weights):
            if output is not None:
                norm = output.gradient.norm().item()
                named = {**output.metrics, "grad_norm": norm}
                found |= {f"{term.name}/{key}": value for key, value in named.items()}
            found[f"{term.name}/weight"] = weight
        return found

    def backward(
        self,
        views: Views,
        parameters: Iterable[nn.Parameter],
        regularizers: RegularizerWeights,
    ) -> None:
        """Replace the parameters' gradients by that of the weighted sum and the regularizers.

        Args:
            views: The views that the guidances have evaluated.
            parameters: Parameters of the field.
            regularizers: Weights of the regularizers.
        """
        parameters = list(parameters)
        _clear(parameters)
        total = torch.zeros_like(views.rgb)
        for term, output, weight in zip(self.terms, self.outputs, self.weights):
            if output is None:
                continue
            if term.weighting.cache_gradient:
                views.backward(output.gradient, RegularizerWeights(), retain_graph=True)
                term.cache = [_gradient(p) for p in parameters]
                _clear(parameters)
            else:
                total = total + weight * output.gradient
        views.backward(total, regularizers)
        for term, weight in zip(self.terms, self.weights):
            for parameter, part in zip(parameters, term.cache):
                parameter.grad = _gradient(parameter).add(part, alpha=weight)


class GuidanceSum:
    """The weighted sum of guidances.

    Ratios of gradient norms (`max_grad_ratio`, `grad_ratio`) are relative to the first guidance.
    Guidances draw random numbers in their order, after those that choose views.

    Args:
        guidances: At least one guidance, all with different names; a guidance that is not a
            `WeightedGuidance` has weight 1 at every step.

    Raises:
        TypeError: Not a sequence of guidances.
        ValueError: There is no guidance, two have the same name, or the first has a ratio.
    """

    def __init__(self, guidances: Sequence[Guidance | WeightedGuidance]) -> None:
        if not isinstance(guidances, Sequence):
            raise TypeError(
                f"guidances is a {type(guidances).__name__}; expected a sequence of guidances, "
                "such as load_guidances returns"
            )
        weighted = [
            g if isinstance(g, WeightedGuidance) else WeightedGuidance(g) for g in guidances
        ]
        for each in weighted:
            if not (callable(each.guidance) and hasattr(each.guidance, "name")):
                raise TypeError(
                    f"received a {type(each.guidance).__name__} among the guidances; expected a "
                    "Guidance, such as ScoreDistillation or VLMGuidance"
                )
        names = [each.guidance.name for each in weighted]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"received guidances named {names}; expected at least one, with different names"
            )
        first = weighted[0].weighting
        if first.max_grad_ratio is not None or first.grad_ratio is not None:
            raise ValueError(
                f"received a gradient ratio for {names[0]!r}, the first guidance; expected None: "
                "ratios are relative to it"
            )
        self.terms = [_Term(each) for each in weighted]

    def __call__(
        self,
        images: Tensor,
        cameras: Cameras,
        *,
        step: int,
        progress: float,
        generator: torch.Generator,
        surface: Callable[[], Surface] | None = None,
    ) -> WeightedOutputs:
        """Evaluate the guidances that are due at this step.

        Args:
            images: (N, 3, H, W) in [0, 1], or (N, 4, H, W) latents.
            cameras: The N cameras that rendered them.
            step: Number of steps done before.
            progress: Share of the run that is done, in [0, 1].
            generator: CPU source of random numbers.
            surface: Function that computes `Views.surface`.

        Raises:
            DivergenceError: A value or gradient is not finite.
        """
        begin = partial(
            _Term.start,
            images=images,
            cameras=cameras,
            step=step,
            progress=progress,
            generator=generator,
            surface=surface,
        )
        # the reference works last, so that concurrent ones work meanwhile
        pending = [begin(term) for term in reversed(self.terms)]
        outputs = [finish() for finish in reversed(pending)]
        for term, output in zip(self.terms, outputs):
            if output is not None:
                _require_finite(term.name, step, output)
                term.update_norm(output)
        weights = [term.weight(progress, self.terms[0].norm) for term in self.terms]
        return WeightedOutputs(self.terms, outputs, weights)

    def state(self) -> dict[str, Tensor]:
        """The running norms, cached gradients, and the states of guidances that have one."""
        state = {f"{term.name}.norm": term.norm for term in self.terms}
        for term in self.terms:
            state |= {f"{term.name}.cache.{i}": part for i, part in enumerate(term.cache)}
            if isinstance(term.guidance, Stateful):
                own = term.guidance.state()
                state |= {f"{term.name}.own.{key}": value for key, value in own.items()}
        return state

    def load_state(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Continue from a `state`, with cached gradients on `device`."""
        for term in self.terms:
            term.norm = state[f"{term.name}.norm"].cpu().clone()
            prefix = f"{term.name}.cache."
            count = sum(key.startswith(prefix) for key in state)
            term.cache = [state[f"{prefix}{i}"].to(device) for i in range(count)]
            if isinstance(term.guidance, Stateful):
                prefix = f"{term.name}.own."
                own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
                term.guidance.load_state(own)


def _require_finite(name: str, step: int, output: GuidanceOutput) -> None:
    if not all(bool(x.isfinite().all()) for x in (output.value, output.gradient)):
        raise DivergenceError(
            f"step {step}: the gradient of the guidance {name!r} is not finite, expected finite "
            "numbers; lower learning_rate or the weights, or try another seed"
        )


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _clear(parameters: Iterable[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None
