"""Idefics3 and SmolVLM."""

from __future__ import annotations

from vlmreward.models.families import tiny
from vlmreward.models.families.base import CausalFamily, Member

__all__ = ["Idefics3"]


def _tiny(name: str) -> tiny.Pair:
    import transformers as hf

    tiles = [f"<row_{i}_col_{j}>" for i in range(1, 4) for j in range(1, 4)]
    tokens = tiny.tokenizer(
        ["<end_of_utterance>", "<fake_token_around_image>", "<global-img>", *tiles],
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
    )
    side = {"longest_edge": 32}
    images = getattr(hf, f"{name}ImageProcessor")(size={"longest_edge": 64}, max_image_size=side)
    options = {"video_processor": hf.SmolVLMVideoProcessor()} if name == "SmolVLM" else {}
    processor = getattr(hf, f"{name}Processor")(
        image_processor=images,
        tokenizer=tokens,
        image_seq_len=4,
        chat_template=tiny.CHAT.replace("IMAGE", "<image>"),
        **options,
    )
    config = getattr(hf, f"{name}Config")(
        vision_config={**tiny.VISION, "image_size": 32, "patch_size": 8},
        text_config=tiny.text_config(tokens, model_type="llama"),
        scale_factor=2,
        image_token_id=tokens.image_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    return getattr(hf, f"{name}ForConditionalGeneration")(config), processor


class Idefics3(CausalFamily):
    """Idefics3 and SmolVLM: the default family with causal attention."""

    members = (
        Member(
            "idefics3",
            "Idefics3",
            "HuggingFaceM4/Idefics3-8B-Llama3",
            "Idefics3ImageProcessor",
            lambda: _tiny("Idefics3"),
        ),
        Member(
            "smolvlm",
            "SmolVLM",
            "HuggingFaceTB/SmolVLM-Instruct",
            "SmolVLMImageProcessor",
            lambda: _tiny("SmolVLM"),
        ),
    )
