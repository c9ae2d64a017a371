"""Parts of error messages."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["reason_of", "some"]


def reason_of(error: BaseException) -> str:
    """The message of an error, in one line of at most 300 characters and without a full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else ""
    for line in lines[1:]:
        if not said.endswith(":"):
            break
        said = f"{said} {line}"
    if not isinstance(error, (OSError, ValueError)) or not said:
        said = f"{type(error).__name__}: {said}".removesuffix(": ")
    return (said if len(said) <= 300 else f"{said[:297]}...").rstrip(".")


def some(names: Iterable[object]) -> str:
    """The first three of some names, in alphabetical order."""
    every = sorted(map(str, names))
    return ", ".join([*every[:3], *["..."] * (len(every) > 3)])
