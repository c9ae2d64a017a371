"""Rules for the values of settings, each with the words of its error message."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from vlmreward_3d.schedule import Schedule

__all__ = [
    "BOOLEAN",
    "COUNT",
    "COUNT_OR_NONE",
    "COUNT_STEPS",
    "FINITE",
    "NOT_NEGATIVE",
    "POSITIVE",
    "POSITIVE_OR_NONE",
    "SHARE",
    "TEXT",
    "WEIGHT",
    "Rule",
    "are",
    "check",
    "ends",
    "instance_of",
    "is_number",
    "is_schedule",
    "is_share",
    "is_text",
    "is_whole",
    "one_of",
    "or_none",
    "require",
    "whole",
]

Test: TypeAlias = Callable[[Any], bool]
"""A test of a value."""


class Rule(NamedTuple):
    """A test of a setting's value, and the expectation in words for its error message."""

    test: Test
    expected: str


def check(record: object, **rules: Rule) -> None:
    """Test settings of a record.

    Args:
        record: The record.
        **rules: Rules by the setting's name.

    Raises:
        ValueError: A setting breaks its rule.
    """
    for name, rule in rules.items():
        require(rule.test(getattr(record, name)), record, name, rule.expected)


def require(holds: bool, record: object, name: str, expected: str) -> None:
    """Raise the error of a setting, unless a condition on it holds."""
    if not holds:
        value = getattr(record, name)
        raise ValueError(f"received {name}={value!r}; expected {expected}; change {name}")


def is_text(value: Any) -> bool:
    """True for a text that is not blank and that UTF-8 can encode."""
    try:
        return isinstance(value, str) and value.strip() != "" and value.encode() != b""
    except UnicodeEncodeError:  # half of a surrogate pair, from file names that are not UTF-8
        return False


def is_whole(value: Any, least: int = 1) -> bool:
    """True for an integer from `least` on; False for a boolean."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: Any) -> bool:
    """True for a finite number; False for a boolean."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_share(value: Any) -> bool:
    """True for a number in [0, 1]."""
    return is_number(value) and 0 <= value <= 1


def is_schedule(value: Any, most: float = math.inf) -> bool:
    """True for a schedule of numbers in [0, most]."""
    return isinstance(value, Schedule) and all(0 <= level <= most for _, level in value.points)


def are(value: Any, test: Test, count: int | None = None) -> bool:
    """True for a tuple or list of `count` values (one or more) that all pass a test."""
    return (
        isinstance(value, (tuple, list))
        and (len(value) == count if count else len(value) > 0)
        and all(map(test, value))
    )


def whole(least: int) -> Rule:
    """The rule of an integer from `least` on."""
    return Rule(lambda value: is_whole(value, least), f"a whole number >= {least}")


def ends(expected: str, test: Callable[[float, float], bool]) -> Rule:
    """The rule of a pair (lowest, highest)."""
    return Rule(lambda x: are(x, is_number, 2) and x[0] <= x[1] and test(*x), expected)


def one_of(values: tuple[str, ...]) -> Rule:
    """The rule of a choice."""
    return Rule(lambda value: value in values, f"one of {values}")


def instance_of(*kinds: type) -> Rule:
    """The rule of a record."""
    return Rule(
        lambda value: isinstance(value, kinds), f"a {' or '.join(k.__name__ for k in kinds)}"
    )


def or_none(rule: Rule) -> Rule:
    """The same rule, where None is allowed too."""
    expected = f"None or {rule.expected}"
    return Rule(lambda value: value is None or rule.test(value), expected)


def _are_count_steps(value: Any) -> bool:
    return (
        isinstance(value, Schedule)
        and value.is_stepwise
        and all(level >= 1 and level == int(level) for _, level in value.points)
    )


BOOLEAN = Rule(lambda value: isinstance(value, bool), "True or False")
COUNT = whole(1)
COUNT_OR_NONE = or_none(COUNT)
COUNT_STEPS = Rule(_are_count_steps, "a Schedule of steps between whole numbers >= 1")
FINITE = Rule(is_number, "a finite number")
NOT_NEGATIVE = Rule(lambda value: is_number(value) and value >= 0, "a finite number >= 0")
POSITIVE = Rule(lambda value: is_number(value) and value > 0, "a finite number > 0")
POSITIVE_OR_NONE = or_none(POSITIVE)
SHARE = Rule(is_share, "a number in [0, 1]")
TEXT = Rule(is_text, "some text")
WEIGHT = Rule(is_schedule, "a Schedule of numbers >= 0")
