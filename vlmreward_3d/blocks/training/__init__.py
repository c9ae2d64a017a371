"""The scripts that trained the built-in models, and what they share."""

from vlmreward_3d.blocks.training.tokenizer import train_tokenizer
from vlmreward_3d.blocks.training.vlm_model import build_vlm

__all__ = [
    "build_vlm",
    "train_tokenizer",
]
