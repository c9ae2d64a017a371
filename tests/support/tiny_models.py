"""Small random models of every family, and of models that are asked the common way."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as hf

from vlmreward.models import families
from vlmreward.models.families import tiny

MEMBERS = families.members()
FAMILIES = list(MEMBERS)
"""A key for every kind of model in every family."""
CHAT = [
    member.key
    for family in families.FAMILIES
    for member in family.members
    if family.call_processor is families.VLMFamily.call_processor
]
"""Those that are asked by a chat template."""


def having(flag: str) -> list[str]:
    """Those whose family has a flag set."""
    return [m.key for family in families.FAMILIES if getattr(family, flag) for m in family.members]


def llava_next() -> tiny.Pair:
    tokens = tiny.tokenizer(["<end_of_utterance>"], image_token="<image>")
    grid = [[28, 56], [56, 28], [56, 56]]
    processor = hf.LlavaNextProcessor(
        hf.LlavaNextImageProcessor(
            size={"shortest_edge": 28},
            crop_size={"height": 28, "width": 28},
            image_grid_pinpoints=grid,
        ),
        tokens,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tiny.CHAT.replace("IMAGE", "<image>\n"),
    )
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**tiny.VISION),
        text_config=hf.LlamaConfig(**tiny.text_config(tokens)),
        image_token_id=tokens.image_token_id,
        image_grid_pinpoints=grid,
        image_seq_length=4,
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


def llava_onevision() -> tiny.Pair:
    """Cuts up a single image, and not several."""
    tokens = tiny.tokenizer(["<end_of_utterance>"], image_token="<image>", video_token="<video>")
    size, grid = {"height": 28, "width": 28}, [[28, 56], [56, 28], [56, 56]]
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=grid),
        tokens,
        hf.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=tiny.CHAT.replace("IMAGE", "<image>\n"),
    )
    config = hf.LlavaOnevisionConfig(
        vision_config={
            **tiny.VISION,
            "model_type": "siglip_vision_model",
            "vision_use_head": False,
        },
        text_config=tiny.text_config(tokens, model_type="qwen2"),
        image_token_index=tokens.image_token_id,
        video_token_index=tokens.video_token_id,
        image_grid_pinpoints=grid,
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def internvl() -> tiny.Pair:
    """InternVL, whose processor passes its image processor settings beyond its configuration."""
    tokens = tiny.tokenizer(
        ["<end_of_utterance>"],
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    size = {"height": 28, "width": 28}
    processor = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size=size, max_patches=4),
        tokens,
        hf.InternVLVideoProcessor(size=size),
        image_seq_length=1,
        chat_template=tiny.CHAT.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )
    config = hf.InternVLConfig(
        vision_config={**tiny.VISION, "image_size": [28, 28], "patch_size": [14, 14]},
        text_config=tiny.text_config(tokens, model_type="qwen2"),
        image_token_id=tokens.context_image_token_id,
        image_seq_length=1,
    )
    return hf.InternVLForConditionalGeneration(config), processor


def mistral3() -> tiny.Pair:
    """Like InternVL, and its template writes the first token."""
    tokens = tiny.tokenizer(["<end_of_utterance>", "[IMG]", "[IMG_BREAK]", "[IMG_END]"])
    processor = hf.PixtralProcessor(
        hf.PixtralImageProcessor(size={"longest_edge": 84}, patch_size={"height": 14, "width": 14}),
        tokens,
        patch_size=14,
        spatial_merge_size=2,
        image_token="[IMG]",
        image_break_token="[IMG_BREAK]",
        image_end_token="[IMG_END]",
        chat_template="{{ bos_token }}" + tiny.CHAT.replace("IMAGE", "[IMG]"),
    )
    config = hf.Mistral3Config(
        vision_config={**tiny.VISION, "model_type": "pixtral", "image_size": 84, "head_dim": 16},
        text_config=tiny.text_config(tokens, model_type="mistral"),
        image_token_index=tokens.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
    )
    return hf.Mistral3ForConditionalGeneration(config), processor


def mllama() -> tiny.Pair:
    """Cross-attention, whose mask the processor makes."""
    tokens = tiny.tokenizer(["<end_of_utterance>", "<|python_tag|>"], image_token="<|image|>")
    tiles = [[1, n] for n in range(1, 5)] + [[2, 1], [2, 2], [3, 1], [4, 1]]
    processor = hf.MllamaProcessor(
        hf.MllamaImageProcessor(size={"height": 28, "width": 28}, max_image_tiles=4),
        tokens,
        chat_template="{{ bos_token }}" + tiny.CHAT.replace("IMAGE", "<|image|>"),
    )
    text = tiny.text_config(tokens, num_hidden_layers=3, cross_attention_layers=[1], head_dim=None)
    config = hf.MllamaConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "vision_output_dim": 64,
            "intermediate_layers_indices": [1],
            "max_num_tiles": 4,
            "supported_aspect_ratios": tiles,
        },
        text_config=text,
        image_token_index=tokens.image_token_id,
    )
    return hf.MllamaForConditionalGeneration(config), processor


GENERIC: dict[str, Callable[[], tiny.Pair]] = {
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "internvl": internvl,
    "mistral3": mistral3,
    "mllama": mllama,
}


def build(key: str, seed: int = 0) -> tiny.Pair:
    """A pair whose answers depend on the images."""
    torch.manual_seed(seed)
    model, processor = MEMBERS[key].tiny() if key in MEMBERS else GENERIC[key]()
    tiny.randomize(model)
    return model.eval(), processor
