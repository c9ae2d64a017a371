"""Records of settings as JSON objects, and as flat tables with dotted names."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from itertools import chain
from typing import Any

from vlmreward_3d.schedule import Schedule

__all__ = ["flatten", "from_object", "replace_settings", "to_object"]

_KIND = "kind"


def to_object(value: Any) -> Any:
    """A record as JSON's objects and arrays.

    Schedules are {"points": [[progress, value], ...]}; a record with a class attribute `kind` has
    it as its first entry.
    """
    if isinstance(value, (tuple, list)):
        return [to_object(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    kind = {_KIND: getattr(value, _KIND)} if hasattr(value, _KIND) else {}
    names = [field.name for field in dataclasses.fields(value)]
    return kind | {name: to_object(getattr(value, name)) for name in names}


def from_object(hint: Any, value: Any, name: str = "") -> Any:
    """The value of a given type that `to_object` has turned into JSON's objects and arrays.

    Args:
        hint: The type, such as a record or a union of records.
        value: The object.
        name: Dotted name of the value, for messages.

    Raises:
        ValueError: The object is not of this type.
    """
    if isinstance(value, list):
        kinds = typing.get_args(hint) if typing.get_origin(hint) is tuple else ()
        return tuple(from_object(kinds[0] if kinds else Any, item, name) for item in value)
    if not isinstance(value, dict):
        return value
    record = _record(hint, value, name)
    hints = typing.get_type_hints(record)
    fields = {field.name: field for field in dataclasses.fields(record)}
    given = {key: item for key, item in value.items() if key != _KIND}
    needed = {key for key, field in fields.items() if _is_required(field)}
    wrong = sorted(given.keys() - fields.keys()) or sorted(needed - given.keys())
    if wrong:
        raise ValueError(
            f"received settings {'with' if wrong[0] in given else 'without'} "
            f"{_dotted(name, wrong[0])!r}; expected those of a {record.__name__}"
        )
    return record(
        **{key: from_object(hints[key], item, _dotted(name, key)) for key, item in given.items()}
    )


def _record(hint: Any, value: Mapping[str, Any], name: str) -> Any:
    """The class of a type, or of one of its alternatives, that an object is to become."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    options = [kind for kind in (typing.get_args(hint) if union else [hint]) if _is_record(kind)]
    options = [kind for option in options for kind in _with_subclasses(option)]
    chosen = [kind for kind in options if getattr(kind, _KIND, None) == value.get(_KIND)]
    if len(chosen) != 1:
        kinds = [kind for option in options if (kind := getattr(option, _KIND, option.__name__))]
        raise ValueError(
            f"received an object for the setting {name!r} of kind {value.get(_KIND)!r}; expected "
            f"{f'one of {kinds}' if options else 'a plain value'}"
        )
    return chosen[0]


def _with_subclasses(record: type) -> list[type]:
    """A record class and all of its subclasses."""
    return [record, *chain.from_iterable(map(_with_subclasses, record.__subclasses__()))]


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _dotted(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of `to_object`'s nested objects by their dotted names; schedules are leaves."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        dotted = _dotted(prefix, name)
        if isinstance(value, Mapping) and value.keys() != {"points"}:
            flat |= flatten(value, dotted)
        else:
            flat[dotted] = value
    return flat


def replace_settings(record: Any, settings: Mapping[str, Any], prefix: str = "") -> Any:
    """A copy of a record with other settings.

    Args:
        record: The record.
        settings: Values by dotted name, such as "vlm.weighting.interval".
        prefix: Dotted name of the record, for messages.

    Raises:
        ValueError: There is no such setting, or a value does not suit it.
    """
    is_record = dataclasses.is_dataclass(record) and not isinstance(record, Schedule)
    if not is_record:
        raise ValueError(
            f"received the setting {_dotted(prefix, next(iter(settings)))!r}, but {prefix} is "
            f"{record!r}; expected a record there; set {prefix} first"
        )
    names = [field.name for field in dataclasses.fields(record)]
    changes: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for dotted, value in settings.items():
        name, _, rest = dotted.partition(".")
        if name not in names:
            raise ValueError(
                f"received the setting {_dotted(prefix, dotted)!r}; expected one of "
                f"{', '.join(_dotted(prefix, known) for known in names)}"
            )
        if rest:
            nested.setdefault(name, {})[rest] = value
        else:
            changes[name] = value
    for name, inner in nested.items():
        current = changes.get(name, getattr(record, name))
        changes[name] = replace_settings(current, inner, _dotted(prefix, name))
    return dataclasses.replace(record, **changes)
