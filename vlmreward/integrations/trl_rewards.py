"""Adapters of rewards to the trainers of TRL."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import torch

from vlmreward.images.batch import ImageBatch
from vlmreward.integrations.diffusion_trainers import TrainerReward, as_images, trainer_reward
from vlmreward.rewards.protocol import Reward, call_reward
from vlmreward.utils.arguments import reward_like

__all__ = ["GRPOReward", "alignprop_reward", "ddpo_reward", "grpo_reward"]

GRPOReward = Callable[..., list[float | None]]
"""Called as ``(prompts=, completions=, **columns)``; returns a number for each completion, or None
where there is nothing to look at."""

Render = Callable[[list[str], dict[str, Any]], Sequence[Any]]

_DIFFUSION_UNTIL = (0, 24)
"""Release of TRL from which on the trainers of diffusion models are gone."""


def alignprop_reward(
    reward: Reward, *, make_prompt: Callable[[str, Any], str] | None = None
) -> TrainerReward:
    """The ``reward_function`` of TRL's ``AlignPropTrainer`` (Prabhudesai et al., 2023).

    ``trainer_reward``, once the installed TRL is known to have that trainer. Rewards keep their
    graph to the images.

    Args:
        reward: any reward that is differentiable to the images.
        make_prompt: makes the reward's prompt from an image's prompt and its metadata.

    Raises:
        ImportError: TRL is not installed, or is 0.24 or newer, which has no such trainer.
        TypeError: ``reward`` cannot be called.
    """
    _require_diffusion("AlignPropTrainer")
    return trainer_reward(reward, make_prompt=make_prompt)


def ddpo_reward(
    reward: Reward, *, make_prompt: Callable[[str, Any], str] | None = None
) -> TrainerReward:
    """The ``reward_function`` of TRL's ``DDPOTrainer`` (Black et al., 2023).

    Rewards have no graph, as that trainer turns them into arrays. It wants futures of them with
    ``async_reward_computation=True``, which is not supported.

    Args:
        reward: any reward.
        make_prompt: makes the reward's prompt from an image's prompt and its metadata.

    Raises:
        ImportError: TRL is not installed, or is 0.24 or newer, which has no such trainer.
        TypeError: ``reward`` cannot be called.
    """
    _require_diffusion("DDPOTrainer")
    return torch.no_grad()(trainer_reward(reward, make_prompt=make_prompt))


def grpo_reward(
    reward: Reward,
    *,
    images: str | Render = "images",
    prompt: str = "completion",
    name: str = "vlm_reward",
) -> GRPOReward:
    """A function for ``reward_funcs`` of TRL's ``GRPOTrainer``, ``RLOOTrainer`` and the like.

    There are two uses. For a model that describes images, ``images`` names the column of the
    dataset that holds them, and the reward judges whether they show the completion's text. For a
    model whose text becomes an image, such as SVG or a better prompt, ``images`` is a function
    that makes the images, and ``prompt`` names the column with their description.

    The trainers treat a module in ``reward_funcs`` as a classifier of text; the result is
    therefore a plain function. Nothing is differentiable.

    Args:
        reward: any reward.
        images: name of the dataset's column, ``"image"`` (one an example) or ``"images"`` (a list
            an example, seen by one question); PIL images, float tensors in [0, 1] or 8-bit arrays.
            Or a function ``(texts, columns) -> images`` of the B completions' texts and the
            dataset's columns, each a list of B.
        prompt: ``"completion"`` for the completion's text, or name of a column: value of the
            reward's ``{prompt}``.
        name: name of the reward in TRL's log.

    Returns:
        The function. It returns B floats; None where an example has no image or its prompt is
        blank, which TRL leaves out of its mean.

    Raises:
        TypeError: ``reward`` cannot be called.
        ValueError: by the function, if the dataset lacks a column, or the numbers of images and
            completions differ.

    Example:
        ``function = grpo_reward(reward, images="image")``, then
        ``function(prompts=["Describe it."], completions=["a red cube"], image=[images[0]])``.
    """
    reward_like(reward)

    @torch.no_grad()
    def function(
        prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        texts = [_text(completion) for completion in completions]
        given = images(texts, columns) if callable(images) else _column(columns, images)
        asked = texts if prompt == "completion" else list(_column(columns, prompt))
        if not len(given) == len(asked) == len(texts):
            raise ValueError(
                f"there are {len(given)} images, {len(asked)} prompts and {len(texts)} completions;"
                " expected as many of each"
            )
        views = [_views(one) for one in given]
        known = [i for i, one in enumerate(views) if one and str(asked[i]).strip()]
        found: list[float | None] = [None] * len(texts)
        if known:
            batch = ImageBatch.of([views[i] for i in known])
            values = call_reward(reward, batch, {"prompt": [str(asked[i]) for i in known]})
            for i, value in zip(known, values.tolist()):
                found[i] = value
        return found

    function.__name__ = function.__qualname__ = name
    return function


def _text(completion: Any) -> str:
    """Text of a completion, which is a str or a list of messages with text in their content."""
    if isinstance(completion, str):
        return completion
    parts = []
    for message in completion:
        content = message["content"]
        if isinstance(content, str):
            parts.append(content)
        else:
            parts += [part["text"] for part in content or () if part.get("type") == "text"]
    return "\n".join(parts)


def _column(columns: dict[str, Any], name: str) -> Sequence[Any]:
    if name not in columns:
        known = [key for key, value in columns.items() if isinstance(value, (list, tuple))]
        raise ValueError(
            f"the dataset has no column {name!r}; expected one of "
            f"{', '.join(known) or 'those that hold images and prompts'}: TRL drops columns under "
            "remove_unused_columns=True"
        )
    return columns[name]


def _views(given: Any) -> list[torch.Tensor]:
    """The image or the images of an example -> ``(3, H, W)`` each; none for None."""
    several = given if isinstance(given, (list, tuple)) else [given]
    return [_image(one) for one in several if one is not None]


def _image(given: Any) -> torch.Tensor:
    if hasattr(given, "convert"):  # of PIL
        return as_images([given])[0]
    return as_images(given[None])[0] if hasattr(given, "ndim") else as_images(given)[0]


def _require_diffusion(trainer: str) -> None:
    """Refuse a TRL without a trainer of diffusion models.

    Raises:
        ImportError: the installed TRL has no such trainer.
    """
    remedy = "pip install 'trl<0.24', or train without it: examples/finetune_diffusion.py"
    try:
        version = metadata.version("trl")
    except metadata.PackageNotFoundError:
        raise ImportError(f"TRL is not installed; expected one with {trainer}: {remedy}") from None
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and tuple(map(int, found.groups())) >= _DIFFUSION_UNTIL:
        raise ImportError(
            f"TRL {version} has no {trainer}, which was removed in 0.24; expected an older one: "
            f"{remedy}"
        )
