"""Small random models of every family, with processors and tokenizers of its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tiny_qwen
import torch
import transformers as hf

TEXT = {
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
CHAT = (
    "{% for m in messages %}{{ m['role'] | capitalize }}:"
    "{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %} {{ c['text'] }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def tokenizer(special: list[str], **named: str) -> Any:
    """Byte-level BPE with these tokens beside it; `named` ones become its attributes."""
    special = [*special, *[t for t in named.values() if t not in special]]
    base = tiny_qwen.tokenizer()
    out = hf.PreTrainedTokenizerFast(
        tokenizer_object=base.backend_tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=named,
        padding_side="right",
    )
    out.add_special_tokens(
        {"additional_special_tokens": special}, replace_extra_special_tokens=False
    )
    return out


def text_of(tokens: Any, **options: Any) -> dict[str, Any]:
    return {
        **TEXT,
        "vocab_size": len(tokens),
        "pad_token_id": tokens.pad_token_id,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        **options,
    }


def llava() -> tuple[Any, Any]:
    tokens = tokenizer(["<end_of_utterance>"], image_token="<image>")
    size = {"height": 28, "width": 28}
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=size),
        tokens,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT.replace("IMAGE", "<image>\n"),
    )
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION),
        text_config=hf.LlamaConfig(**text_of(tokens)),
        image_token_id=tokens.image_token_id,
        image_seq_length=4,
    )
    return hf.LlavaForConditionalGeneration(config), processor


def paligemma(text: str = "gemma") -> tuple[Any, Any]:
    tokens = tokenizer([], image_token="<image>")
    images = hf.SiglipImageProcessor(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    processor = hf.PaliGemmaProcessor(images, tokens)
    config = hf.PaliGemmaConfig(
        vision_config={**VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
        text_config={**text_of(tokens), "model_type": text},
        projection_dim=32,
        image_token_id=tokens.image_token_id,
    )
    return hf.PaliGemmaForConditionalGeneration(config), processor


def gemma3() -> tuple[Any, Any]:
    tokens = tokenizer(
        ["<end_of_utterance>"],
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    processor = hf.Gemma3Processor(
        hf.Gemma3ImageProcessor(size={"height": 28, "width": 28}),
        tokens,
        image_seq_length=4,
        chat_template=CHAT.replace("IMAGE", "<start_of_image>"),
    )
    config = hf.Gemma3Config(
        vision_config={**VISION, "vision_use_head": False},
        text_config={**text_of(tokens), "sliding_window": 16},
        mm_tokens_per_image=4,
        boi_token_index=tokens.boi_token_id,
        eoi_token_index=tokens.eoi_token_id,
        image_token_index=tokens.image_token_id,
    )
    return hf.Gemma3ForConditionalGeneration(config), processor


IDEFICS_TOKENS = ["<end_of_utterance>", "<fake_token_around_image>", "<global-img>"]


def idefics2() -> tuple[Any, Any]:
    tokens = tokenizer(IDEFICS_TOKENS[:1])
    processor = hf.Idefics2Processor(
        hf.Idefics2ImageProcessor(size={"shortest_edge": 28, "longest_edge": 56}),
        tokens,
        image_seq_len=4,
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    config = hf.Idefics2Config(
        vision_config={**VISION, "image_size": 56},
        text_config={**text_of(tokens), "model_type": "mistral"},
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


def idefics3(name: str = "Idefics3") -> tuple[Any, Any]:
    tiles = [f"<row_{i}_col_{j}>" for i in range(1, 4) for j in range(1, 4)]
    tokens = tokenizer(
        [*IDEFICS_TOKENS, *tiles],
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
        chat_template=CHAT.replace("IMAGE", "<image>"),
        **options,
    )
    config = getattr(hf, f"{name}Config")(
        vision_config={**VISION, "image_size": 32, "patch_size": 8},
        text_config={**text_of(tokens), "model_type": "llama"},
        scale_factor=2,
        image_token_id=tokens.image_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    return getattr(hf, f"{name}ForConditionalGeneration")(config), processor


def idefics() -> tuple[Any, Any]:
    tokens = tokenizer(["<fake_token_around_image>", "<end_of_utterance>"], image_token="<image>")
    processor = hf.IdeficsProcessor(hf.IdeficsImageProcessor(image_size=28), tokens)
    text = text_of(tokens)
    del text["head_dim"], text["num_key_value_heads"]
    config = hf.IdeficsConfig(
        **{
            k: v for k, v in text_of(tokens).items() if k not in ("head_dim", "num_key_value_heads")
        },
        additional_vocab_size=0,
        cross_layer_interval=1,
        use_resampler=False,
        vision_config={
            "embed_dim": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
    )
    return hf.IdeficsForVisionText2Text(config), processor


def qwen3_vl() -> tuple[Any, Any]:
    tokens = tiny_qwen.tokenizer()
    processor = hf.Qwen3VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(
            patch_size=16, min_pixels=32 * 32, max_pixels=96 * 96
        ),
        tokenizer=tokens,
        video_processor=hf.Qwen3VLVideoProcessor(),
        chat_template=tiny_qwen.CHAT_TEMPLATE,
    )
    ids = {name: tokens.convert_tokens_to_ids(name) for name in tiny_qwen.SPECIAL}
    text = text_of(tokens)
    text["rope_parameters"] = {
        "rope_type": "default",
        "mrope_section": [2, 1, 1],
        "rope_theta": 10000.0,
    }
    config = hf.Qwen3VLConfig(
        text_config=text,
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    return hf.Qwen3VLForConditionalGeneration(config), processor


def qwen(family: str) -> tuple[Any, Any]:
    processor = tiny_qwen.processor(family)
    return tiny_qwen.model(family, processor.tokenizer), processor


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "qwen2_vl": lambda: qwen("qwen2_vl"),
    "qwen2_5_vl": lambda: qwen("qwen2_5_vl"),
    "qwen3_vl": qwen3_vl,
    "paligemma": paligemma,
    "paligemma2": lambda: paligemma("gemma2"),
    "idefics": idefics,
    "idefics2": idefics2,
    "idefics3": idefics3,
    "smolvlm": lambda: idefics3("SmolVLM"),
    "llava": llava,
    "gemma3": gemma3,
}


# Families without code of their own there


def llava_next() -> tuple[Any, Any]:
    tokens = tokenizer(["<end_of_utterance>"], image_token="<image>")
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
        chat_template=CHAT.replace("IMAGE", "<image>\n"),
    )
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**VISION),
        text_config=hf.LlamaConfig(**text_of(tokens)),
        image_token_id=tokens.image_token_id,
        image_grid_pinpoints=grid,
        image_seq_length=4,
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


def llava_onevision() -> tuple[Any, Any]:
    """Cuts up a single image, and not several."""
    tokens = tokenizer(["<end_of_utterance>"], image_token="<image>", video_token="<video>")
    size, grid = {"height": 28, "width": 28}, [[28, 56], [56, 28], [56, 56]]
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=grid),
        tokens,
        hf.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=CHAT.replace("IMAGE", "<image>\n"),
    )
    config = hf.LlavaOnevisionConfig(
        vision_config={**VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
        text_config={**text_of(tokens), "model_type": "qwen2"},
        image_token_index=tokens.image_token_id,
        video_token_index=tokens.video_token_id,
        image_grid_pinpoints=grid,
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def internvl() -> tuple[Any, Any]:
    """Its processor tells its image processor more than that one's configuration."""
    tokens = tokenizer(
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
        chat_template=CHAT.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )
    config = hf.InternVLConfig(
        vision_config={**VISION, "image_size": [28, 28], "patch_size": [14, 14]},
        text_config={**text_of(tokens), "model_type": "qwen2"},
        image_token_id=tokens.context_image_token_id,
        image_seq_length=1,
    )
    return hf.InternVLForConditionalGeneration(config), processor


