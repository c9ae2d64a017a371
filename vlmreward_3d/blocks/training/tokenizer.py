"""A small byte-level BPE tokenizer like Qwen's, trained on the language of the blocks world."""

from __future__ import annotations

import json

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from vlmreward_3d.blocks.world.captions import (
    PRESENCE_WORDS,
    RICH_WORDS,
    corpus,
    sample_scenes,
)

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(vocab_size: int = 704, seed: int = 0, *, rich: bool = False) -> Qwen2Tokenizer:
    """Train the tokenizer; every presence word, with its leading space, is one token of it.

    Args:
        vocab_size: number of tokens.
        seed: fixes the texts.
        rich: also on the words of compositions.
    """
    rng = np.random.default_rng(seed)
    texts = corpus(sample_scenes(6000 if rich else 3000, rng, rich=rich), rng, rich=rich)
    words = PRESENCE_WORDS + (RICH_WORDS if rich else ())
    # "intersecting" is common enough in the questions
    texts += [f" {w} {w}s Yes No yes no" for w in words if w != "intersecting"] * 50
    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.NFC()
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(["Yes No yes no", *texts] * 2, trainer)
    model = json.loads(raw.to_str())["model"]
    merges = [tuple(m) for m in model["merges"]]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL[1:]),
        model_max_length=4096,
    )
    missing = [w for w in words if len(tokenizer(" " + w)["input_ids"]) != 1]
    if missing:
        raise RuntimeError(f"not single tokens: {missing}; raise vocab_size above {vocab_size}")
    return tokenizer
