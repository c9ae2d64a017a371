"""Idefics2."""

from __future__ import annotations

from vlmreward.models.families import tiny
from vlmreward.models.families.base import CausalFamily, Member

__all__ = ["Idefics2"]


def _tiny() -> tiny.Pair:
    import transformers as hf

    tokens = tiny.tokenizer(["<end_of_utterance>"])
    processor = hf.Idefics2Processor(
        hf.Idefics2ImageProcessor(size={"shortest_edge": 28, "longest_edge": 56}),
        tokens,
        image_seq_len=4,
        chat_template=tiny.CHAT.replace("IMAGE", "<image>"),
    )
    config = hf.Idefics2Config(
        vision_config={**tiny.VISION, "image_size": 56},
        text_config=tiny.text_config(tokens, model_type="mistral"),
        perceiver_config={
            "hidden_size": 32,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 2,
        },
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
    )
    return hf.Idefics2ForConditionalGeneration(config), processor


class Idefics2(CausalFamily):
    """Idefics2: the default family with causal attention."""

    members = (
        Member(
            "idefics2", "Idefics2", "HuggingFaceM4/idefics2-8b", "Idefics2ImageProcessor", _tiny
        ),
    )