def mistral3() -> tuple[Any, Any]:
    """Like InternVL, and its template writes the first token."""
    tokens = tokenizer(["<end_of_utterance>", "[IMG]", "[IMG_BREAK]", "[IMG_END]"])
    processor = hf.PixtralProcessor(
        hf.PixtralImageProcessor(size={"longest_edge": 84}, patch_size={"height": 14, "width": 14}),
        tokens,
        patch_size=14,
        spatial_merge_size=2,
        image_token="[IMG]",
        image_break_token="[IMG_BREAK]",
        image_end_token="[IMG_END]",
        chat_template="{{ bos_token }}" + CHAT.replace("IMAGE", "[IMG]"),
    )
    config = hf.Mistral3Config(
        vision_config={**VISION, "model_type": "pixtral", "image_size": 84, "head_dim": 16},
        text_config={**text_of(tokens), "model_type": "mistral"},
        image_token_index=tokens.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
    )
    return hf.Mistral3ForConditionalGeneration(config), processor


def mllama() -> tuple[Any, Any]:
    """Cross-attention, whose mask the processor makes."""
    tokens = tokenizer(["<end_of_utterance>", "<|python_tag|>"], image_token="<|image|>")
    tiles = [[1, n] for n in range(1, 5)] + [[2, 1], [2, 2], [3, 1], [4, 1]]
    processor = hf.MllamaProcessor(
        hf.MllamaImageProcessor(size={"height": 28, "width": 28}, max_image_tiles=4),
        tokens,
        chat_template="{{ bos_token }}" + CHAT.replace("IMAGE", "<|image|>"),
    )
    text = text_of(tokens, num_hidden_layers=3, cross_attention_layers=[1])
    del text["head_dim"]
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


GENERIC: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "internvl": internvl,
    "mistral3": mistral3,
    "mllama": mllama,
}


def build(family: str, seed: int = 0) -> tuple[Any, Any]:
    """A pair whose answers depend on the images."""
    torch.manual_seed(seed)
    model, processor = {**FAMILIES, **GENERIC}[family]()
    # The usual initialisation is so small that no answer would depend on the images
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.3 * parameter[0].numel() ** -0.5)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval(), processor
