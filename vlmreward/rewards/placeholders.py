"""Values of the placeholders of a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["Text", "placeholder_values", "repeat_values", "select_values"]

Text = str | Sequence[str]
"""A value of a placeholder: one for all queries, or a list of B."""


def placeholder_values(prompt: Text | None, placeholders: Mapping[str, Text]) -> dict[str, Text]:
    """The values of all placeholders, ``prompt`` (if it is given) first."""
    return dict(placeholders) if prompt is None else {"prompt": prompt, **placeholders}


def select_values(values: Mapping[str, Text], part: slice) -> dict[str, Text]:
    """The placeholders' values for the queries of a slice."""
    return {
        name: value[part] if isinstance(value, (list, tuple)) else value
        for name, value in values.items()
    }


def repeat_values(values: Mapping[str, Text], times: int) -> dict[str, Text]:
    """The placeholders' values for a batch that is repeated as a whole."""
    return {
        name: list(value) * times if isinstance(value, (list, tuple)) else value
        for name, value in values.items()
    }
