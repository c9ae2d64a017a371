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

from vlmreward.packing import Packed, pack, shared_length
from vlmreward.rows import Layout, Row, Size

__all__ = ["Family", "family_of"]

_TOKEN_KEYS = ("input_ids", "token_type_ids", "mm_token_type_ids")


class Family:
    """The common way: a chat template, image tokens in the text, causal attention.

    Args:
        vlm: the model.
        processor: its processor.
    """

    masked = False
    """Whether padding has to be masked: not under causal attention, where it comes last."""
    causal = False
    """Whether it is known that no token looks ahead, so that questions can share what precedes."""
    features = False
    """Whether the model takes image features that were computed before, a row of them an image."""
    positioned = False
    """Whether rows come with positions, in several dimensions."""
    answer_type = 0
    """Token type of what the model has answered."""

    def __init__(self, vlm: Any, processor: Any) -> None:
        self.vlm = vlm
        self.processor = processor
        self.accepted = frozenset(inspect.signature(vlm.forward).parameters)

    def render(self, text: str, images: int) -> str:
        """The prompt as the processor takes it, with one placeholder for every image."""
        if not getattr(self.processor, "chat_template", None):
            raise ValueError(
                f"{type(self.processor).__name__} has no chat template; expected one: set "
                "processor.chat_template to that of the checkpoint's model card"
            )
        content: list[dict[str, str]] = [{"type": "image"} for _ in range(images)]
        content.append({"type": "text", "text": text})
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )

    def before_answer(self, text: str) -> str:
        """What the answer follows, for looking up its tokens; without images."""
        return self.render(text, 0)

    def blank(self, size: Size) -> Any:
        """An image of this size, for asking about the layout."""
        return torch.zeros(3, *size, dtype=torch.uint8)

    def ask(self, text: str, sizes: Sequence[Size]) -> Row:
        """Layout of one query, from the model's own processor and with blank images."""
        options = {"return_mm_token_type_ids": True} if "mm_token_type_ids" in self.accepted else {}
        asked = self.processor(
            text=[self.render(text, len(sizes))],
            images=[[self.blank(size) for size in sizes]],
            return_tensors="pt",
            **options,
        )
        tokens = {
            key: asked[key][0] for key in _TOKEN_KEYS if key in asked and key in self.accepted
        }
        return Row(tokens)

    def assemble(self, rows: Sequence[Row], counts: Sequence[int], device: Any) -> Layout:
        """Rows -> a batch, padded on the right; the answer is read at each query's own end."""
        lengths = torch.tensor([len(row) for row in rows])
        width = int(lengths.max())
        pad = {"input_ids": self.processor.tokenizer.pad_token_id or 0}

        def padded(parts: list[torch.Tensor], dim: int, value: int = 0) -> torch.Tensor:
            return torch.stack(
                [nn.functional.pad(p, (0, width - p.shape[-1]), value=value) for p in parts], dim
            ).to(device)

        inputs = {
            key: padded([row.tokens[key] for row in rows], 0, pad.get(key, 0))
            for key in rows[0].tokens
        }
        if positions := [row.positions for row in rows if row.positions is not None]:
            inputs["position_ids"] = padded(positions, 1)
        if self.masked and int(lengths.min()) < width:
            inputs["attention_mask"] = (torch.arange(width) < lengths[:, None]).long().to(device)
        grids = [row.grids for row in rows if row.grids is not None]
        if grids:
            inputs["image_grid_thw"] = torch.cat(grids).to(device)
        last = (lengths - 1).to(device)
        return Layout(inputs, last, tuple(counts), torch.cat(grids) if grids else None)

    def assemble_together(
        self, queries: Sequence[Sequence[Row]], counts: Sequence[int], device: Any
    ) -> Layout | None:
        """K rows for each of B lists of images -> a batch of B; None where that is impossible."""
        packed = self.packed(queries)
        return None if packed is None else self.assemble_packed(packed, counts, device)

    def packed(self, queries: Sequence[Sequence[Row]]) -> list[Packed] | None:
        """K rows for each of B lists of images -> B sequences; None where that is impossible."""
        text = self.vlm.config.get_text_config()
        window = getattr(text, "sliding_window", None)
        longest = max(len(row) for rows in queries for row in rows)
        masks = getattr(text, "_attn_implementation", None) in ("eager", "sdpa")
        if not (self.causal and masks) or (window and longest > window):
            return None
        shared = [shared_length(rows) for rows in queries]
        # an image among what is not shared would be there several times
        if not all(self._sees_all(rows[0], length) for rows, length in zip(queries, shared)):
            return None
        return [pack(rows, length) for rows, length in zip(queries, shared)]

    def assemble_packed(
        self, packed: Sequence[Packed], counts: Sequence[int], device: Any
    ) -> Layout:
        """Sequences of several rows each -> a batch, with their masks."""
        layout = self.assemble([p.row for p in packed], counts, device)
        if not self.positioned:
            layout.inputs["position_ids"] = layout.inputs["position_ids"][0]
        allowed = torch.stack([p.mask(layout.inputs["input_ids"].shape[1]) for p in packed])
        # numbers to add, because not every attention takes yes and no
        mask = torch.zeros(allowed.shape, dtype=self.vlm.dtype)
        mask.masked_fill_(~allowed, torch.finfo(mask.dtype).min)
        layout.inputs["attention_mask"] = mask[:, None].to(device)
        last = torch.tensor([p.last for p in packed]).to(device)
        return replace(layout, last=last)

    def continued(self, row: Row, tokens: Sequence[int]) -> Row:
        """A row with text behind it, as the model reads what it has answered so far."""
        n = len(tokens)
        ids = {key: torch.full((n,), self.answer_type) for key in row.tokens}
        ids["input_ids"] = torch.tensor(tokens, dtype=torch.long)
        positions = row.positions
        if positions is not None:
            positions = torch.cat([positions, positions[:, -1:] + 1 + torch.arange(n)], dim=1)
        seen = row.seen
        if seen is not None:
            seen = torch.cat([seen, seen[-1:].expand(n, -1)])
        both = {key: torch.cat([row.tokens[key], ids[key].to(row.tokens[key])]) for key in ids}
        return Row(both, positions, row.grids, seen)

    def _sees_all(self, row: Row, length: int) -> bool:
        """Whether all images are among the first tokens."""
        if row.seen is not None:  # by cross-attention: there are none
            return True
        image = self.vlm.config.image_token_id
        return bool((row.tokens["input_ids"][length:] != image).all())

    def image_inputs(self, pixels: dict[str, Any], layout: Layout) -> dict[str, Any]:
        """What the image processor made, as keyword arguments of the model."""
        return {key: value for key, value in pixels.items() if key in self.accepted}

    def repeated(self, inputs: dict[str, Any], index: torch.Tensor) -> dict[str, Any]:
        """Image inputs for a batch in which images occur several times, from those of each once."""
        outputs = self.vlm.base_model.get_image_features(**inputs, return_dict=True)
        outputs.pooler_output = outputs.pooler_output[index]
        return {"mm_encoder_outputs": {"image": outputs}}


