"""Base classes of model families: prompt format, token layout and inputs of a kind of model.

The token layout of a query is computed once by the model's own processor. Those of its outputs that
the model's ``forward`` takes are passed on, so that most families need no code of their own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from PIL import Image

from vlmreward.models._transformers_private import attention_of
from vlmreward.models.chat_question import ChatQuestion
from vlmreward.models.prefix_packing import Packed, pack, shared_length
from vlmreward.models.token_layout import EncodedPrompt, Size, TokenBatch, collate_right

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

    from vlmreward.models.families.tiny import Pair

__all__ = ["CausalFamily", "Member", "ProcessorOutputs", "VLMFamily", "dummy_image"]

ProcessorOutputs = dict[str, Any]
"""Answer of a processor of transformers: tensors, and sometimes lists, under its own names."""

_LEFT_OUT = frozenset({"attention_mask", "labels"})
"""Further outputs of processors: a mask of ones, as one query has no padding, and for training."""


@dataclass(frozen=True)
class Member:
    """One kind of model in a family.

    Attributes:
        key: short name for tests and reports; the ``model_type`` unless several members share one.
        name: the name that people know.
        checkpoint: hub id of a checkpoint that stands for it.
        image_processor: name of its image processor's class in transformers.
        tiny: builds a small random model of the real architecture, and its processor.
        image_processor_options: options of the image processor in which its checkpoints differ from
            the defaults of that class.
        model_type: ``model_type`` of the configuration; ``key`` by default.
    """

    key: str
    name: str
    checkpoint: str
    image_processor: str
    tiny: Callable[[], Pair]
    image_processor_options: Mapping[str, object] = field(default_factory=dict)
    model_type: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "model_type", self.model_type or self.key)


def dummy_image(size: Size) -> Image.Image:
    """A black image of this size, for asking about the layout."""
    return Image.new("RGB", (size[1], size[0]))


class _Recorder:
    """An image processor, and the keyword arguments that it was last called with."""

    def __init__(self, hf: Callable[..., object]) -> None:
        self.hf = hf
        self.options: dict[str, object] = {}

    def __call__(self, *images: object, **options: object) -> object:
        self.options = {k: v for k, v in options.items() if k not in ("images", "return_tensors")}
        return self.hf(*images, **options)

    def __getattr__(self, name: str) -> object:
        return getattr(self.hf, name)


class VLMFamily:
    """The default family: prompts by the chat template, inputs as the model's own processor makes.

    Args:
        vlm: the model.
        processor: its processor.
    """

    members: ClassVar[tuple[Member, ...]] = ()
    """The models of this family; none for the default family."""
    several_images: ClassVar[str] = "yes"
    """Support of several images in a question, in words, for tables in the documentation."""
    needs_padding_mask: ClassVar[bool] = True
    """True if padding has to be masked; not under causal attention, where padding comes last."""
    is_causal: ClassVar[bool] = False
    """True if no token attends to later ones, so that questions can share a prefix."""
    accepts_image_features: ClassVar[bool] = False
    """True if the model takes precomputed image features, with one row per image."""
    has_mrope: ClassVar[bool] = False
    """True if rows have positions in several dimensions."""
    accepts_mixed_image_counts: ClassVar[bool] = False
    """True if queries with different numbers of images fit into a batch under cross-attention."""
    answer_token_type_id: ClassVar[int] = 0
    """Token type of the tokens of an answer."""

    def __init__(self, vlm: PreTrainedModel, processor: ProcessorMixin) -> None:
        self.vlm = vlm
        self.processor = processor
        self.accepted = frozenset(inspect.signature(vlm.forward).parameters)

    def chat(self, text: str, sizes: Sequence[Size], **options: object) -> Any:
        """Apply the chat template to a question about blank images of these sizes."""
        if not getattr(self.processor, "chat_template", None):
            raise ValueError(
                f"{type(self.processor).__name__} has no chat template; expected one: set "
                "processor.chat_template to that of the checkpoint's model card"
            )
        messages = ChatQuestion.of(text).messages([dummy_image(size) for size in sizes])
        return self.processor.apply_chat_template(messages, add_generation_prompt=True, **options)

    def generation_prefix(self, text: str) -> str:
        """Text that precedes the answer, without images, for the lookup of the answer's tokens."""
        return self.chat(text, [], tokenize=False)

    def call_processor(self, text: str, sizes: Sequence[Size]) -> ProcessorOutputs:
        """Outputs of the model's own processor for one query with blank images."""
        # tokenized by the same call, which knows whether the template has written the first token
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

    def image_options(self) -> dict[str, object]:
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

    def append_tokens(self, row: EncodedPrompt, tokens: Sequence[int]) -> EncodedPrompt:
        """A row with answer tokens appended, as the model reads them while it generates."""
        n = len(tokens)
        ids = {key: torch.full((n,), self.answer_token_type_id) for key in row.tokens}
        ids["input_ids"] = torch.tensor(tokens, dtype=torch.long)
        positions = row.positions
        if positions is not None:
            positions = torch.cat([positions, positions[:, -1:] + 1 + torch.arange(n)], dim=1)
        # what is answered looks at what the end of the question looks at
        masks = {
            key: torch.cat([value, value[-1:].expand(n, *value.shape[1:])])
            for key, value in row.image_attention_masks.items()
        }
        both = {key: torch.cat([row.tokens[key], ids[key].to(row.tokens[key])]) for key in ids}
        return replace(row, tokens=both, positions=positions, image_attention_masks=masks)

    def collate(
        self, rows: Sequence[EncodedPrompt], images_per_item: Sequence[int], device: torch.device
    ) -> TokenBatch:
        """Rows -> a batch, padded on the right; the answer is read at each query's own end.

        Raises:
            ValueError: numbers of images that the model cannot have in one batch.
        """
        different = sorted(set(images_per_item))
        cross = bool(rows[0].image_attention_masks)
        if cross and not self.accepts_mixed_image_counts and len(different) > 1:
            # mllama: tokens before the first image look at the padding for missing images too
            raise ValueError(
                f"queries have {' and '.join(map(str, different))} images; expected the "
                f"same number in all queries of a call, as {type(self.vlm).__name__} reads a query "
                "differently beside one with more images: ask them in calls of their own"
            )
        pad = self.processor.tokenizer.pad_token_id or 0
        return collate_right(
            rows, images_per_item, device, pad_token_id=pad, needs_mask=self.needs_padding_mask
        )

    def collate_packed(
        self,
        queries: Sequence[Sequence[EncodedPrompt]],
        images_per_item: Sequence[int],
        device: torch.device,
    ) -> TokenBatch | None:
        """K rows for each of B lists of images -> a batch of B; None where that is impossible."""
        packed = self.pack_prompts(queries)
        return None if packed is None else self.collate_sequences(packed, images_per_item, device)

    def pack_prompts(self, queries: Sequence[Sequence[EncodedPrompt]]) -> list[Packed] | None:
        """K rows for each of B lists of images -> B sequences; None where that is impossible."""
        text = self.vlm.config.get_text_config()
        window = getattr(text, "sliding_window", None)
        longest = max(len(row) for rows in queries for row in rows)
        masks = attention_of(text) in ("eager", "sdpa")
        if not (self.is_causal and masks) or (window and longest > window):
            return None
        shared = [shared_length(rows) for rows in queries]
        # an image among what is not shared would be there several times
        if not all(self._covers_images(rows[0], length) for rows, length in zip(queries, shared)):
            return None
        return [pack(rows, length) for rows, length in zip(queries, shared)]

    def collate_sequences(
        self, packed: Sequence[Packed], images_per_item: Sequence[int], device: torch.device
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
        last = torch.tensor([p.last_token_index for p in packed]).to(device)
        return replace(layout, last_token_index=last)

    def _covers_images(self, row: EncodedPrompt, length: int) -> bool:
        """True if all images are among the first tokens."""
        if row.image_attention_masks:  # by cross-attention: there are none
            return True
        image = self.vlm.config.image_token_id
        return bool((row.tokens["input_ids"][length:] != image).all())

    def image_inputs(self, pixels: ProcessorOutputs, layout: TokenBatch) -> dict[str, torch.Tensor]:
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

    def repeat_image_features(
        self, inputs: Mapping[str, object], index: torch.Tensor
    ) -> dict[str, object]:
        """Image inputs for a batch in which images occur several times, from those of each once."""
        outputs = self.vlm.base_model.get_image_features(**inputs, return_dict=True)
        outputs.pooler_output = outputs.pooler_output[index]
        return {"mm_encoder_outputs": {"image": outputs}}


class CausalFamily(VLMFamily):
    """The default family with causal attention: each token attends only to those before it."""

    needs_padding_mask = False
    is_causal = True
