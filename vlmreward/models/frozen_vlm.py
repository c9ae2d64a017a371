"""The narrow adapter around a vision-language model of transformers.

The text side is Hugging Face's: the token layout of a prompt with images of given sizes is asked
once from the model's own processor, with blank images, and kept. The image side is ours, because
gradients have to pass through it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as recomputed

from vlmreward import processors
from vlmreward.models._acceleration.gradient_checkpointing import checkpoint_layers, layers_of
from vlmreward.models._acceleration.last_token_mlp import LastTokenMLP
from vlmreward.models._acceleration.patch_embedding import replace_patch_conv_with_linear
from vlmreward.models._acceleration.window_attention import use_batched_windows
from vlmreward.models._lru_cache import _LRUCache
from vlmreward.models._wording import reason_of
from vlmreward.models.answer_tokens import AnswerTokenizer
from vlmreward.models.devices import checked_device, checked_dtype
from vlmreward.models.families import family_of
from vlmreward.models.loading import load, warn_of_version
from vlmreward.models.quiet_loading import quiet
from vlmreward.models.sequence_scoring import AnswerBatch, build_answer_batch
from vlmreward.models.token_layout import EncodedPrompt, Size, TokenBatch
from vlmreward.models.vocabulary import warn_of_unknown_words
from vlmreward.utils.lasting import lasting

__all__ = ["FrozenVLM"]

_ROWS_KEPT = 1024
_LAYOUTS_KEPT = 64
_VOCABULARY_AT_ONCE = 16384
_PROCESSORS = threading.Lock()
"""For asking a processor: a tokenizer keeps its padding and truncation from call to call, so that
two threads would mix theirs up. Its answers are kept; nothing of the model waits for this."""


def _pair(model: Any) -> tuple[Any, Any]:
    """A model and a processor of transformers, refused if they are something else."""
    if not isinstance(model, (tuple, list)) or len(model) != 2:
        raise TypeError(
            f"model is a {type(model).__name__}; expected a model id, a folder, 'builtin/blocks' "
            "or a (model, processor) pair"
        )
    vlm, processor = model
    if not isinstance(vlm, nn.Module) or not hasattr(vlm, "get_output_embeddings"):
        raise TypeError(
            f"the model of the pair is a {type(vlm).__name__}; expected a vision-language model of "
            "transformers: load it with AutoModelForImageTextToText"
        )
    if not hasattr(processor, "tokenizer"):
        raise TypeError(
            f"the processor of the pair is a {type(processor).__name__}; expected one with an "
            "image processor and a tokenizer: load it with AutoProcessor"
        )
    return vlm, processor


def _moved(vlm: Any, device: torch.device | None, dtype: torch.dtype | None) -> Any:
    """A pair's model on another device, in another dtype, if asked for."""
    if device is None and dtype is None:
        return vlm
    if getattr(vlm, "quantization_method", None) or len(getattr(vlm, "hf_device_map", ())) > 1:
        raise ValueError(
            "device or dtype is given for a model that is quantised or spread over devices; "
            "expected neither: it stays where it was loaded"
        )
    return vlm.to(device=device, dtype=dtype)


