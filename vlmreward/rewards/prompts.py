"""Prompt templates with named fields, and the paper's prompts."""

from __future__ import annotations

import string
from typing import Any

__all__ = ["NAMED_PROMPTS", "PromptTemplate"]

NAMED_PROMPTS: dict[str, str] = {
    "yes-no": "Does this image show {text}? Answer Yes or No.",
    "one-to-five": (
        "How well does this image show {text}? Answer with a number from 1 (not at all) to 5 "
        "(perfectly)."
    ),
    # VLM3D (Text-to-3D Generation with VLM rewards), Appendix B, "Example Prompt A"
    "paper/A": (
        "Carefully evaluate the provided images, which show multiple views of a single 3D object. "
        "Does the underlying 3D object, considering all views together, correspond to the "
        "description: '{text}'? Strictly respond with only 'Yes' or 'No'."
    ),
    # VLM3D, Appendix B, "Example Prompt B"
    "paper/B": (
        "Carefully evaluate the 3D object shown in the multiple input image views based on the "
        "following criteria:\n"
        "1. Content Match: Does the object strongly match the text description: {text}?\n"
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
        "1. Content Match: The object corresponds to the description: {text}.\n"
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
        "Content Match: The object corresponds to the description: {text}.\n"
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
"""Prompts by name, as texts with a ``{text}`` field.

``"paper/A"``, ``"paper/B"`` and ``"paper/selected"`` are the prompts of the VLM3D paper (Section
4.2 and Appendix B), with straight quotation marks. ``"paper/content"`` and ``"paper/geometry"`` are
the criteria of the selected one as a question each, in its words, which the paper leaves to later
work; the second has no field.
"""


class PromptTemplate:
    """A question with named fields in braces; ``{{`` and ``}}`` stand for braces.

    Args:
        template: the text, e.g. ``"Is there {text}? Answer Yes or No."``.

    Raises:
        TypeError: not a str.
        ValueError: empty, the braces do not pair, or a field has no plain name.

    Examples:
        >>> PromptTemplate("Is the {colour} {thing} there?").format(colour="red", thing="cup")
        'Is the red cup there?'
    """

    def __init__(self, template: str) -> None:
        if not isinstance(template, str):
            raise TypeError(f"prompt template is a {type(template).__name__}; expected a str")
        if not template.strip():
            raise ValueError(
                f"prompt template {template!r} is empty; expected a question such as "
                "'Is there {text}? Answer Yes or No.'"
            )
        fields: list[str] = []
        try:
            for _, name, spec, conversion in string.Formatter().parse(template):
                if name is None:
                    continue
                if not name.isidentifier() or spec or conversion:
                    raise ValueError(f"field {{{name}}} is not a plain name")
                if name not in fields:
                    fields.append(name)
        except ValueError as error:
            raise ValueError(
                f"prompt template {template!r} is malformed ({error}); expected fields like "
                "{text}: write {{ and }} for literal braces"
            ) from None
        self.template = template
        self.fields: tuple[str, ...] = tuple(fields)

    @classmethod
    def named(cls, name: str) -> PromptTemplate:
        """A template of ``NAMED_PROMPTS``.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in NAMED_PROMPTS:
            raise ValueError(
                f"no prompt is named {name!r}; expected one of {', '.join(NAMED_PROMPTS)}: or "
                "write the question itself, as a PromptTemplate where it is a single word"
            )
        return cls(NAMED_PROMPTS[name])

    @classmethod
    def of(cls, prompt: Any) -> PromptTemplate:
        """A template, a name in ``NAMED_PROMPTS`` or the text of a question -> the template.

        A text of ASCII without spaces and fields, such as ``"paper/Z"``, is taken for a name.

        Raises:
            TypeError: something else.
            ValueError: a name that there is not, or a malformed text.
        """
        if isinstance(prompt, PromptTemplate):
            return prompt
        if not isinstance(prompt, str):
            raise TypeError(
                f"prompt is a {type(prompt).__name__}; expected a PromptTemplate, a question such "
                f"as 'Is there {{text}}? Answer Yes or No.', or one of {', '.join(NAMED_PROMPTS)}"
            )
        like_a_name = prompt.isascii() and not any(c.isspace() or c in "{}" for c in prompt)
        return cls.named(prompt) if prompt and like_a_name else cls(prompt)

    def format(self, **values: str) -> str:
        """The text with every field filled in.

        Raises:
            ValueError: a field is missing, unknown or empty, or holds what UTF-8 cannot write.
            TypeError: a value is not a string.
        """
        self.check_fields(values)
        for field, value in values.items():
            if not isinstance(value, str):
                raise TypeError(f"{field} is a {type(value).__name__}; expected a str")
            if not value.strip():
                raise ValueError(f"{field} is {value!r}; expected what to ask about, in words")
            if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
                raise ValueError(
                    f"{field} is {value!r}, with half of a surrogate pair; expected text that "
                    "UTF-8 can write"
                )
        return self.template.format(**values)

    def check_fields(self, values: Any) -> None:
        """Refuse a set of names that is not exactly the template's.

        Raises:
            ValueError: a field is missing or unknown.
        """
        missing = [f for f in self.fields if f not in values]
        unknown = [f for f in values if f not in self.fields]
        wanted = ", ".join(self.fields) or "none"
        if missing:
            raise ValueError(
                f"prompt template lacks a value for {', '.join(missing)}; expected fields: "
                f"{wanted}: pass {missing[0]}=..."
            )
        if unknown:
            raise ValueError(
                f"prompt template has no field {', '.join(unknown)}; expected fields: {wanted}: "
                f"leave out {unknown[0]}=... or write {{{unknown[0]}}} into the template"
            )

    def __repr__(self) -> str:
        return f"PromptTemplate({self.template!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PromptTemplate) and self.template == other.template

    def __hash__(self) -> int:
        return hash(self.template)
