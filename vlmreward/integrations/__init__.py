"""Adapters that give rewards the interfaces of other libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmreward.utils.lazy import lazy_names

if TYPE_CHECKING:
    from vlmreward.integrations.comfyui_nodes import BestImages, LoadVLMReward, ScoreImages
    from vlmreward.integrations.diffusers_callback import RewardGuidance, decode_latents
    from vlmreward.integrations.diffusion_trainers import TrainerReward, as_images, trainer_reward
    from vlmreward.integrations.imscore_scorers import RewardScorer, ScorerReward
    from vlmreward.integrations.torchmetrics_metric import RewardMetric
    from vlmreward.integrations.trl_rewards import alignprop_reward, ddpo_reward, grpo_reward
    from vlmreward.integrations.unirl_reward import UniRLReward

__all__ = [
    "BestImages",
    "LoadVLMReward",
    "RewardGuidance",
    "RewardMetric",
    "RewardScorer",
    "ScoreImages",
    "ScorerReward",
    "TrainerReward",
    "UniRLReward",
    "alignprop_reward",
    "as_images",
    "ddpo_reward",
    "decode_latents",
    "grpo_reward",
    "trainer_reward",
]

__getattr__ = lazy_names(
    __name__,
    {
        "BestImages": "comfyui_nodes",
        "LoadVLMReward": "comfyui_nodes",
        "RewardGuidance": "diffusers_callback",
        "RewardMetric": "torchmetrics_metric",
        "RewardScorer": "imscore_scorers",
        "ScoreImages": "comfyui_nodes",
        "ScorerReward": "imscore_scorers",
        "TrainerReward": "diffusion_trainers",
        "UniRLReward": "unirl_reward",
        "alignprop_reward": "trl_rewards",
        "as_images": "diffusion_trainers",
        "ddpo_reward": "trl_rewards",
        "decode_latents": "diffusers_callback",
        "grpo_reward": "trl_rewards",
        "trainer_reward": "diffusion_trainers",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
