"""Words that a small model was trained on, kept with its tokenizer, and warnings about others."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vlmreward.utils.notices import warn

__all__ = ["KNOWN_WORDS", "warn_of_unknown_words", "words_of"]

KNOWN_WORDS = "known_words"
"""Entry of ``tokenizer_config.json`` with all words of a model's training texts, in lower case.

A tokenizer of bytes takes any text, so that its vocabulary does not tell."""
_NAMED = 8


def words_of(text: str) -> list[str]:
    """Words of a text in their order, in lower case: letters and digits between all others.

    >>> words_of("Is the 3D object Janus-faced?")
    ['is', 'the', '3d', 'object', 'janus', 'faced']
    """
    return re.findall(r"\w+", text.casefold())


def warn_of_unknown_words(tokenizer: object, texts: Iterable[str], warned: set[str]) -> None:
    """Warn about words that the model behind a tokenizer has never seen, about each of them once.

    Args:
        tokenizer: a tokenizer; without an entry ``KNOWN_WORDS`` nothing is checked.
        texts: texts that the model is given.
        warned: words that a warning has named before; new ones are added.
    """
    known = getattr(tokenizer, "init_kwargs", {}).get(KNOWN_WORDS)
    if not known:
        return
    found = {word for text in texts for word in words_of(text)} - set(known) - warned
    if not found:
        return
    warned |= found
    named = sorted(found)
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    warn(
        f"the text has words that this small model was not trained on: {', '.join(named[:_NAMED])}"
        f"{more}; expected some of its {len(known)} words ({KNOWN_WORDS} in its "
        "tokenizer_config.json): what it makes of others means nothing, so use a larger model"
    )
