"""Question templates with named placeholders, and the paper's questions."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence

from vlmreward.models.chat_question import ChatQuestion

__all__ = ["NAMED_QUESTIONS", "QuestionTemplate"]

NAMED_QUESTIONS: dict[str, str] = {
    "yes-no": "Does this image show {prompt}? Answer Yes or No.",
    "one-to-five": (
        "How well does this image show {prompt}? Answer with a number from 1 (not at all) to 5 "
        "(perfectly)."
    ),
    # Lin et al. (2024), Evaluating Text-to-Visual Generation with Image-to-Text Generation
    "vqascore": 'Does this figure show "{prompt}"? Please answer yes or no.',
    # VLM3D (Text-to-3D Generation with VLM rewards), Appendix B, "Example Prompt A"
    "paper/A": (
        "Carefully evaluate the provided images, which show multiple views of a single 3D object. "
        "Does the underlying 3D object, considering all views together, correspond to the "
        "description: '{prompt}'? Strictly respond with only 'Yes' or 'No'."
    ),
    # VLM3D, Appendix B, "Example Prompt B"
    "paper/B": (
        "Carefully evaluate the 3D object shown in the multiple input image views based on the "
        "following criteria:\n"
        "1. Content Match: Does the object strongly match the text description: {prompt}?\n"
        "2. Visual Plausibility: Does the object appear visually coherent and plausible across all "
        "views, without major jarring artifacts or inconsistencies?\n"
        "Considering both criteria, answer 'Yes' if both are reasonably met. "
        "Otherwise, answer 'No'."
    ),
    # VLM3D, Section 4.2 and Appendix B, "Selected VLM Prompt"
    "paper/selected": (
        "Carefully evaluate the provided images, which show multiple views of a single 3D object. "
        "Does the underlying 3D object, considering all views together, meet all of the following "
        "criteria simultaneously?\n"
        "1. Content Match: The object corresponds to the description: {prompt}.\n"
        "2. Geometric Quality: Based on all views combined, the object appears geometrically sound "
        "and consistent. There are no visible signs of major flaws such as multiple faces on one "
        "part (Janus-faced issue), broken surfaces, intersecting geometry, or highly unrealistic "
        "polygonal facets when considering the object from these different perspectives.\n"
        "Strictly respond with only 'Yes' or 'No'."
    ),
    "paper/content": (
        "Carefully evaluate the provided images, which show multiple views of a single 3D object. "
        "Does the underlying 3D object, considering all views together, meet the following "
        "criterion?\n"
        "Content Match: The object corresponds to the description: {prompt}.\n"
        "Strictly respond with only 'Yes' or 'No'."
    ),
    "paper/geometry": (
        "Carefully evaluate the provided images, which show multiple views of a single 3D object. "
        "Does the underlying 3D object, considering all views together, meet the following "
        "criterion?\n"
        "Geometric Quality: Based on all views combined, the object appears geometrically sound "
        "and consistent. There are no visible signs of major flaws such as multiple faces on one "
        "part (Janus-faced issue), broken surfaces, intersecting geometry, or highly unrealistic "
        "polygonal facets when considering the object from these different perspectives.\n"
        "Strictly respond with only 'Yes' or 'No'."
    ),
}
"""Questions by name, as texts with a ``{prompt}`` placeholder.