class _Causal(Family):
    """The common way, known to look back only."""

    causal = True


class _Qwen(Family):
    """Positions in three dimensions, and image sizes in patches beside the pixels."""

    causal = True
    positioned = True

    def ask(self, text: str, sizes: Sequence[Size]) -> Row:
        asked = self.processor(
            text=[self.render(text, len(sizes))],
            images=[self.blank(size) for size in sizes],
            return_tensors="pt",
            return_mm_token_type_ids=True,
        )
        # Without token types the model silently falls back to one-dimensional positions
        positions, _ = self.vlm.base_model.get_rope_index(
            asked["input_ids"],
            mm_token_type_ids=asked["mm_token_type_ids"],
            image_grid_thw=asked["image_grid_thw"],
        )
        tokens = {key: asked[key][0] for key in ("input_ids", "mm_token_type_ids")}
        return Row(tokens, positions[:, 0], asked["image_grid_thw"])

    def image_inputs(self, pixels: dict[str, Any], layout: Layout) -> dict[str, Any]:
        if layout.grids is None or not torch.equal(pixels["image_grid_thw"], layout.grids):
            raise RuntimeError(
                "image grids differ from those of the model's own processor; expected equal "
                "ones: was its configuration changed after loading? build the reward anew"
            )
        return {"pixel_values": pixels["pixel_values"]}


class _PaliGemma(Family):
    """No chat: images, the question and a line break, all of it seen by every token."""

    masked = True
    features = True
    answer_type = 1  # not seen by the prompt

    def render(self, text: str, images: int) -> str:
        return self.processor.image_token * images + text

    def before_answer(self, text: str) -> str:
        return f"{text}\n"  # the processor adds the line break


class _Gemma3(Family):
    """Image tokens look at each other."""

    features = True


class _Idefics2(_Causal):
    """Its processor takes PIL images only, when it takes text with them."""

    def blank(self, size: Size) -> Any:
        return Image.new("RGB", (size[1], size[0]))


class _Idefics(_Idefics2):
    """IDEFICS-1: cross-attention, in which a token looks at the last image before it."""

    def render(self, text: str, images: int) -> str:
        return f"User:{text}\nAssistant:"

    def ask(self, text: str, sizes: Sequence[Size]) -> Row:
        asked = self.processor(
            text=[["User:", *[self.blank(size) for size in sizes], f"{text}\nAssistant:"]],
            return_tensors="pt",
        )
        return Row({"input_ids": asked["input_ids"][0]}, seen=asked["image_attention_mask"][0])

    def assemble(self, rows: Sequence[Row], counts: Sequence[int], device: Any) -> Layout:
        layout = super().assemble(rows, counts, device)
        seen = torch.zeros(
            len(rows), layout.inputs["input_ids"].shape[1], max(counts), dtype=torch.bool
        )
        for target, row in zip(seen, rows):
            if row.seen is not None:
                target[: len(row), : row.seen.shape[1]] = row.seen
        layout.inputs["image_attention_mask"] = seen.to(device)
        return layout

    def image_inputs(self, pixels: dict[str, Any], layout: Layout) -> dict[str, Any]:
        values = pixels["pixel_values"]
        most = max(layout.counts)
        if min(layout.counts) == most:
            return {"pixel_values": values.view(-1, most, *values.shape[1:])}
        rows = [
            nn.functional.pad(part, (0, 0, 0, 0, 0, 0, 0, most - len(part)))
            for part in values.split(layout.counts)
        ]
        return {"pixel_values": torch.stack(rows)}


_FAMILIES: dict[str, type[Family]] = {
    "qwen2_vl": _Qwen,
    "qwen2_5_vl": _Qwen,
    "qwen3_vl": _Qwen,
    "paligemma": _PaliGemma,
    "idefics": _Idefics,
    "idefics2": _Idefics2,
    "idefics3": _Causal,
    "smolvlm": _Causal,
    "llava": _Causal,
    "gemma3": _Gemma3,
}
"""What is not the common way, by the configuration's ``model_type``."""


def family_of(vlm: Any, processor: Any) -> Family:
    """The way in which a model of transformers is asked."""
    return _FAMILIES.get(vlm.config.model_type, Family)(vlm, processor)
