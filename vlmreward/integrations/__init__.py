"""Rewards in the shape that other tools call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmreward.utils.lazy import lazy_names

if TYPE_CHECKING:
    from vlmreward.integrations.diffusion_trainers import TrainerReward, as_images, trainer_reward

__all__ = ["TrainerReward", "as_images", "trainer_reward"]

__getattr__ = lazy_names(
    __name__,
    {
        "TrainerReward": "diffusion_trainers",
        "as_images": "diffusion_trainers",
        "trainer_reward": "diffusion_trainers",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
