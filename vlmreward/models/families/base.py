"""How the architectures differ in what a question looks like; most do not.

The text side of a query is asked once from the model's own processor. What it answers is passed to
the model where the model's ``forward`` takes it, so that most families need nothing of their own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import nn

from vlmreward.models.prefix_packing import Packed, pack, shared_length
from vlmreward.models.token_layout import EncodedPrompt, Size, TokenBatch

__all__ = ["Family", "family_of"]

_LEFT_OUT = frozenset({"attention_mask", "labels"})
"""Further outputs of processors: a mask of ones, as one query has no padding, and for training."""


def dummy_image(size: Size) -> Image.Image:
    """An image of this size, for asking about the layout."""
    return Image.new("RGB", (size[1], size[0]))


def _common(parts: Sequence[dict[str, Any]]) -> list[str]:
    """Keys that all have."""
    # what an image processor made can look like a number for each token, where there happen to be
    # as many; it is made again with the pixels
    return [key for key in parts[0] if all(key in part for part in parts)]


def _stacked(parts: Sequence[torch.Tensor], width: int) -> torch.Tensor:
    """``(L, ...)`` each -> ``(B, width, ...)``, with zeros behind what is shorter or narrower."""
    shape = torch.Size([len(parts), width, *map(max, zip(*[part.shape[1:] for part in parts]))])
    out = parts[0].new_zeros(shape)
    for target, part in zip(out, parts):
        target[tuple(map(slice, part.shape))] = part
    return out


class _Recorder:
    """An image processor, and the keyword arguments that it was last called with."""

    def __init__(self, hf: Any) -> None:
        self.hf = hf
        self.options: dict[str, Any] = {}

    def __call__(self, *images: Any, **options: Any) -> Any:
        self.options = {k: v for k, v in options.items() if k not in ("images", "return_tensors")}
        return self.hf(*images, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.hf, name)


class Family:
    """The common way: a chat template, and everything that the processor makes of it.

    Args:
        vlm: the model.
        processor: its processor.
    """

    needs_padding_mask = True
    """Whether padding has to be masked: not under causal attention, where it comes last."""
    is_causal = False
    """Whether it is known that no token looks ahead, so that questions can share what precedes."""
    accepts_image_features = False
    """Whether the model takes image features that were computed before, a row of them an image."""
    has_mrope = False
    """Whether rows come with positions, in several dimensions."""
    accepts_mixed_image_counts = False
    """True if queries of different numbers of images fit into a batch under cross-attention."""
    answer_token_type_id = 0
    """Token type of what the model has answered."""

    def __init__(self, vlm: Any, processor: Any) -> None:
        self.vlm = vlm
        self.processor = processor
        self.accepted = frozenset(inspect.signature(vlm.forward).parameters)

    def chat(self, text: str, sizes: Sequence[Size], **options: Any) -> Any:
        """Apply the chat template to a question about blank images of these sizes."""
        if not getattr(self.processor, "chat_template", None):
            raise ValueError(
                f"{type(self.processor).__name__} has no chat template; expected one: set "
                "processor.chat_template to that of the checkpoint's model card"
            )
        content = [{"type": "image", "image": dummy_image(size)} for size in sizes]
        content.append({"type": "text", "text": text})
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, **options
        )

    def generation_prefix(self, text: str) -> str:
        """What the answer follows, for looking up its tokens; without images."""
        return self.chat(text, [], tokenize=False)

    def call_processor(self, text: str, sizes: Sequence[Size]) -> dict[str, Any]:
        """Outputs of the model's own processor for one query with blank images."""
        # tokenised by the same call, which knows whether the template has written the first token
        options = {"return_mm_token_type_ids": True} if "mm_token_type_ids" in self.accepted else {}
        return dict(
            self.chat(
                text,
                sizes,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs=options,
            )
        )

    def image_options(self) -> dict[str, Any]:
        """Keyword arguments that the model's own processor gives its image processor."""
        hf = self.processor.image_processor
        recorder = _Recorder(hf)
        self.processor.image_processor = recorder
        try:
            self.call_processor("?", [(64, 64)])
        finally:
            self.processor.image_processor = hf
        return recorder.options

    def encode(self, text: str, sizes: Sequence[Size]) -> EncodedPrompt:
        """Layout of one query, from the model's own processor and with blank images."""
        asked = self.call_processor(text, sizes)
        taken = frozenset(asked.keys() & self.accepted) - _LEFT_OUT
        by_token = {
            key: asked[key][0]
            for key in asked
            if key in taken
            and isinstance(asked[key], torch.Tensor)
            and not asked[key].is_floating_point()
            and asked[key].shape[:2] == asked["input_ids"].shape
        }
        return EncodedPrompt(
            {key: value for key, value in by_token.items() if value.ndim == 1},
            image_attention_masks={key: value for key, value in by_token.items() if value.ndim > 1},
            pixel_inputs=taken - by_token.keys(),
        )

    def collate(
        self, rows: Sequence[EncodedPrompt], images_per_item: Sequence[int], device: Any
    ) -> TokenBatch:
        """Rows -> a batch, padded on the right; the answer is read at each query's own end.

        Raises:
            ValueError: numbers of images that the model cannot have in one batch.
        """
        if (
            rows[0].image_attention_masks
            and not self.accepts_mixed_image_counts
            and len(set(images_per_item)) > 1
        ):
            # mllama: tokens before the first image look at the padding for missing images too
            different = " and ".join(map(str, sorted(set(images_per_item))))
            raise ValueError(
                f"queries have {different} images; expected the same number in all queries "
                f"of a call, as {type(self.vlm).__name__} reads a query "
                "differently beside one with more images: ask them in calls of their own"
            )
        lengths = torch.tensor([len(row) for row in rows])
        width = int(lengths.max())
        pad = {"input_ids": self.processor.tokenizer.pad_token_id or 0}

        def padded(parts: list[torch.Tensor], dim: int, value: int = 0) -> torch.Tensor:
            return torch.stack(
                [nn.functional.pad(p, (0, width - p.shape[-1]), value=value) for p in parts], dim
            ).to(device)

        inputs = {
            key: padded([row.tokens[key] for row in rows], 0, pad.get(key, 0))
            for key in _common([row.tokens for row in rows])
        }
        if positions := [row.positions for row in rows if row.positions is not None]:
            inputs["position_ids"] = padded(positions, 1)
        for key in _common([row.image_attention_masks for row in rows]):
            inputs[key] = _stacked([row.image_attention_masks[key] for row in rows], width).to(
                device
            )
        if self.needs_padding_mask and int(lengths.min()) < width:
            inputs["attention_mask"] = (torch.arange(width) < lengths[:, None]).long().to(device)
        image_grid_thw = [row.image_grid_thw for row in rows if row.image_grid_thw is not None]
        if image_grid_thw:
            inputs["image_grid_thw"] = torch.cat(image_grid_thw).to(device)
        last_token_index = (lengths - 1).to(device)
        return TokenBatch(
            inputs,
            last_token_index,
            tuple(images_per_item),
            torch.cat(image_grid_thw) if image_grid_thw else None,
            frozenset().union(*[row.pixel_inputs for row in rows]),
        )

    def collate_packed(
        self,
        queries: Sequence[Sequence[EncodedPrompt]],
        images_per_item: Sequence[int],
        device: Any,
    ) -> TokenBatch | None:
        """K rows for each of B lists of images -> a batch of B; None where that is impossible."""
        packed = self.pack_prompts(queries)
        return None if packed is None else self.collate_sequences(packed, images_per_item, device)

    def pack_prompts(self, queries: Sequence[Sequence[EncodedPrompt]]) -> list[Packed] | None:
        """K rows for each of B lists of images -> B sequences; None where that is impossible."""
        text = self.vlm.config.get_text_config()
        window = getattr(text, "sliding_window", None)
        longest = max(len(row) for rows in queries for row in rows)
        masks = getattr(text, "_attn_implementation", None) in ("eager", "sdpa")
        if not (self.is_causal and masks) or (window and longest > window):
            return None
        shared = [shared_length(rows) for rows in queries]
        # an image among what is not shared would be there several times
        if not all(self._covers_images(rows[0], length) for rows, length in zip(queries, shared)):
            return None
        return [pack(rows, length) for rows, length in zip(queries, shared)]

    def collate_sequences(
        self, packed: Sequence[Packed], images_per_item: Sequence[int], device: Any
    ) -> TokenBatch:
        """Sequences of several rows each -> a batch, with their masks."""
        layout = self.collate([p.row for p in packed], images_per_item, device)
        if not self.has_mrope:
            layout.inputs["position_ids"] = layout.inputs["position_ids"][0]
        allowed = torch.stack([p.mask(layout.inputs["input_ids"].shape[1]) for p in packed])
        # numbers to add, because not every attention takes yes and no
        mask = torch.zeros(allowed.shape, dtype=self.vlm.dtype)
        mask.masked_fill_(~allowed, torch.finfo(mask.dtype).min)
        layout.inputs["attention_mask"] = mask[:, None].to(device)
        last_token_index = torch.tensor([p.last_token_index for p in packed]).to(device)
        return replace(layout, last_token_index=last_token_index)

    def append_tokens(self, row: EncodedPrompt, tokens: Sequence[int]) -> EncodedPrompt:
        """A row with text behind it, as the model reads what it has answered so far."""
        n = len(tokens)
        ids = {key: torch.full((n,), self.answer_token_type_id) for key in row.tokens}
        ids["input_ids"] = torch.tensor(tokens, dtype=torch.long)
        positions = row.positions
        if positions is not None:
            positions = torch.cat([positions, positions[:, -1:] + 1 + torch.arange(n)], dim=1)
        # what is answered looks at what the end of the question looks at
        image_attention_masks = {
            key: torch.cat([value, value[-1:].expand(n, *value.shape[1:])])
            for key, value in row.image_attention_masks.items()
        }
        both = {key: torch.cat([row.tokens[key], ids[key].to(row.tokens[key])]) for key in ids}
        return replace(
            row, tokens=both, positions=positions, image_attention_masks=image_attention_masks
        )

    def _covers_images(self, row: EncodedPrompt, length: int) -> bool:
        """Whether all images are among the first tokens."""
        if row.image_attention_masks:  # by cross-attention: there are none
            return True
        image = self.vlm.config.image_token_id
        return bool((row.tokens["input_ids"][length:] != image).all())

    def image_inputs(self, pixels: dict[str, Any], layout: TokenBatch) -> dict[str, Any]:
        """Select the image processor's outputs that the model takes.

        Raises:
            TypeError: something that the model takes is made by its own processor alone.
        """
        given = {key: value for key, value in pixels.items() if key in self.accepted}
        if lacking := sorted(layout.pixel_inputs - given.keys()):
            raise TypeError(
                f"{type(self.processor).__name__} makes {', '.join(lacking)}, which "
                f"{type(self.vlm).__name__} takes and which cannot be made here for other images; "
                "expected what belongs to tokens or comes from the image processor: use a model of "
                "a supported family"
            )
        return given

    def repeat_image_features(self, inputs: dict[str, Any], index: torch.Tensor) -> dict[str, Any]:
        """Image inputs for a batch in which images occur several times, from those of each once."""
        outputs = self.vlm.base_model.get_image_features(**inputs, return_dict=True)
        outputs.pooler_output = outputs.pooler_output[index]
        return {"mm_encoder_outputs": {"image": outputs}}


