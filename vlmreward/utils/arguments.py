"""Checks of arguments that are numbers, switches or rewards, each with a message of one line."""

from __future__ import annotations

import contextlib
import math
import operator
from numbers import Real
from typing import SupportsIndex

__all__ = ["flag", "interval", "number", "reward_like", "whole"]


def whole(name: str, value: object, least: int = 1, most: int | None = None) -> int:
    """A whole number within bounds; no boolean, and no float even where it is whole.

    Args:
        name: name of the argument, for the message.
        value: the value that was passed.
        least: lowest value allowed.
        most: highest value allowed; None for no limit.

    Raises:
        TypeError: not a whole number.
        ValueError: out of bounds.
    """
    expected = f"a whole number >= {least}" + ("" if most is None else f" and <= {most}")
    found: int | None = None
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        with contextlib.suppress(TypeError):
            found = operator.index(value)
    if found is None:
        raise TypeError(f"{name} is {value!r}; expected {expected}")
    if found < least or (most is not None and found > most):
        raise ValueError(f"{name} is {value!r}; expected {expected}")
    return found


def number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> float:
    """Check that an argument is a finite number within bounds, and return it; no boolean.

    Args:
        name: name of the argument, for the message.
        value: the value that was passed.
        above: the value has to be greater than this.
        least: the value has to be at least this.
        below: the value has to be less than this.
        most: the value has to be at most this.

    Raises:
        TypeError: not a number.
        ValueError: not finite, or out of bounds.
    """
    bounds = ((">", above), (">=", least), ("<", below), ("<=", most))
    limits = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
    expected = f"a finite number {limits}".rstrip()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r}; expected {expected}")
    found = float(value)
    within = (
        math.isfinite(found)
        and (above is None or found > above)
        and (least is None or found >= least)
        and (below is None or found < below)
        and (most is None or found <= most)
    )
    if not within:
        raise ValueError(f"{name} is {value!r}; expected {expected}")
    return found


def interval(name: str, value: object, **bounds: float | None) -> tuple[float, float]:
    """Two finite numbers, the lower one first.

    Args:
        name: name of the argument, for the message.
        value: the value that was passed.
        **bounds: bounds of both numbers; see ``number``.

    Raises:
        TypeError: not two numbers.
        ValueError: not finite, out of bounds, or in descending order.
    """
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} is {value!r}; expected a pair (lowest, highest)")
    low, high = (number(f"{name}[{i}]", end, **bounds) for i, end in enumerate(value))
    if low > high:
        raise ValueError(f"{name} is {value!r}; expected a pair (lowest, highest): swap them")
    return low, high


def flag(name: str, value: object) -> bool:
    """The value, checked to be the boolean True or False.

    Raises:
        TypeError: not a boolean.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; expected True or False")
    return value


def reward_like(value: object, name: str = "reward") -> None:
    """Refuse an object that cannot be called like a reward.

    Raises:
        TypeError: ``value`` is not callable.
    """
    if not callable(value):
        raise TypeError(
            f"{name} is a {type(value).__name__}; expected a reward, called as "
            "reward(images, prompt=...)"
        )
