"""IDEFICS-1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from vlmreward.models.chat_question import plain_question
from vlmreward.models.families import tiny
from vlmreward.models.families.base import CausalFamily, Member, ProcessorOutputs, dummy_image
from vlmreward.models.token_layout import Size, TokenBatch

__all__ = ["Idefics"]

_END_OF_TURN = "<end_of_utterance>"
"""Special token behind every turn, of the checkpoints that were trained on instructions."""


def _tiny() -> tiny.Pair:
    import transformers as hf

    tokens = tiny.tokenizer(
        ["<fake_token_around_image>", "<end_of_utterance>"], image_token="<image>"
    )
    config = hf.IdeficsConfig(
        **tiny.text_config(tokens, head_dim=None, num_key_value_heads=None),
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
    processor = hf.IdeficsProcessor(hf.IdeficsImageProcessor(image_size=28), tokens)
    return hf.IdeficsForVisionText2Text(config), processor


class Idefics(CausalFamily):
    """IDEFICS-1: each token cross-attends to the last image before it; no chat template."""

    members = (
        Member(
            "idefics",
            "IDEFICS-1",
            "HuggingFaceM4/idefics-9b-instruct",
            "IdeficsImageProcessor",
            _tiny,
        ),
    )
    several_images = "yes; see `per_view`"
    accepts_mixed_image_counts = True

    def _asked(self, text: str) -> str:
        """A question up to where the answer begins, as the checkpoint's model card writes it."""
        known = _END_OF_TURN in self.processor.tokenizer.all_special_tokens
        return f"{text}{_END_OF_TURN if known else ''}\nAssistant:"

    def generation_prefix(self, text: str) -> str:
        """See ``VLMFamily``."""
        return f"User:{self._asked(text)}"

    def call_processor(self, text: str, sizes: Sequence[Size]) -> ProcessorOutputs:
        """See ``VLMFamily``."""
        question = self._asked(plain_question(text, self.vlm))
        prompt = ["User:", *[dummy_image(size) for size in sizes], question]
        return dict(self.processor(text=[prompt], return_tensors="pt"))

    def image_inputs(self, pixels: ProcessorOutputs, layout: TokenBatch) -> dict[str, torch.Tensor]:
        """See ``VLMFamily``."""
        values = pixels["pixel_values"]
        most = max(layout.images_per_item)
        if min(layout.images_per_item) == most:
            return {"pixel_values": values.view(-1, most, *values.shape[1:])}
        rows = [
            nn.functional.pad(part, (0, 0, 0, 0, 0, 0, 0, most - len(part)))
            for part in values.split(layout.images_per_item)
        ]
        return {"pixel_values": torch.stack(rows)}
