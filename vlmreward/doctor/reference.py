"""Reference results of transformers alone: its processor, its forward pass, all logits."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from vlmreward.models._acceleration.window_attention import native_attention

__all__ = ["Reference", "ask_transformers", "prompt_of"]


HFObject = Any
"""An object of transformers, whose models and processors have no common interface."""

Inputs = dict[str, Any]
"""Arguments of a model by name: tensors, but for a switch or a list here and there."""


@dataclass(frozen=True)
class Reference:
    """Model inputs and logits of one query, computed by transformers alone.

    Attributes:
        inputs: inputs of the model, a batch of one.
        logits: ``(vocabulary,)`` float32 (float64 for a float64 model) of the next token, on the
            CPU.
    """

    inputs: Inputs
    logits: Tensor

    @property
    def tokens(self) -> Tensor:
        """``(L,)`` token ids, on the CPU."""
        return self.inputs["input_ids"][0].cpu()


def _closed(processor: HFObject, question: str) -> str:
    """A question to IDEFICS-1, with the end of a turn if the checkpoint was trained with one."""
    end = "<end_of_utterance>"
    return question + end if end in processor.tokenizer.all_special_tokens else question


def prompt_of(vlm: HFObject, processor: HFObject, question: str, images: int) -> str:
    """The prompt in the form that the documentation of the model's family prescribes."""
    if vlm.config.model_type == "idefics":  # its processor places the images by itself
        return f"User:{_closed(processor, question)}\nAssistant:"
    if vlm.config.model_type == "paligemma":  # has no chat; its processor adds a line break
        return processor.image_token * images + question
    content = [*[{"type": "image"}] * images, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )


def ask_transformers(
    vlm: HFObject,
    processor: HFObject,
    question: str,
    views: Sequence[Tensor],
    *,
    eight_bit: bool = True,
) -> Reference:
    """Answer of transformers alone to one question about images.

    Args:
        vlm: the model.
        processor: its processor.
        question: without markup.
        views: uint8 ``(3, H, W)``.
        eight_bit: give the image processor 8-bit images in place of floats of the same levels.
    """
    pictures: list[object] = [to_pil_image(v) if eight_bit else v.float() for v in views]
    if vlm.config.model_type == "idefics":
        asked = processor(
            text=[["User:", *pictures, f"{_closed(processor, question)}\nAssistant:"]],
            return_tensors="pt",
        )
    else:
        accepted = inspect.signature(vlm.forward).parameters
        types = {"return_mm_token_type_ids": True} if "mm_token_type_ids" in accepted else {}
        prompt = prompt_of(vlm, processor, question, len(views))
        # the reward lets the processor do both at once; here the prompt is text in between
        first = processor.tokenizer.bos_token
        begun = {"add_special_tokens": False} if first and prompt.startswith(first) else {}
        asked = processor(text=[prompt], images=[pictures], return_tensors="pt", **types, **begun)
    asked.pop("labels", None)
    inputs = dict(asked.to(vlm.device, vlm.dtype))
    with torch.no_grad(), native_attention(vlm):
        logits = vlm(**inputs, use_cache=False).logits[0, -1]
    wanted = torch.promote_types(logits.dtype, torch.float32)
    return Reference(inputs, logits.to(wanted).cpu())
