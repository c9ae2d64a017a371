"""Parts of the tiny models of all families: sizes, a chat template, a tokenizer.

Each family builds a small random model of its real architecture from these parts, for tests and for
trying a training loop without pretrained weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

__all__ = ["CHAT", "SIGLIP", "VISION", "Pair", "randomize", "text_config", "tokenizer"]

Pair = tuple["PreTrainedModel", "ProcessorMixin"]
"""A model of transformers and its processor."""

_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
SIGLIP = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
CHAT = (
    "{% for m in messages %}{{ m['role'] | capitalize }}:"
    "{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %} {{ c['text'] }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""A chat template in which IMAGE stands for the family's text in place of an image."""
_CHATML_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_CORPUS = [
    "Yes No yes no Answer Yes or No. Strictly respond with only 'Yes' or 'No'.",
    "Does this image show a red cube on top of a blue sphere? Yes. No.",
    "Carefully evaluate the provided images, which show multiple views of a single 3D object.",
    "system user assistant You are a helpful assistant.",
] * 4
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level_bpe() -> object:
    """Byte-level BPE of 480 tokens, as Qwen's, trained on a few sentences."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=list(_CHATML_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_CORPUS, trainer)
    return bpe


def tokenizer(special: Sequence[str] = (), **named: str) -> PreTrainedTokenizerFast:
    """A tokenizer that knows these special tokens beside those of ChatML.

    Args:
        special: further tokens.
        named: tokens that become its attributes too, as ``image_token="<image>"``. Without any
            further token it is Qwen's: no token begins a text.
    """
    from transformers import PreTrainedTokenizerFast

    options = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "padding_side": "right"}
    if not special and not named:
        return PreTrainedTokenizerFast(
            tokenizer_object=_byte_level_bpe(),
            additional_special_tokens=list(_CHATML_TOKENS[1:]),
            **options,
        )
    out = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_bpe(),
        bos_token="<|endoftext|>",
        extra_special_tokens=named,
        **options,
    )
    further = [*special, *[token for token in named.values() if token not in special]]
    out.add_special_tokens(
        {"additional_special_tokens": further}, replace_extra_special_tokens=False
    )
    return out


def text_config(tokens: PreTrainedTokenizerFast, **options: object) -> dict[str, object]:
    """Arguments of a language model's configuration, for this tokenizer.

    Args:
        tokens: the tokenizer.
        options: in place of the usual ones, or beside them; None leaves one out.
    """
    ids = {
        "vocab_size": len(tokens),
        "pad_token_id": tokens.pad_token_id,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
    }
    return {key: value for key, value in (_TEXT | ids | options).items() if value is not None}


def randomize(model: nn.Module) -> None:
    """Fill a model with random parameters, large enough that answers depend on the images.

    The initialization of transformers is so small that no answer would.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.3 * parameter[0].numel() ** -0.5)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