class _Causal(Family):
    """The common way, known to look back only."""

    needs_padding_mask = False
    is_causal = True


class _Qwen(_Causal):
    """Positions in three dimensions, and image sizes in patches beside the pixels."""

    has_mrope = True

    def encode(self, text: str, sizes: Sequence[Size]) -> EncodedPrompt:
        asked = self.call_processor(text, sizes)
        # Without token types the model silently falls back to one-dimensional positions
        positions, _ = self.vlm.base_model.get_rope_index(
            asked["input_ids"],
            mm_token_type_ids=asked["mm_token_type_ids"],
            image_grid_thw=asked["image_grid_thw"],
        )
        tokens = {key: asked[key][0] for key in ("input_ids", "mm_token_type_ids")}
        return EncodedPrompt(tokens, positions[:, 0], asked["image_grid_thw"])

    def image_inputs(self, pixels: dict[str, Any], layout: TokenBatch) -> dict[str, Any]:
        if layout.image_grid_thw is None or not torch.equal(
            pixels["image_grid_thw"], layout.image_grid_thw
        ):
            raise RuntimeError(
                "image grids differ from those of the model's own processor; expected equal "
                "ones: was its configuration changed after loading? build the reward anew"
            )
        return {"pixel_values": pixels["pixel_values"]}


