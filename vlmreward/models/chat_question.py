"""Questions with a system prompt or with text in front of the images."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ChatQuestion", "plain_question"]


class ChatQuestion(str):
    """A question with a system prompt, or with text in front of the images.

    As a str it is the text of the question, for messages and for code that only reads the text;
    families with a chat template lay out its parts. Two objects are equal if all of their parts
    are, and none is equal to a plain str.

    Args:
        before: text in front of the images.
        after: text behind the images.
        system: system prompt; None for the default of the model's chat template.

    Attributes:
        before: text in front of the images.
        after: text behind the images.
        system: system prompt, or None.
    """

    before: str
    after: str
    system: str | None

    def __new__(cls, before: str, after: str, system: str | None = None) -> ChatQuestion:
        """The question as a str, with its parts."""
        lead = "" if system is None else f"{system}\n\n"
        made = super().__new__(cls, f"{lead}{before}[images]{after}")
        made.before, made.after, made.system = before, after, system
        return made

    @classmethod
    def of(cls, question: str) -> ChatQuestion:
        """Any question with its parts: a plain str stands behind the images."""
        return question if isinstance(question, ChatQuestion) else cls("", question)

    @property
    def parts(self) -> tuple[str, str, str | None]:
        """``before``, ``after`` and ``system``."""
        return self.before, self.after, self.system

    def messages(self, images: Sequence[object]) -> list[dict[str, object]]:
        """The conversation that a chat template of transformers is applied to.

        Args:
            images: the images of the query, such as PIL images.
        """
        before, after, system = (
            [{"type": "text", "text": part}] if part else [] for part in self.parts
        )
        shown = [{"type": "image", "image": image} for image in images]
        lead: list[dict[str, object]] = [{"role": "system", "content": system}] if system else []
        return [*lead, {"role": "user", "content": [*before, *shown, *after]}]

    def __reduce__(self) -> tuple[type[ChatQuestion], tuple[str, str, str | None]]:
        return ChatQuestion, self.parts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChatQuestion) and self.parts == other.parts

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.parts)


def plain_question(text: str, model: object) -> str:
    """A question for a model without a chat.

    Raises:
        ValueError: the question has a system prompt or text in front of the images.
    """
    if isinstance(text, ChatQuestion):
        raise ValueError(
            f"the question has a system prompt or {{images}}, and {type(model).__name__} no chat; "
            "expected text behind the images alone: leave system= and {images} out"
        )
    return text
