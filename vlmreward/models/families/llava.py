"""LLaVA-1.5."""

from __future__ import annotations

from vlmreward.models.families import tiny
from vlmreward.models.families.base import CausalFamily, Member

__all__ = ["Llava"]


def _tiny() -> tiny.Pair:
    import transformers as hf

    tokens = tiny.tokenizer(["<end_of_utterance>"], image_token="<image>")
    size = {"height": 28, "width": 28}
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=size),
        tokens,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tiny.CHAT.replace("IMAGE", "<image>\n"),
    )
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**tiny.VISION),
        text_config=hf.LlamaConfig(**tiny.text_config(tokens)),
        image_token_id=tokens.image_token_id,
        image_seq_length=4,
    )
    return hf.LlavaForConditionalGeneration(config), processor


class Llava(CausalFamily):
    """LLaVA-1.5: the default family with causal attention."""

    members = (
        Member(
            "llava",
            "LLaVA-1.5",
            "llava-hf/llava-1.5-7b-hf",
            "CLIPImageProcessor",
            _tiny,
            {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
        ),
    )
    several_images = "yes, but trained with one"