``"paper/A"``, ``"paper/B"`` and ``"paper/selected"`` are the questions of the VLM3D paper (Section
4.2 and Appendix B), with straight quotation marks. ``"paper/content"`` and ``"paper/geometry"`` are
the criteria of the selected one as a question each, in its words, which the paper leaves to later
work; the second has no placeholder. ``"vqascore"`` is the question of VQAScore, for
``vlmreward.rewards.judges``.
"""
_IMAGES = "\ufdd0"
"""Stands for the images while a template is filled in; no text has it, as it is no character."""


class QuestionTemplate:
    """A question with named placeholders in braces; ``{{`` and ``}}`` stand for braces.

    Args:
        template: the text, e.g. ``"Is there {prompt}? Answer Yes or No."``. It follows the images,
            unless ``{images}`` marks their place in it.
        system: the system prompt; None for the default of the model's chat template. Models
            without a chat template, PaliGemma and IDEFICS-1, support neither ``system`` nor
            ``{images}``.

    Attributes:
        template: the text.
        system: the system prompt, or None.
        placeholders: names of the placeholders, without ``images``.

    Raises:
        TypeError: not a str.
        ValueError: empty, the braces do not pair, a placeholder has no plain name, or ``{images}``
            is there more than once.

    Examples:
        >>> QuestionTemplate("Is the {color} {thing} there?").format(color="red", thing="cup")
        'Is the red cup there?'
    """

    def __init__(self, template: str, *, system: str | None = None) -> None:
        if not isinstance(template, str):
            raise TypeError(f"question template is a {type(template).__name__}; expected a str")
        if not template.strip():
            raise ValueError(
                f"question template {template!r} is empty; expected a question such as "
                "'Is there {prompt}? Answer Yes or No.'"
            )
        if not isinstance(system, (str, type(None))) or (system is not None and not system.strip()):
            raise TypeError(f"system is {system!r}; expected a text or None")
        placeholders: list[str] = []
        found: list[str] = []
        try:
            for _, name, spec, conversion in string.Formatter().parse(template):
                if name is None:
                    continue
                if not name.isidentifier() or spec or conversion:
                    raise ValueError(f"placeholder {{{name}}} is not a plain name")
                found.append(name)
                if name not in placeholders and name != "images":
                    placeholders.append(name)
            if found.count("images") > 1:
                raise ValueError("{images} is there more than once")
        except ValueError as error:
            raise ValueError(
                f"question template {template!r} is malformed ({error}); expected placeholders "
                "like {prompt}: write {{ and }} for literal braces"
            ) from None
        self.template, self.system = template, system
        self._plain = system is None and "images" not in found
        self.placeholders: tuple[str, ...] = tuple(placeholders)

    @classmethod
    def named(cls, name: str) -> QuestionTemplate:
        """A template of ``NAMED_QUESTIONS``.

        Raises:
            ValueError: there is no question of that name.
        """
        if name not in NAMED_QUESTIONS:
            raise ValueError(
                f"no question is named {name!r}; expected one of {', '.join(NAMED_QUESTIONS)}: or "
                "write the question itself, as a QuestionTemplate where it is a single word"
            )
        return cls(NAMED_QUESTIONS[name])

    @classmethod
    def of(cls, question: object) -> QuestionTemplate:
        """A template, a name in ``NAMED_QUESTIONS`` or the text of a question -> the template.

        A text of ASCII without spaces and placeholders, such as ``"paper/Z"``, is taken for a name.

        Raises:
            TypeError: something else.
            ValueError: a name that there is not, or a malformed text.
        """
        if isinstance(question, QuestionTemplate):
            return question
        if not isinstance(question, str):
            raise TypeError(
                f"question is a {type(question).__name__}; expected a QuestionTemplate, a question "
                "such as 'Is there {prompt}? Answer Yes or No.', or one of "
                + ", ".join(NAMED_QUESTIONS)
            )
        like_a_name = question.isascii() and not any(c.isspace() or c in "{}" for c in question)
        return cls.named(question) if question and like_a_name else cls(question)

    def format(self, **values: str) -> str:
        """The text with every placeholder filled in.

        Raises:
            ValueError: a placeholder is missing, unknown or empty, or holds what UTF-8 cannot
                write.
            TypeError: a value is not a string.
        """
        self.check_placeholders(values)
        for placeholder, value in values.items():
            if not isinstance(value, str):
                raise TypeError(f"{placeholder} is a {type(value).__name__}; expected a str")
            if not value.strip():
                raise ValueError(
                    f"{placeholder} is {value!r}; expected what to ask about, in words"
                )
            if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
                raise ValueError(
                    f"{placeholder} is {value!r}, with half of a surrogate pair; expected text "
                    "that UTF-8 can write"
                )
        if self._plain:
            return self.template.format(**values)
        text = self.template.format(**values, images=_IMAGES)
        before, mark, after = text.partition(_IMAGES)
        return (
            ChatQuestion(before, after, self.system)
            if mark
            else ChatQuestion("", text, self.system)
        )

    def format_batch(self, values: Mapping[str, str | Sequence[str]], batch: int) -> list[str]:
        """Values of the placeholders, each one for all or a list of B -> B questions.

        Raises:
            TypeError, ValueError: as ``format``, or a list that is not of B items.
        """
        self.check_placeholders(values)
        columns: dict[str, list[str]] = {}
        for name, value in values.items():
            if isinstance(value, str):
                columns[name] = [value] * batch
            elif isinstance(value, (list, tuple)):
                if len(value) != batch:
                    raise ValueError(
                        f"{name} has {len(value)} items for {batch} queries; expected one str for "
                        f"all or a list of {batch}: (B, V, 3, H, W) is B queries of V views"
                    )
                columns[name] = list(value)
            else:
                raise TypeError(
                    f"{name} is a {type(value).__name__}; expected a str or a list of {batch} str"
                )
        return [
            self.format(**{name: column[i] for name, column in columns.items()})
            for i in range(batch)
        ]

    def check_placeholders(self, values: Iterable[str]) -> None:
        """Refuse a set of names that is not exactly the template's.

        Raises:
            ValueError: a placeholder is missing or unknown.
        """
        missing = [f for f in self.placeholders if f not in values]
        unknown = [f for f in values if f not in self.placeholders]
        wanted = ", ".join(self.placeholders) or "none"
        if missing:
            raise ValueError(
                f"question template lacks a value for {', '.join(missing)}; expected placeholders: "
                f"{wanted}: pass {missing[0]}=..."
            )
        if unknown:
            raise ValueError(
                f"question template has no placeholder {', '.join(unknown)}; expected "
                f"placeholders: {wanted}: leave out {unknown[0]}=... or write {{{unknown[0]}}} "
                "into the template"
            )

    def __repr__(self) -> str:
        system = "" if self.system is None else f", system={self.system!r}"
        return f"QuestionTemplate({self.template!r}{system})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QuestionTemplate):
            return False
        return (self.template, self.system) == (other.template, other.system)

    def __hash__(self) -> int:
        return hash((self.template, self.system))
