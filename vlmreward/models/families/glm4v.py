"""GLM-4.1V and GLM-4.6V."""

from __future__ import annotations

from functools import partial

from vlmreward.models.families import tiny
from vlmreward.models.families.base import Member
from vlmreward.models.families.qwen_vl import MRoPEFamily

__all__ = ["Glm4v"]

_CHAT = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m['role'] }}|>\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|begin_of_image|><|image|><|end_of_image|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_SPECIAL = ["[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|begin_of_image|>"]
_SPECIAL += ["<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>", "<|video|>"]


def _tiny(name: str) -> tiny.Pair:
    import transformers as hf

    tokens = tiny.tokenizer(_SPECIAL)
    size = {"shortest_edge": 2 * 56 * 56, "longest_edge": 2 * 140 * 140}
    processor = getattr(hf, f"{name}Processor")(
        image_processor=getattr(hf, f"{name}ImageProcessor")(size=size),
        tokenizer=tokens,
        video_processor=getattr(hf, f"{name}VideoProcessor")(size=size),
        chat_template=_CHAT,
    )
    config = getattr(hf, f"{name}Config")(
        text_config=tiny.text_config(
            tokens,
            model_type="glm4v_text",
            rope_parameters={"rope_type": "default", "mrope_section": [2, 1, 1]},
        ),
        vision_config={"model_type": "glm4v_vision", "depth": 2, "num_heads": 2, "image_size": 28}
        | {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48},
        image_token_id=tokens.convert_tokens_to_ids("<|image|>"),
        video_token_id=tokens.convert_tokens_to_ids("<|video|>"),
        image_start_token_id=tokens.convert_tokens_to_ids("<|begin_of_image|>"),
        image_end_token_id=tokens.convert_tokens_to_ids("<|end_of_image|>"),
    )
    return getattr(hf, f"{name}ForConditionalGeneration")(config), processor


class Glm4v(MRoPEFamily):
    """GLM-4V: prompts and inputs as Qwen's models, with other positions inside the model."""

    members = tuple(
        Member(key, name, checkpoint, f"{kind}ImageProcessor", partial(_tiny, kind))
        for key, name, checkpoint, kind in (
            ("glm4v", "GLM-4.1V", "zai-org/GLM-4.1V-9B-Thinking", "Glm4v"),
            ("glm46v", "GLM-4.6V", "zai-org/GLM-4.6V-Flash", "Glm46V"),
        )
    )