class _PaliGemma(Family):
    """No chat: images, the question and a line break, all of it seen by every token."""

    accepts_image_features = True
    answer_token_type_id = 1  # not seen by the prompt

    def call_processor(self, text: str, sizes: Sequence[Size]) -> dict[str, Any]:
        prompt = self.processor.image_token * len(sizes) + text
        images = [[dummy_image(size) for size in sizes]]
        return dict(self.processor(text=[prompt], images=images, return_tensors="pt"))

    def generation_prefix(self, text: str) -> str:
        return f"{text}\n"  # the processor adds the line break


class _Gemma3(Family):
    """Image tokens look at each other, and padding comes last."""

    needs_padding_mask = False
    accepts_image_features = True


class _Idefics(_Causal):
    """IDEFICS-1: cross-attention, in which a token looks at the last image before it."""

    accepts_mixed_image_counts = True

    def generation_prefix(self, text: str) -> str:
        return f"User:{text}\nAssistant:"

    def call_processor(self, text: str, sizes: Sequence[Size]) -> dict[str, Any]:
        prompt = ["User:", *[dummy_image(size) for size in sizes], f"{text}\nAssistant:"]
        return dict(self.processor(text=[prompt], return_tensors="pt"))

    def image_inputs(self, pixels: dict[str, Any], layout: TokenBatch) -> dict[str, Any]:
        values = pixels["pixel_values"]
        most = max(layout.images_per_item)
        if min(layout.images_per_item) == most:
            return {"pixel_values": values.view(-1, most, *values.shape[1:])}
        rows = [
            nn.functional.pad(part, (0, 0, 0, 0, 0, 0, 0, most - len(part)))
            for part in values.split(layout.images_per_item)
        ]
        return {"pixel_values": torch.stack(rows)}


_FAMILIES: dict[str, type[Family]] = {
    "qwen2_vl": _Qwen,
    "qwen2_5_vl": _Qwen,
    "qwen3_vl": _Qwen,
    "paligemma": _PaliGemma,
    "idefics": _Idefics,
    "idefics2": _Causal,
    "idefics3": _Causal,
    "smolvlm": _Causal,
    "llava": _Causal,
    "gemma3": _Gemma3,
}
"""What is not the common way, by the configuration's ``model_type``."""


def family_of(vlm: Any, processor: Any) -> Family:
    """The way in which a model of transformers is asked."""
    return _FAMILIES.get(vlm.config.model_type, Family)(vlm, processor)
