"""The reward under examination, with sample questions and images."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from vlmreward.doctor.reference import HFObject, Inputs, Reference, ask_transformers
from vlmreward.processors import FallbackProcessor, ImageProcessor
from vlmreward.rewards.yes_no import YesNoReward

__all__ = ["Probe", "Sample", "noise", "recorded_inputs"]

_SIZES = ((56, 84), (84, 56), (70, 70))  # of the sample views: small, and of different token counts
_LONGER = " beside two blue cubes and a green cone on a wooden table in the evening"


@dataclass(frozen=True)
class Sample:
    """A prompt for the question's placeholders, and views of any sizes, uint8 ``(3, H, W)``."""

    prompt: str
    views: tuple[Tensor, ...]

    @property
    def unit(self) -> list[Tensor]:
        """The views in [0, 1]."""
        return [view / 255 for view in self.views]


class Probe:
    """A reward under examination, with sample images and prompts.

    Args:
        reward: the reward; its state is restored after every check.
        prompt: value of the question's placeholders.
        words: the words of the positive and the negative answer.
    """

    def __init__(self, reward: YesNoReward, *, prompt: str, words: tuple[str, str]) -> None:
        self.reward, self.words = reward, words
        self.backbone = reward.backbone
        self.vlm: HFObject = reward.backbone.vlm
        self.processor = reward.backbone.processor
        self.hf = getattr(self.processor, "image_processor", self.processor)
        self.images = reward.backbone.image_processor
        views = [_scene(size, seed) for seed, size in enumerate(_SIZES)]
        self.samples = (
            Sample(prompt, (views[0],)),
            Sample(prompt + _LONGER, (views[1], views[2])),
            Sample(f"not {prompt}", (views[2],)),
        )

    @property
    def has_modes(self) -> bool:
        """True if the image processor can follow the 8-bit path."""
        return not isinstance(self.images, FallbackProcessor)

    def question(self, prompt: str) -> str:
        """The question with all its placeholders filled by ``prompt``."""
        return self.reward.question.format(
            **dict.fromkeys(self.reward.question.placeholders, prompt)
        )

    def ask(self, samples: Sequence[Sequence[Tensor]], prompts: Sequence[str]) -> Tensor:
        """The reward ``(B,)`` of views in [0, 1], as a user calls it."""
        return self.reward(
            [list(views) for views in samples],
            **{name: list(prompts) for name in self.reward.question.placeholders},
        )

    def values(self, samples: Sequence[Sample]) -> Tensor:
        """The reward ``(B,)`` of samples, following the 8-bit path, without a graph."""
        with torch.no_grad(), self.pixel_mode("uint8"):
            return self.ask([q.unit for q in samples], [q.prompt for q in samples]).double().cpu()

    def recorded(self, samples: Sequence[Sample]) -> tuple[Tensor, Inputs]:
        """``values``, and the keyword arguments that the model was called with."""
        with recorded_inputs(self.vlm.base_model) as calls:
            values = self.values(samples)
        if not calls:
            raise RuntimeError("the reward did not call the model's base_model")
        return values, calls[0]

    @cached_property
    def mixed(self) -> tuple[Sample, ...]:
        """The samples for one batch, with two views each if the model requires equal numbers."""
        prompts = [self.question(sample.prompt) for sample in self.samples]
        sizes = [[(v.shape[-2], v.shape[-1]) for v in sample.views] for sample in self.samples]
        try:
            self.backbone.layout(prompts, sizes)
        except ValueError:
            return tuple(Sample(sample.prompt, (sample.views * 2)[:2]) for sample in self.samples)
        return self.samples

    @cached_property
    def _each(self) -> list[tuple[Tensor, Inputs]]:
        return [self.recorded([sample]) for sample in self.samples]

    @property
    def alone(self) -> Tensor:
        """Reward of every sample, each in a batch of its own."""
        return torch.cat([value for value, _ in self._each])

    @property
    def given(self) -> list[Inputs]:
        """Arguments that the model is called with for every sample, each in a batch of its own."""
        return [inputs for _, inputs in self._each]

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """Prompts and logits of the samples, computed by transformers alone."""
        return tuple(
            ask_transformers(
                self.vlm,
                self.processor,
                self.question(sample.prompt),
                sample.views,
                eight_bit=self.has_modes,
            )
            for sample in self.samples
        )

    def in_mode(self, mode: str) -> ImageProcessor:
        """The reward's own image processor, with another ``pixel_mode`` where it has several."""
        if not self.has_modes:
            return self.images
        images = copy.copy(self.images)
        images.pixel_mode = mode
        return images

    @contextmanager
    def pixel_mode(self, mode: str) -> Iterator[None]:
        """The reward with this ``pixel_mode``."""
        self.backbone.image_processor = self.in_mode(mode)
        try:
            yield
        finally:
            self.backbone.image_processor = self.images

    def limit(self, values: Tensor | float) -> float:
        """Largest accepted difference between two computations of rewards of this magnitude.

        1e-4, or 32 machine epsilons in half precision, where another batch shape selects another
        kernel; relative to the largest absolute value where that is above 1.
        """
        dtype = self.vlm.dtype
        size = float(torch.as_tensor(values).abs().max())
        return max(1e-4, 32 * torch.finfo(dtype).eps) * max(1.0, size)


def noise(size: tuple[int, int], seed: int) -> Tensor:
    """Image uint8 ``(3, *size)`` of independent random levels: the hardest case for a resize."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)


def _scene(size: tuple[int, int], seed: int) -> Tensor:
    """A red disc on a gray gradient, slightly noisy; uint8 ``(3, *size)``."""
    down, right = (torch.linspace(-1, 1, n) for n in size)
    down = down[:, None] * size[0] / min(size)
    right = right[None, :] * size[1] / min(size)
    inside = ((down - 0.1 * seed).square() + right.square() < 0.4).float()
    ground = (0.6 + 0.15 * down.expand(size))[None].expand(3, *size)
    red = torch.tensor([0.8, 0.15, 0.1]).view(3, 1, 1)
    grain = (noise(size, seed).float() / 255 - 0.5) * 0.1
    return ((ground.lerp(red, inside) + grain).clamp(0, 1) * 255).round().to(torch.uint8)


@contextmanager
def recorded_inputs(module: nn.Module) -> Iterator[list[Inputs]]:
    """Context that records the keyword arguments of every call of a module."""
    calls: list[Inputs] = []
    handle = module.register_forward_pre_hook(
        lambda _module, _arguments, named: calls.append(named), with_kwargs=True
    )
    try:
        yield calls
    finally:
        handle.remove()
