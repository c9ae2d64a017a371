"""A reward that guides the sampling of a diffusers pipeline, as a callback of its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from vlmreward.images.batch import ImageBatch
from vlmreward.integrations._scheduler_steps import noise_levels
from vlmreward.rewards.protocol import Reward, call_reward, require_graph
from vlmreward.utils.arguments import interval as interval_of
from vlmreward.utils.arguments import number, reward_like, whole

__all__ = ["RewardGuidance", "decode_latents"]

Decode = Callable[[Any, torch.Tensor], torch.Tensor]
"""Called as ``decode(pipeline, latents)``; returns images ``(B, 3, H, W)``, about [0, 1]."""


def decode_latents(pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents of a pipeline -> images, with their graph.

    Args:
        pipeline: a diffusers pipeline. Its ``vae`` decodes, after the scale, shift, mean and
            standard deviation in its configuration are undone; without a ``vae`` the latents are
            pixels in [-1, 1].
        latents: ``(B, C, h, w)``.

    Returns:
        ``(B, 3, H, W)``, about [0, 1] and not clamped; differentiable to ``latents``.

    Raises:
        ValueError: latents of another shape, such as the packed ones of Flux.
    """
    if latents.ndim != 4:
        raise ValueError(
            f"latents have shape {tuple(latents.shape)}; expected (B, C, h, w): pass decode=, a "
            f"function of the pipeline and its latents that undoes what {type(pipeline).__name__} "
            "does to them"
        )
    vae = getattr(pipeline, "vae", None)
    if vae is None:
        return (latents + 1) / 2
    config = vae.config
    latents = latents / (getattr(config, "scaling_factor", None) or 1.0)
    mean, std = (getattr(config, f"latents_{name}", None) for name in ("mean", "std"))
    if mean is not None and std is not None:
        mean, std = (latents.new_tensor(each).view(1, -1, 1, 1) for each in (mean, std))
        latents = latents * std + mean
    latents = latents + (getattr(config, "shift_factor", None) or 0.0)
    return (vae.decode(latents.to(vae.dtype), return_dict=False)[0] + 1) / 2


