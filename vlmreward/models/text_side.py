"""The text side of a model: token layouts, computed once by its own processor and cached."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from vlmreward.models._lru_cache import _LRUCache
from vlmreward.models.answer_tokens import AnswerTokenizer
from vlmreward.models.families import family_of
from vlmreward.models.output_head import vocabulary_size
from vlmreward.models.quiet_loading import quiet
from vlmreward.models.sequence_scoring import AnswerBatch, build_answer_batch
from vlmreward.models.token_layout import EncodedPrompt, Size, TokenBatch
from vlmreward.models.vocabulary import warn_of_unknown_words
from vlmreward.models.wording import reason_of
from vlmreward.utils.lasting import lasting

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["TextSide"]

_ROWS_KEPT = 1024
_LAYOUTS_KEPT = 64
_PROCESSORS = threading.Lock()
"""For asking a processor: a tokenizer keeps its padding and truncation from call to call, so that
two threads would mix theirs up. Its answers are kept; nothing of the model waits for this."""
_Layout = TypeVar("_Layout")


@contextmanager
def _template_errors() -> Iterator[None]:
    """Context that reports errors of a chat template, which comes with the model, as such."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("jinja2"):
            raise
        raise ValueError(
            f"the model's chat template fails ({reason_of(error)}); expected a Jinja template for "
            "a question with images: set processor.chat_template to that of the model card"
        ) from error


class TextSide(nn.Module):
    """The text side of a model: token layouts of questions about images, and of answers.

    Args:
        vlm: the model.
        processor: its processor.

    Attributes:
        family: family of the model, which defines its prompts and inputs.
    """

    def __init__(self, vlm: PreTrainedModel, processor: ProcessorMixin) -> None:
        super().__init__()
        self.vlm = vlm
        self.processor = processor
        self.family = family_of(vlm, processor)
        self._unknown: set[str] = set()
        self._rows = _LRUCache(_ROWS_KEPT)
        self._layouts = _LRUCache(_LAYOUTS_KEPT)

    @property
    def device(self) -> torch.device:
        """The device on which the model takes images."""
        return self.vlm.device

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the model scores."""
        return vocabulary_size(self.vlm)

    def generation_prefix(self, text: str) -> str:
        """Text that precedes the answer to a question without images, markup included."""
        with _template_errors():
            return self.family.generation_prefix(text)

    def tokenize(self, text: str) -> list[int]:
        """Text, markup included, -> token ids, with nothing added at the ends."""
        with _PROCESSORS:
            return list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, *tokens: int) -> str:
        """Token ids as text."""
        return self.processor.tokenizer.decode(list(tokens))

    def lookup(self) -> AnswerTokenizer:
        """The object that finds the tokens of answers where this model would write them."""
        return AnswerTokenizer(
            tokenize=self.tokenize,
            decode=self.decode,
            context=self.generation_prefix("?"),
            vocabulary=self.vocabulary,
            markup=self.processor.tokenizer.all_special_tokens,
        )

    def encode(self, text: str, sizes: Sequence[Size]) -> EncodedPrompt:
        """Layout of one query, on the CPU; a shared object, not to be changed.

        Args:
            text: the question.
            sizes: ``(height, width)`` of its images, in order.
        """
        return self._encoded(text, tuple(sizes))

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

    def _cached(self, asked: Hashable, make: Callable[[], _Layout]) -> _Layout:
        # masks of shared sequences have the model's dtype; attention misreads those of another one
        return self._layouts.get_or_create((asked, self.device, self.vlm.dtype), make)

    def layout(self, texts: Sequence[str], sizes: Sequence[Sequence[Size]]) -> TokenBatch:
        """Token layout of a batch of queries, cached.

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
            sequences, because image tokens attend to the question or attention takes no masks.
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

    def answer_batch(
        self,
        texts: Sequence[str],
        sizes: Sequence[Sequence[Size]],
        answers: Sequence[Sequence[int]],
    ) -> AnswerBatch:
        """Token layout with K answers of several tokens behind each question.

        Args:
            texts: B questions.
            sizes: for each question, ``(height, width)`` of its images, in order.
            answers: token ids of K answers, of which none begins with another one.
        """
        queries = tuple((text, tuple(size)) for text, size in zip(texts, sizes, strict=True))
        answers = tuple(map(tuple, answers))

        def make() -> AnswerBatch:
            with lasting():
                rows = [self._encoded(*query) for query in queries]
                counts = [len(size) for _, size in queries]
                return build_answer_batch(self.family, rows, answers, counts, self.device)

        return self._cached((queries, answers), make)

    def image_options(self) -> dict[str, object]:
        """Keyword arguments that the model's own processor gives its image processor."""
        with _PROCESSORS, quiet(), _template_errors():
            return self.family.image_options()
