"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlmreward.models.families import tiny
from vlmreward.models.families.base import CausalFamily, Member, ProcessorOutputs
from vlmreward.models.token_layout import EncodedPrompt, Size, TokenBatch

__all__ = ["MRoPEFamily", "QwenVL"]

_CHATML = (
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_VISION = {
    "Qwen2VL": {"depth": 2, "embed_dim": 32, "mlp_ratio": 2, "num_heads": 2, "hidden_size": 48},
    "Qwen2_5_VL": {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 48,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    },
    "Qwen3VL": {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    },
}
_PATCHES_16 = {"patch_size": 16, "min_pixels": 65536, "max_pixels": 16777216}
_HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def _tiny(name: str) -> tiny.Pair:
    import transformers as hf

    tokens = tiny.tokenizer()
    third = name == "Qwen3VL"
    videos = hf.Qwen3VLVideoProcessor() if third else hf.Qwen2VLVideoProcessor()
    sizes = {"min_pixels": 56 * 56, "max_pixels": 140 * 140}
    if third:
        sizes = {"patch_size": 16, "min_pixels": 32 * 32, "max_pixels": 96 * 96}
    processor = getattr(hf, f"{name}Processor")(
        image_processor=hf.Qwen2VLImageProcessor(**sizes),
        tokenizer=tokens,
        video_processor=videos,
        chat_template=_CHATML,
    )
    text = tiny.text_config(
        tokens,
        bos_token_id=tokens.pad_token_id,
        rope_parameters={
            "rope_type": "default",
            "mrope_section": [2, 1, 1] if third else [2, 2, 2],
            "rope_theta": 10000.0,
        },
    )
    if not third:  # whose heads are as wide as its states allow
        text |= {"hidden_size": 48, "intermediate_size": 64, "tie_word_embeddings": False}
        del text["head_dim"]
    config = getattr(hf, f"{name}Config")(
        text_config=text,
        vision_config=_VISION[name],
        image_token_id=tokens.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokens.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokens.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokens.convert_tokens_to_ids("<|vision_end|>"),
    )
    return getattr(hf, f"{name}ForConditionalGeneration")(config), processor


class MRoPEFamily(CausalFamily):
    """Models with three-dimensional positions, whose inputs include image sizes in patches."""

    has_mrope = True

    def encode(self, text: str, sizes: Sequence[Size]) -> EncodedPrompt:
        """See ``VLMFamily``."""
        asked = self.call_processor(text, sizes)
        # Without token types the model silently falls back to one-dimensional positions
        positions, _ = self.vlm.base_model.get_rope_index(
            asked["input_ids"],
            mm_token_type_ids=asked["mm_token_type_ids"],
            image_grid_thw=asked["image_grid_thw"],
        )
        tokens = {key: asked[key][0] for key in ("input_ids", "mm_token_type_ids")}
        return EncodedPrompt(tokens, positions[:, 0], asked["image_grid_thw"])

    def image_inputs(self, pixels: ProcessorOutputs, layout: TokenBatch) -> dict[str, torch.Tensor]:
        """See ``VLMFamily``."""
        grids = layout.image_grid_thw
        if grids is None or not torch.equal(pixels["image_grid_thw"], grids):
            raise RuntimeError(
                "image grids differ from those of the model's own processor; expected equal "
                "ones: was its configuration changed after loading? build the reward anew"
            )
        return {"pixel_values": pixels["pixel_values"]}


class QwenVL(MRoPEFamily):
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL, which share one class of image processors."""

    members = (
        Member(
            "qwen2_vl",
            "Qwen2-VL",
            "Qwen/Qwen2-VL-7B-Instruct",
            "Qwen2VLImageProcessor",
            lambda: _tiny("Qwen2VL"),
        ),
        Member(
            "qwen2_5_vl",
            "Qwen2.5-VL",
            "Qwen/Qwen2.5-VL-7B-Instruct",
            "Qwen2VLImageProcessor",
            lambda: _tiny("Qwen2_5_VL"),
        ),
        Member(
            "qwen3_vl",
            "Qwen3-VL",
            "Qwen/Qwen3-VL-8B-Instruct",
            "Qwen2VLImageProcessor",
            lambda: _tiny("Qwen3VL"),
            {**_PATCHES_16, **_HALF},
        ),
    )
