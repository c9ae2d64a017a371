"""Nodes for ComfyUI: a file in its folder of custom nodes imports them from here.

Nothing of ComfyUI is imported: a node is a class with a few attributes, and an image a float tensor
``(B, H, W, C)`` in [0, 1].
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from vlmreward.rewards.placeholders import Text
from vlmreward.rewards.questions import NAMED_QUESTIONS
from vlmreward.rewards.yes_no import YesNoReward

__all__ = [
    "NODE_CLASS_MAPPINGS",
    "NODE_DISPLAY_NAME_MAPPINGS",
    "BestImages",
    "LoadVLMReward",
    "ScoreImages",
]

_CATEGORY = "vlmreward"
_REWARD = "VLM_REWARD"
_DEVICES = ["auto", "cuda", "cpu"]  # a list, by which ComfyUI knows a choice


def _required(**more: tuple[Any, ...]) -> dict[str, dict[str, Any]]:
    """The inputs of a node that asks a reward about images, and others of its own."""
    prompt = ("STRING", {"default": "a red cube", "multiline": True})
    return {"required": {"reward": (_REWARD,), "images": ("IMAGE",), "prompt": prompt, **more}}


def _scores(reward: YesNoReward, images: torch.Tensor, prompt: str) -> torch.Tensor:
    """Log-odds ``(B,)`` of images ``(B, H, W, C)``, on the CPU."""
    if images.ndim != 4 or images.shape[-1] < 3:
        raise ValueError(f"images have shape {tuple(images.shape)}; expected an IMAGE (B, H, W, 3)")
    pixels = images[..., :3].movedim(-1, 1).float().clamp(0, 1)
    values: dict[str, Text] = {"prompt": prompt} if "prompt" in reward.placeholders else {}
    with torch.no_grad():
        # one at a time: workflows make large batches, and hold a diffusion model besides
        return torch.cat([reward(image[None], **values).cpu() for image in pixels])


class LoadVLMReward:
    """A node that loads a vision-language model with a question."""

    CATEGORY = _CATEGORY
    RETURN_TYPES: ClassVar = (_REWARD,)
    RETURN_NAMES: ClassVar = ("reward",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:
        """The inputs of the node, as ComfyUI draws them."""
        return {
            "required": {
                "model": ("STRING", {"default": "Qwen/Qwen2.5-VL-3B-Instruct"}),
                "question": (
                    "STRING",
                    {"default": NAMED_QUESTIONS["yes-no"], "multiline": True},
                ),
                "device": (_DEVICES,),
            }
        }

    def load(self, model: str, question: str, device: str) -> tuple[YesNoReward]:
        """A ``YesNoReward``.

        Args:
            model: hub id or local folder.
            question: a text with ``{prompt}``, or a name in ``NAMED_QUESTIONS``.
            device: "auto" (the GPU if there is one), "cuda" or "cpu".
        """
        chosen = None if device == "auto" else device
        # ComfyUI runs nodes in inference mode, whose tensors are of no use outside of it
        with torch.inference_mode(False):
            return (YesNoReward(model, question=question, device=chosen),)


class ScoreImages:
    """A node that scores images: log-odds and probability of "Yes", and both as a text.

    It shows the text, and may be the end of a workflow.
    """

    CATEGORY = _CATEGORY
    RETURN_TYPES: ClassVar = ("FLOAT", "FLOAT", "STRING")
    RETURN_NAMES: ClassVar = ("log_odds", "probability", "report")
    OUTPUT_IS_LIST: ClassVar = (True, True, False)
    OUTPUT_NODE = True
    FUNCTION = "score"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:
        """The inputs of the node, as ComfyUI draws them."""
        return _required()

    def score(self, reward: YesNoReward, images: torch.Tensor, prompt: str) -> dict[str, Any]:
        """Scores of each image.

        Args:
            reward: reward from ``LoadVLMReward``.
            images: float ``(B, H, W, C)`` in [0, 1]; channels after the third are ignored.
            prompt: description of the desired image.

        Returns:
            Under "result" B log-odds, B probabilities, and a line of text for each image in one
            str; under "ui" the same text.
        """
        odds = _scores(reward, images, prompt)
        chances = odds.sigmoid()
        lines = [
            f"{i}: log-odds {value:+.3f}, P(Yes) {chance:.3f}"
            for i, (value, chance) in enumerate(zip(odds.tolist(), chances.tolist()))
        ]
        report = "\n".join(lines)
        return {"ui": {"text": [report]}, "result": (odds.tolist(), chances.tolist(), report)}


class BestImages:
    """A node that passes on the images with the highest scores, the best one first."""

    CATEGORY = _CATEGORY
    RETURN_TYPES: ClassVar = ("IMAGE",)
    RETURN_NAMES: ClassVar = ("images",)
    FUNCTION = "select"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:
        """The inputs of the node, as ComfyUI draws them."""
        return _required(count=("INT", {"default": 1, "min": 1, "max": 4096}))

    def select(
        self, reward: YesNoReward, images: torch.Tensor, prompt: str, count: int
    ) -> tuple[torch.Tensor]:
        """The best ``count`` images, or all of them in order where there are fewer.

        Args:
            reward: reward from ``LoadVLMReward``.
            images: float ``(B, H, W, C)`` in [0, 1].
            prompt: description of the desired image.
            count: number of images to keep.

        Returns:
            ``(count, H, W, C)``.
        """
        order = _scores(reward, images, prompt).argsort(descending=True, stable=True)
        return (images[order[:count].to(images.device)],)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "LoadVLMReward": LoadVLMReward,
    "ScoreImagesByVLMReward": ScoreImages,
    "BestImagesByVLMReward": BestImages,
}
"""The nodes by the names that workflows are saved with."""
NODE_DISPLAY_NAME_MAPPINGS = {
    "LoadVLMReward": "Load VLM reward",
    "ScoreImagesByVLMReward": "Score images (VLM reward)",
    "BestImagesByVLMReward": "Best images (VLM reward)",
}
"""The names of the nodes that ComfyUI displays."""