@contextmanager
def _template_errors() -> Iterator[None]:
    """Errors of a chat template, which comes with the model, as such."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("jinja2"):
            raise
        raise ValueError(
            f"the model's chat template fails ({reason_of(error)}); expected a Jinja template for "
            "a question with images: set processor.chat_template to that of the model card"
        ) from error


def _repeated(images_per_item: Sequence[int], times: int) -> torch.Tensor:
    """Indices of the images of each query, ``times`` times one after the other."""
    parts = torch.arange(sum(images_per_item)).split(list(images_per_item))
    return torch.cat([part.repeat(times) for part in parts])


def _all_logits(head: nn.Linear, hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Logits of the whole vocabulary, not rounded to half precision."""
    if hidden.dtype == dtype:
        return head(hidden)

    def part(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return hidden.to(dtype) @ weight.to(dtype).T

    # in parts, made again in the backward pass: as a whole the matrix would be there twice
    parts = [
        recomputed(part, hidden, weight, use_reentrant=False)
        for weight in head.weight.split(_VOCABULARY_AT_ONCE)
    ]
    logits = torch.cat(parts, dim=-1)
    return logits if head.bias is None else logits + head.bias.to(dtype)


class FrozenVLM(nn.Module):
    """A frozen vision-language model that scores answers to questions about images.

    Args:
        model: hub id, local folder, ``"builtin/blocks"``, or a ``(model, processor)`` pair of
            transformers objects. The parameters are frozen and the model put into eval mode, a
            pair's too.
        pixel_mode: see ``vlmreward.processors.PIXEL_MODES``.
        device: where to run. Default: where a pair's model is; for loaded models the GPU if there
            is one.
        dtype: of the parameters. Default: as a pair's model has them; for loaded models the
            checkpoint's on a GPU and float32 on a CPU.
        checkpoint: keep only what goes into each layer, and compute its inside again in the
            backward pass: a fraction of the memory, for one more forward pass.
        model_kwargs: further arguments of the model's ``from_pretrained``, such as
            ``quantization_config``, ``device_map``, ``attn_implementation`` or ``revision``.

    Raises:
        OSError: the model cannot be loaded, or its weights are not those of its configuration.
        TypeError: it is not of a supported family, or an option is of another type.
        ValueError: options that do not go together, or a device that is not there.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | tuple[Any, Any],
        *,
        pixel_mode: str = "float",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        checkpoint: bool = False,
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if pixel_mode not in processors.PIXEL_MODES:
            raise ValueError(
                f"pixel_mode is {pixel_mode!r}; expected one of {processors.PIXEL_MODES}"
            )
        if not isinstance(model_kwargs, (Mapping, type(None))):
            raise TypeError(
                f"model_kwargs is a {type(model_kwargs).__name__}; expected a dict of arguments of "
                "from_pretrained"
            )
        device, dtype = checked_device(device), checked_dtype(dtype)
        if isinstance(model, (str, os.PathLike)):
            vlm, processor = load(os.fspath(model), device, dtype, model_kwargs)
        else:
            vlm, processor = _pair(model)
            if model_kwargs:
                raise ValueError(
                    "model_kwargs are given for a model that is loaded; expected a name or folder"
                )
            vlm = _moved(vlm, device, dtype)
        self.vlm = vlm.requires_grad_(False).eval()
        use_batched_windows(self.vlm)
        replace_patch_conv_with_linear(self.vlm)
        self._last_tokens = LastTokenMLP(self.vlm)
        self.checkpoint = False
        if checkpoint:
            self.set_checkpointing(True)
        self.processor = processor
        self.image_processor = processors.from_hf(processor, pixel_mode=pixel_mode)
        self.family = family_of(self.vlm, processor)
        if isinstance(self.image_processor, processors.FallbackProcessor):
            with _PROCESSORS, quiet(), _template_errors():
                self.image_processor.options = self.family.image_options()
        warn_of_version(self.vlm.config)
        self._unknown: set[str] = set()
        self._rows = _LRUCache(_ROWS_KEPT)
        self._layouts = _LRUCache(_LAYOUTS_KEPT)

    @property
    def device(self) -> torch.device:
        """Where the images are wanted."""
        return self.vlm.device

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the model scores."""
        head = self.vlm.get_output_embeddings()
        return int(getattr(head, "out_features", None) or head.weight.shape[0])

    def train(self, mode: bool = True) -> FrozenVLM:
        """Stay in eval mode whatever the surrounding module does: a reward has no dropout."""
        super().train(False)
        if self.checkpoint:  # which needs training mode, but of the layers alone
            checkpoint_layers(self.vlm)
        return self

    def set_checkpointing(self, on: bool) -> None:
        """Switch ``checkpoint`` on or off; see there."""
        checkpoint_layers(self.vlm, on)
        self.checkpoint = on

    def compile_layers(self, **options: Any) -> None:
        """Compile every layer of the model in place, by ``torch.compile`` with these options.

        Layers of a kind share what was compiled, so that this takes seconds where the whole model
        takes minutes; a batch of another shape compiles again, unless ``dynamic=True``.
        """
        for layer in layers_of(self.vlm):
            layer.compile(**options)

    def generation_prefix(self, text: str) -> str:
        """What the answer to a question without images follows, markup included."""
        with _template_errors():
            return self.family.generation_prefix(text)

    def tokenize(self, text: str) -> list[int]:
        """Text, markup included, -> token ids, with nothing added at the ends."""
        with _PROCESSORS:
            return list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, *tokens: int) -> str:
        """Token ids as text."""
        return self.processor.tokenizer.decode(list(tokens))

    def broken_parameter(self) -> str | None:
        """Name of the first parameter that holds NaN or infinity; looks at all of them."""
        for name, parameter in self.vlm.named_parameters():
            numbers = parameter.is_floating_point() and not parameter.is_meta
            if numbers and not bool(parameter.isfinite().all()):
                return name
        return None

    def lookup(self) -> AnswerTokenizer:
        """Finds the tokens of answers where this model would write them."""
        return AnswerTokenizer(
            tokenize=self.tokenize,
            decode=self.decode,
            context=self.generation_prefix("?"),
            vocabulary=self.vocabulary,
            markup=self.processor.tokenizer.all_special_tokens,
        )

    def _encode(self, text: str, sizes: tuple[Size, ...]) -> EncodedPrompt:
        """Layout of one query, from the model's own processor and with blank images."""
        for token in self.processor.tokenizer.all_special_tokens:
            if token in text:
                raise ValueError(
                    f"the prompt contains {token!r}, which is markup to this model; expected plain "
                    "text: chat markup and image placeholders are added by themselves"
                )
        with _PROCESSORS, quiet(), _template_errors():
            warn_of_unknown_words(self.processor.tokenizer, [text], self._unknown)
            return self.family.encode(text, sizes)

    def _encoded(self, text: str, sizes: tuple[Size, ...]) -> EncodedPrompt:
        return self._rows.get_or_create((text, sizes), lambda: self._encode(text, sizes))

    def _cached(self, asked: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        # masks of shared sequences have the model's dtype; attention misreads those of another one
        return self._layouts.get_or_create((asked, self.device, self.vlm.dtype), make)

    def layout(self, texts: Sequence[str], sizes: Sequence[Sequence[Size]]) -> TokenBatch:
        """Token layout of a batch of queries; only what was never asked before costs time.

        Args:
            texts: B questions.
            sizes: for each question, ``(height, width)`` of its images, in order.

        Returns:
            The batch without pixels; a shared object, not to be changed.
        """
        queries = tuple((text, tuple(size)) for text, size in zip(texts, sizes, strict=True))

        def make() -> TokenBatch:
            with lasting():
                rows = [self._encoded(*query) for query in queries]
                return self.family.collate(rows, [len(s) for _, s in queries], self.device)

        return self._cached((queries,), make)

    def packed_layout(
        self, texts: Sequence[Sequence[str]], sizes: Sequence[Sequence[Size]]
    ) -> TokenBatch | None:
        """Token layout with K questions about each list of images in one sequence.

        Args:
            texts: B times K questions.
            sizes: for each B, ``(height, width)`` of its images, in order.

        Returns:
            The layout, with ``last_token_index`` ``(B, K)``; None where this model cannot share
            sequences, because image tokens look at the question or attention takes no masks.
        """
        queries = tuple((tuple(t), tuple(size)) for t, size in zip(texts, sizes, strict=True))

        def make() -> TokenBatch | None:
            with lasting():
                rows = [
                    [self._encoded(text, size) for text in several] for several, size in queries
                ]
                images_per_item = [len(size) for _, size in queries]
                return self.family.collate_packed(rows, images_per_item, self.device)

        return self._cached((queries,), make)

    def answer_logits(
        self,
        images: torch.Tensor | Sequence[torch.Tensor],
        layout: TokenBatch,
        tokens: Sequence[int] | None,
        *,
        repeat: int = 1,
        look: Callable[[torch.Tensor], None] | None = None,
    ) -> torch.Tensor:
        """Logits of some tokens as the next one after each query.

        Args:
            images: all images of all queries in order, checked: floating ``(N, 3, H, W)`` or a
                list of ``(3, H, W)``, in [0, 1].
            layout: of these queries and sizes.
            tokens: T token ids; None for all that there are.
            repeat: how many queries of the layout, one after the other, share the images of one;
                what does not depend on the question is then computed once.
            look: called with the logits of the whole vocabulary, ``(B, V)`` or ``(B, K, V)``,
                without a graph: one more product with the output matrix.

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
            rows = torch.arange(len(layout.last_token_index), device=layout.last_token_index.device)
            rows = rows.view(-1, *[1] * (layout.last_token_index.ndim - 1))
            # Layers that are computed again in the backward pass have to find the same there
            with (
                nullcontext()
                if self.checkpoint
                else self._last_tokens.restrict_to(rows, layout.last_token_index)
            ):
                hidden = self.vlm.base_model(**inputs, use_cache=False).last_hidden_state
            # a model that is spread over devices ends on another one than it begins
            rows, last = (index.to(hidden.device) for index in (rows, layout.last_token_index))
            hidden = hidden[rows, last]
            if look is not None:
                with torch.no_grad():
                    look(self._score(hidden.detach(), None))
            return self._score(hidden, tokens).to(self.device)

    def multi_question_logits(
        self,
        images: torch.Tensor | Sequence[torch.Tensor],
        texts: Sequence[Sequence[str]],
        sizes: Sequence[Sequence[Size]],
        tokens: Sequence[int],
        *,
        look: Callable[[torch.Tensor], None] | None = None,
    ) -> torch.Tensor:
        """K questions about each of B lists of images, computing what they share once.

        Args:
            images: as ``answer_logits`` takes them.
            texts: B times K questions.
            sizes: for each B, ``(height, width)`` of its images, in order.
            tokens: T token ids.
            look: called with ``(B, K, V)``; see ``answer_logits``.

        Returns:
            ``(B, K, T)``; otherwise as ``answer_logits``.
        """
        several = len(texts[0])
        layout = self.packed_layout(texts, sizes) if several > 1 else None
        if layout is not None:
            return self.answer_logits(images, layout, tokens, look=look)
        each = [text for row in texts for text in row]
        layout = self.layout(each, [size for size in sizes for _ in range(several)])
        seen = look and (lambda logits: look(logits.unflatten(0, (-1, several))))
        logits = self.answer_logits(images, layout, tokens, repeat=several, look=seen)
        return logits.unflatten(0, (-1, several))

    def log_probabilities(
        self,
        images: torch.Tensor | Sequence[torch.Tensor],
        texts: Sequence[str],
        sizes: Sequence[Sequence[Size]],
        answers: Sequence[Sequence[int]],
    ) -> torch.Tensor:
        """Log-probability of answers of one or several tokens, the sum over their tokens.

        Args:
            images: as ``answer_logits`` takes them.
            texts: B questions.
            sizes: for each question, ``(height, width)`` of its images, in order.
            answers: token ids of K answers, of which none begins with another one.

        Returns:
            ``(B, K)``; otherwise as ``answer_logits``.
        """
        queries = tuple((text, tuple(size)) for text, size in zip(texts, sizes, strict=True))
        answers = tuple(map(tuple, answers))

        def make() -> AnswerBatch:
            with lasting():
                rows = [self._encoded(*query) for query in queries]
                images_per_item = [len(size) for _, size in queries]
                return build_answer_batch(self.family, rows, answers, images_per_item, self.device)

        asked = self._cached((queries, answers), make)
        logits = self.answer_logits(images, asked.layout, None, repeat=asked.repeat)
        return asked.log_probabilities(logits)

    def _image_inputs(self, images: Any, layout: TokenBatch, repeat: int) -> dict[str, Any]:
        if repeat == 1:
            pixels = self.image_processor.process(self._nested(images, layout.images_per_item))
            return self.family.image_inputs(pixels, layout)
        index = _repeated(layout.images_per_item[::repeat], repeat)
        if not self.family.accepts_image_features:
            tensor = isinstance(images, torch.Tensor)
            again = images[index.to(images.device)] if tensor else [images[i] for i in index]
            return self._image_inputs(again, layout, 1)
        once = replace(layout, images_per_item=layout.images_per_item[::repeat])
        pixels = self.image_processor.process(self._nested(images, once.images_per_item))
        inputs = self.family.image_inputs(pixels, once)
        return self.family.repeat_image_features(inputs, index.to(self.device))

    def _nested(self, images: Any, images_per_item: Sequence[int]) -> Any:
        """Images in a row, query by query where the image processor wants to know."""
        if not self.image_processor.nested:
            return images
        if isinstance(images, torch.Tensor) and min(images_per_item) == max(images_per_item):
            return images.view(-1, images_per_item[0], *images.shape[1:])
        flat = iter(images)
        return [[next(flat) for _ in range(count)] for count in images_per_item]

    def _score(self, hidden: torch.Tensor, tokens: Sequence[int] | None) -> torch.Tensor:
        """Only the rows of the output matrix that count, in at least float32."""
        head = self.vlm.get_output_embeddings()
        wanted = torch.promote_types(hidden.dtype, torch.float32)
        # A quantised or adapted head has no rows to take out, one that is on disk not yet
        if type(head) is not nn.Linear or head.weight.is_meta:
            logits = head(hidden).to(wanted)
            logits = logits if tokens is None else logits[..., list(tokens)]
        elif tokens is None:
            logits = _all_logits(head, hidden.to(head.weight.device), wanted)
        else:
            # One by one, because a list of indices would have to be copied to a GPU every time
            matrix = torch.stack([head.weight[token] for token in tokens]).to(wanted)
            logits = hidden.to(matrix) @ matrix.T
            if head.bias is not None:
                logits = logits + torch.stack([head.bias[token] for token in tokens]).to(wanted)
        cap = getattr(self.vlm.config.get_text_config(), "final_logit_softcapping", None)
        return cap * torch.tanh(logits / cap) if cap else logits
