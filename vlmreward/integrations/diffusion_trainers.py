"""Adapters of rewards to the call signature of trainers of diffusion models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from PIL.Image import Image
from torchvision.transforms.functional import pil_to_tensor

from vlmreward.images.batch import ImageBatch
from vlmreward.rewards.protocol import Reward, call_reward
from vlmreward.utils.arguments import reward_like

__all__ = ["TrainerReward", "as_images", "trainer_reward"]

Note = TypeVar("Note")

TrainerReward = Callable[..., tuple[torch.Tensor, dict[str, list[str]]]]
"""Called as ``(images, prompts, metadata)``; returns the rewards ``(B,)`` and a dict of notes."""


def as_images(images: object) -> torch.Tensor | list[torch.Tensor]:
    """Convert images from the layouts that diffusion pipelines return to those of rewards.

    Args:
        images: result of a diffusers pipeline with ``output_type`` "pt", "np" or "pil": a float
            tensor ``(B, 3, H, W)`` in [0, 1], a float array ``(B, H, W, 3)`` in [0, 1], or a list
            of PIL images. Also with 8-bit values: a uint8 tensor or array.

    Returns:
        A float tensor ``(B, 3, H, W)`` in [0, 1], or a list of ``(3, H, W)`` for PIL images. A
        float tensor is passed on as it is, with its graph; nothing else is differentiable.

    Raises:
        TypeError: ``images`` is of another type.
    """
    if isinstance(images, torch.Tensor):
        return images.float() / 255 if images.dtype == torch.uint8 else images
    if isinstance(images, np.ndarray):
        return as_images(torch.from_numpy(images).movedim(-1, -3))
    if isinstance(images, (list, tuple)) and images and all(isinstance(i, Image) for i in images):
        return [pil_to_tensor(image.convert("RGB")).float() / 255 for image in images]
    raise TypeError(
        f"images is a {type(images).__name__}; expected a tensor (B, 3, H, W), an array "
        "(B, H, W, 3) or a list of PIL images: what a diffusers pipeline returns"
    )


def trainer_reward(
    reward: Reward, *, make_prompt: Callable[[str, Note | None], str] | None = None
) -> TrainerReward:
    """A reward as ``(images, prompts, metadata) -> (rewards, info)``.

    It is the signature of TRL's DDPOTrainer and AlignPropTrainer (``reward_function``, in TRL
    until 0.23) and of the ddpo-pytorch and Flow-GRPO code bases. Rewards keep their graph to a
    tensor of images, as AlignProp requires (Prabhudesai et al., 2023); DDPO (Black et al., 2023)
    needs no graph.

    Args:
        reward: any reward, such as a ``YesNoReward``, or one in wrappers.
        make_prompt: function from an image's prompt and metadata to the reward's prompt, for
            example to remove style words; default: the prompt.

    Returns:
        A function of ``images`` (see ``as_images``), ``prompts`` (a list of B) and ``metadata`` (a
        list of B, or None). Its first result is ``(B,)``, float32; the second is
        ``{"prompt": [...]}`` with the reward's prompts.

    Raises:
        ValueError: by the function, if the numbers of prompts, metadata and images differ.

    Example:
        ``AlignPropTrainer(config, trainer_reward(YesNoReward("Qwen/Qwen2.5-VL-7B-Instruct")),
        prompt_function, pipeline)``.
    """

    reward_like(reward)

    def call(
        images: object, prompts: Sequence[str], metadata: Sequence[Note] | None = None
    ) -> tuple[torch.Tensor, dict[str, list[str]]]:
        pictures = as_images(images)
        count = len(pictures)
        notes = [None] * count if metadata is None else list(metadata)
        if isinstance(prompts, str) or not len(prompts) == len(notes) == count:
            raise ValueError(
                f"received {count} images, {_number(prompts)} and {len(notes)} metadata; expected "
                "one prompt and one metadata an image"
            )
        asked = [make_prompt(p, m) if make_prompt else p for p, m in zip(prompts, notes)]
        return call_reward(reward, ImageBatch.of(pictures), {"prompt": asked}), {"prompt": asked}

    return call


def _number(prompts: str | Sequence[str]) -> str:
    return "one str" if isinstance(prompts, str) else f"{len(prompts)} prompts"
