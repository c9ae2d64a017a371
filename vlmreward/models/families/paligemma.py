"""PaliGemma 1 and 2."""

from __future__ import annotations

from collections.abc import Sequence

from vlmreward.models.chat_question import plain_question
from vlmreward.models.families import tiny
from vlmreward.models.families.base import Member, ProcessorOutputs, VLMFamily, dummy_image
from vlmreward.models.token_layout import Size

__all__ = ["PaliGemma"]


def _tiny(text: str) -> tiny.Pair:
    import transformers as hf

    tokens = tiny.tokenizer(image_token="<image>")
    images = hf.SiglipImageProcessor(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    config = hf.PaliGemmaConfig(
        vision_config={
            **tiny.VISION,
            "model_type": "siglip_vision_model",
            "vision_use_head": False,
        },
        text_config=tiny.text_config(tokens, model_type=text),
        projection_dim=32,
        image_token_id=tokens.image_token_id,
    )
    return hf.PaliGemmaForConditionalGeneration(config), hf.PaliGemmaProcessor(images, tokens)


class PaliGemma(VLMFamily):
    """PaliGemma: images, question and line break with full attention; no chat template."""

    members = (
        Member(
            "paligemma",
            "PaliGemma",
            "google/paligemma-3b-mix-224",
            "SiglipImageProcessor",
            lambda: _tiny("gemma"),
        ),
        Member(
            "paligemma2",
            "PaliGemma 2",
            "google/paligemma2-3b-mix-224",
            "SiglipImageProcessor",
            lambda: _tiny("gemma2"),
            model_type="paligemma",
        ),
    )
    several_images = "yes, but trained with one"
    accepts_image_features = True
    answer_token_type_id = 1  # not seen by the prompt

    def call_processor(self, text: str, sizes: Sequence[Size]) -> ProcessorOutputs:
        """See ``VLMFamily``."""
        prompt = self.processor.image_token * len(sizes) + plain_question(text, self.vlm)
        images = [[dummy_image(size) for size in sizes]]
        return dict(self.processor(text=[prompt], images=images, return_tensors="pt"))

    def generation_prefix(self, text: str) -> str:
        """See ``VLMFamily``."""
        return f"{text}\n"  # the processor adds the line break
