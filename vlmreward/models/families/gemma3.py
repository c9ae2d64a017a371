"""Gemma 3."""

from __future__ import annotations

from vlmreward.models.families import tiny
from vlmreward.models.families.base import Member, VLMFamily

__all__ = ["Gemma3"]


def _tiny() -> tiny.Pair:
    import transformers as hf

    tokens = tiny.tokenizer(
        ["<end_of_utterance>"],
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    processor = hf.Gemma3Processor(
        hf.Gemma3ImageProcessor(size={"height": 28, "width": 28}),
        tokens,
        image_seq_length=4,
        chat_template=tiny.CHAT.replace("IMAGE", "<start_of_image>"),
    )
    config = hf.Gemma3Config(
        vision_config={**tiny.VISION, "vision_use_head": False},
        text_config=tiny.text_config(tokens, sliding_window=16),
        mm_tokens_per_image=4,
        boi_token_index=tokens.boi_token_id,
        eoi_token_index=tokens.eoi_token_id,
        image_token_index=tokens.image_token_id,
    )
    return hf.Gemma3ForConditionalGeneration(config), processor


class Gemma3(VLMFamily):
    """Gemma 3: image tokens attend to each other, and padding comes last."""

    members = (
        Member(
            "gemma3",
            "Gemma 3",
            "google/gemma-3-4b-it",
            "Gemma3ImageProcessor",
            _tiny,
            {"size": {"height": 896, "width": 896}},
        ),
    )
    needs_padding_mask = False
    accepts_image_features = True