class RewardGuidance:
    """Steps of the predicted originals up a reward's gradient (Bansal et al., 2023).

    Pass it as ``callback_on_step_end`` to a pipeline of diffusers. The predicted original z of a
    diffusion model is a clean picture even where the sample is still noise, so that a reward for
    clean pictures can evaluate it. After each step of the scheduler z is decoded, and the sample
    is replaced by the result of the same step from

        z + step_size * g / rms(g),    g = d reward(decode(z)) / dz,

    with the noise of the sample unchanged. z is not computed by another forward pass: it follows
    from the samples before and after the scheduler's step, and so includes classifier-free guidance
    and every other change that the pipeline makes. The first step, whose sample is all noise, is
    not guided with schedulers that do not keep their prediction. The pipeline itself is unchanged.

    Schedulers: DDIM (with the pipeline's ``eta`` of 0, and no ``clip_sample``), Euler, Euler for
    flow matching, and DPM-Solver++ (multistep); others do not determine z, and are refused. In half
    precision z is noisy in the first of many steps, except with DPM-Solver++, which keeps z.

    Args:
        reward: any reward that is differentiable to the images.
        prompt: description of the desired images: one for all, or one for each image or for each
            of the pipeline's prompts (then repeated ``num_images_per_prompt`` times); None for a
            reward without ``{prompt}``.
        step_size: root mean square of the change of z in each step, in the latents' units, in which
            z itself is about 1.
        window: lowest and highest share of the run, in [0, 1], between which samples are guided.
        interval: number of steps from one guided step to the next.
        decode: function from latents to images; ``decode_latents`` by default.
        **placeholders: values of the question's other placeholders.

    Attributes:
        tensor_inputs: names of the tensors that the pipeline passes to the callback; read by
            diffusers' ``MultiPipelineCallbacks``.
        rewards: the reward ``(B,)``, on the CPU, of the predicted original at each guided step of
            the latest run.

    Raises:
        TypeError, ValueError: arguments of another type or out of range.

    Example:
        ``guidance = RewardGuidance(reward, "a red cube", step_size=0.1)``, then
        ``image = pipeline("a red cube", callback_on_step_end=guidance).images[0]``.
    """

    tensor_inputs: Sequence[str] = ("latents",)

    def __init__(
        self,
        reward: Reward,
        prompt: str | Sequence[str] | None = None,
        *,
        step_size: float = 0.1,
        window: tuple[float, float] = (0.0, 1.0),
        interval: int = 1,
        decode: Decode = decode_latents,
        **placeholders: str,
    ) -> None:
        reward_like(reward)
        self.reward = reward
        self.prompt = prompt if prompt is None or isinstance(prompt, str) else list(prompt)
        self.step_size = number("step_size", step_size, above=0)
        self.window = interval_of("window", window, least=0, most=1)
        self.interval = whole("interval", interval)
        self.decode = decode
        self.placeholders = placeholders
        self.rewards: list[torch.Tensor] = []
        self._before: torch.Tensor | None = None

    def __call__(
        self, pipeline: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """The pipeline's tensors after a step -> the same, with guided ``latents``.

        Args:
            pipeline: the pipeline; its ``scheduler`` and ``num_timesteps`` are read.
            step_index: number of the step, from 0.
            timestep: the scheduler's timestep of that step.
            callback_kwargs: holds ``"latents"`` ``(B, C, h, w)`` after the step.

        Raises:
            TypeError: a scheduler that does not determine the predicted original.
            ValueError: latents are missing or cannot be decoded, or prompts and images do not go
                together.
            RuntimeError: the reward is not differentiable, or its gradient not finite.
        """
        if "latents" not in callback_kwargs:
            raise ValueError(
                "the pipeline hands over no latents; expected them: leave "
                "callback_on_step_end_tensor_inputs as it is, or add 'latents'"
            )
        latents = callback_kwargs["latents"]
        before, self._before = self._before, latents
        if step_index == 0:
            self.rewards, before = [], None
        levels = noise_levels(pipeline.scheduler, timestep)
        original = levels.predicted_original(before, latents)
        if original is None or not self._is_wanted(step_index, pipeline.num_timesteps):
            return callback_kwargs
        change = self.step_size * self._direction(pipeline, original)
        guided = latents + (levels.gain * change).to(latents)
        self._before = guided
        return {**callback_kwargs, "latents": guided}

    def _is_wanted(self, step_index: int, steps: int) -> bool:
        low, high = self.window
        return low <= step_index / max(steps - 1, 1) <= high and step_index % self.interval == 0

    @torch.enable_grad()
    def _direction(self, pipeline: Any, original: torch.Tensor) -> torch.Tensor:
        """The reward's gradient with a root mean square of 1 for each image, or 0."""
        original = original.detach().requires_grad_()
        images = self.decode(pipeline, original).float().clamp(0, 1)
        values: dict[str, Any] = dict(self.placeholders)
        if self.prompt is not None:
            values["prompt"] = self._prompts(len(images))
        rewards = call_reward(self.reward, ImageBatch.of(images), values)
        require_graph(rewards)
        self.rewards.append(rewards.detach().float().cpu())
        (gradient,) = torch.autograd.grad(rewards.sum(), original)
        if not bool(gradient.isfinite().all()):
            raise RuntimeError(
                "the gradient at the latents is not finite; expected numbers: a VAE in float16 "
                "overflows in its backward pass, float32 or bfloat16 does not"
            )
        rms = gradient.square().mean(tuple(range(1, gradient.ndim)), keepdim=True).sqrt()
        return gradient / rms.clamp_min(torch.finfo(rms.dtype).tiny)

    def _prompts(self, images: int) -> str | list[str]:
        if isinstance(self.prompt, str):
            return self.prompt
        assert self.prompt is not None
        if images % len(self.prompt):
            raise ValueError(
                f"{len(self.prompt)} prompts are given for {images} images; expected one for all, "
                "or as many as the pipeline's prompts"
            )
        return [text for text in self.prompt for _ in range(images // len(self.prompt))]
