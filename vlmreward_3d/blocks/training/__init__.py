"""Scripts that train and evaluate the built-in models, and their common parts."""

from vlmreward_3d.blocks.training.tokenizer import train_tokenizer
from vlmreward_3d.blocks.training.vlm_model import build_vlm

__all__ = [
    "build_vlm",
    "train_tokenizer",
]
