"""A thin adapter around a vision-language model of transformers.

The text side is Hugging Face's: the model's own processor computes the token layout of a prompt
with images of given sizes once, with blank images, and the layout is cached. The image side is
implemented here, because gradients have to pass through it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from vlmreward import processors
from vlmreward.models._acceleration.gradient_checkpointing import checkpoint_layers, layers_of
from vlmreward.models._acceleration.last_token_mlp import LastTokenMLP
from vlmreward.models._acceleration.patch_embedding import replace_patch_conv_with_linear
from vlmreward.models._acceleration.window_attention import use_batched_windows
from vlmreward.models.loading import warn_of_version
from vlmreward.models.model_pair import model_pair
from vlmreward.models.output_head import score_tokens
from vlmreward.models.text_side import TextSide
from vlmreward.models.token_layout import Size, TokenBatch

if TYPE_CHECKING:
    from vlmreward.models.families.tiny import Pair

__all__ = ["FrozenVLM"]

_Images = torch.Tensor | Sequence[torch.Tensor]


def _repeated(images_per_item: Sequence[int], times: int) -> torch.Tensor:
    """Indices of the images of each query, ``times`` times one after the other."""
    parts = torch.arange(sum(images_per_item)).split(list(images_per_item))
    return torch.cat([part.repeat(times) for part in parts])


class FrozenVLM(TextSide):
    """A frozen vision-language model that scores answers to questions about images.

    Args:
        model: hub id, local folder, ``"builtin/blocks"``, or a ``(model, processor)`` pair of
            transformers objects. The parameters are frozen and the model put into eval mode, a
            pair's too.
        pixel_mode: one of ``vlmreward.processors.PIXEL_MODES``.
        device: device of the model. Default: the device of a pair's model; for loaded models the
            GPU if there is one.
        dtype: dtype of the parameters. Default: that of a pair's model; for loaded models the
            checkpoint's on a GPU and float32 on a CPU.
        checkpoint: keep only the input of each layer, and compute its intermediate values again in
            the backward pass: a fraction of the memory, for one more forward pass.
        model_kwargs: further arguments of the model's ``from_pretrained``, such as
            ``quantization_config``, ``device_map``, ``attn_implementation`` or ``revision``.

    Raises:
        OSError: the model cannot be loaded, or its weights are not those of its configuration.
        TypeError: the model is not of a supported family, or an option is of another type.
        ValueError: options that exclude each other, or a device that does not exist.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Pair,
        *,
        pixel_mode: str = "float",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        checkpoint: bool = False,
        model_kwargs: Mapping[str, object] | None = None,
    ) -> None:
        if pixel_mode not in processors.PIXEL_MODES:
            raise ValueError(
                f"pixel_mode is {pixel_mode!r}; expected one of {processors.PIXEL_MODES}"
            )
        vlm, processor = model_pair(model, device, dtype, model_kwargs)
        super().__init__(vlm.requires_grad_(False).eval(), processor)
        use_batched_windows(vlm)
        replace_patch_conv_with_linear(vlm)
        self._last_tokens = LastTokenMLP(vlm)
        self.checkpoint = False
        if checkpoint:
            self.set_checkpointing(on=True)
        self.image_processor = processors.from_hf(processor, pixel_mode=pixel_mode)
        if isinstance(self.image_processor, processors.FallbackProcessor):
            self.image_processor.options = self.image_options()
        warn_of_version(vlm.config)

    def train(self, mode: bool = True) -> FrozenVLM:
        """Stay in eval mode, regardless of ``mode``: a reward has no dropout."""
        super().train(False)
        if self.checkpoint:  # which needs training mode, but of the layers alone
            checkpoint_layers(self.vlm)
        return self

    def set_checkpointing(self, *, on: bool) -> None:
        """Switch ``checkpoint`` on or off."""
        checkpoint_layers(self.vlm, on=on)
        self.checkpoint = on

    def compile_layers(self, **options: object) -> None:
        """Compile every layer of the model in place, by ``torch.compile`` with these options.

        Layers of the same kind share the compiled code, so that this takes seconds where the whole
        model takes minutes; a batch of another shape compiles again, unless ``dynamic=True``.
        """
        for layer in layers_of(self.vlm):
            layer.compile(**options)

    def broken_parameter(self) -> str | None:
        """Name of the first parameter that holds NaN or infinity; None if all are finite."""
        for name, parameter in self.vlm.named_parameters():
            numbers = parameter.is_floating_point() and not parameter.is_meta
            if numbers and not bool(parameter.isfinite().all()):
                return name
        return None

    def answer_logits(
        self,
        images: _Images,
        layout: TokenBatch,
        tokens: Sequence[int] | None,
        *,
        repeat: int = 1,
        logits_hook: Callable[[torch.Tensor], None] | None = None,
    ) -> torch.Tensor:
        """Logits of given tokens as the next token after each query.

        Args:
            images: all images of all queries in order, checked: floating ``(N, 3, H, W)`` or a
                list of ``(3, H, W)``, in [0, 1].
            layout: the layout of these queries and sizes.
            tokens: T token ids; None for the whole vocabulary.
            repeat: number of consecutive queries of the layout that share the images of one; the
                part that does not depend on the question is then computed once.
            logits_hook: called with the logits of all tokens, ``(B, V)`` or ``(B, K, V)``, without
                a graph; costs one more product with the output matrix.

        Returns:
            ``(B, T)`` float32 (float64 for a float64 model) on the model's device, or
            ``(B, K, T)`` for K questions in a sequence; differentiable to the images.
        """
        if isinstance(images, torch.Tensor):
            images = images.to(self.device)
        else:
            images = [image.to(self.device) for image in images]
        # An autocast of the surrounding loop, fp16 above all, would overflow inside these models
        with torch.autocast(self.device.type, enabled=False):
            inputs = {**layout.inputs, **self._image_inputs(images, layout, repeat)}
            last = layout.last_token_index
            rows = torch.arange(len(last), device=last.device).view(-1, *[1] * (last.ndim - 1))
            # Layers that are computed again in the backward pass have to find the same there
            only = nullcontext() if self.checkpoint else self._last_tokens.restrict_to(rows, last)
            with only:
                hidden = self.vlm.base_model(**inputs, use_cache=False).last_hidden_state
            # a model that is spread over devices ends on another one than it begins
            hidden = hidden[rows.to(hidden.device), last.to(hidden.device)]
            if logits_hook is not None:
                with torch.no_grad():
                    logits_hook(score_tokens(self.vlm, hidden.detach(), None))
            return score_tokens(self.vlm, hidden, tokens).to(self.device)

    def multi_question_logits(
        self,
        images: _Images,
        texts: Sequence[Sequence[str]],
        sizes: Sequence[Sequence[Size]],
        tokens: Sequence[int],
        *,
        logits_hook: Callable[[torch.Tensor], None] | None = None,
    ) -> torch.Tensor:
        """Logits for K questions about each of B lists of images; shared parts are computed once.

        Args:
            images: all images of all queries, as for ``answer_logits``.
            texts: B times K questions.
            sizes: for each B, ``(height, width)`` of its images, in order.
            tokens: T token ids.
            logits_hook: called with ``(B, K, V)``; see ``answer_logits``.

        Returns:
            ``(B, K, T)``; otherwise as ``answer_logits``.
        """
        several = len(texts[0])
        layout = self.packed_layout(texts, sizes) if several > 1 else None
        if layout is not None:
            return self.answer_logits(images, layout, tokens, logits_hook=logits_hook)
        each = [text for row in texts for text in row]
        layout = self.layout(each, [size for size in sizes for _ in range(several)])
        seen = logits_hook and (lambda logits: logits_hook(logits.unflatten(0, (-1, several))))
        logits = self.answer_logits(images, layout, tokens, repeat=several, logits_hook=seen)
        return logits.unflatten(0, (-1, several))

    def log_probabilities(
        self,
        images: _Images,
        texts: Sequence[str],
        sizes: Sequence[Sequence[Size]],
        answers: Sequence[Sequence[int]],
    ) -> torch.Tensor:
        """Log-probability of answers of one or several tokens, the sum over their tokens.

        Args:
            images: the same as for ``answer_logits``.
            texts: B questions.
            sizes: for each question, ``(height, width)`` of its images, in order.
            answers: token ids of K answers, of which none begins with another one.

        Returns:
            ``(B, K)``; otherwise as ``answer_logits``.
        """
        asked = self.answer_batch(texts, sizes, answers)
        logits = self.answer_logits(images, asked.layout, None, repeat=asked.repeat)
        return asked.log_probabilities(logits)

    def _image_inputs(
        self, images: _Images, layout: TokenBatch, repeat: int
    ) -> Mapping[str, object]:
        if repeat == 1:
            pixels = self.image_processor.process(self._nested(images, layout.images_per_item))
            return self.family.image_inputs(pixels, layout)
        index = _repeated(layout.images_per_item[::repeat], repeat)
        if not self.family.accepts_image_features:
            if isinstance(images, torch.Tensor):
                return self._image_inputs(images[index.to(images.device)], layout, 1)
            return self._image_inputs([images[i] for i in index], layout, 1)
        once = replace(layout, images_per_item=layout.images_per_item[::repeat])
        inputs = self._image_inputs(images, once, 1)
        return self.family.repeat_image_features(inputs, index.to(self.device))

    def _nested(self, images: _Images, images_per_item: Sequence[int]) -> processors.Nested:
        """All images in order, as one list per query if the image processor takes nested lists."""
        if not self.image_processor.nested:
            return images
        if isinstance(images, torch.Tensor) and min(images_per_item) == max(images_per_item):
            return images.view(-1, images_per_item[0], *images.shape[1:])
        flat = iter(images)
        return [[next(flat) for _ in range(count)] for count in images_per_item]
