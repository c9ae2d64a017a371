"""The settings in a YAML file of threestudio, with a record of those that have been read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from vlmreward_3d.schedule import Schedule

__all__ = ["Settings"]

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_MISSING = object()


class Settings:
    """Settings by dotted name, such as `system.guidance.guidance_scale`.

    References like `${system.geometry.radius}` are followed; resolvers of functions, such as
    `${rmspace:...}`, stay text.

    Args:
        text: The YAML.
        overrides: Settings as on threestudio's command line, "name=value", which replace the file's
            or are added.

    Raises:
        ValueError: Not YAML, no mapping, an override without "=", or a reference that leads nowhere
            or round in a circle.
    """

    def __init__(self, text: str, overrides: Sequence[str] = ()) -> None:
        try:
            tree = yaml.safe_load(text)
            parsed = [
                (o.partition("=")[0].strip(), yaml.safe_load(o.partition("=")[2]))
                for o in overrides
            ]
        except yaml.YAMLError as error:
            raise ValueError(
                f"received settings that are not YAML ({' '.join(str(error).split())}); expected a "
                "configuration of threestudio"
            ) from None
        if not isinstance(tree, Mapping) or not isinstance(tree.get("system"), Mapping):
            raise ValueError(
                "received settings without a mapping 'system'; expected a configuration of "
                "threestudio, such as its configs/dreamfusion-sd.yaml"
            )
        self.values: dict[str, Any] = dict(_leaves(tree))
        for override, (name, value) in zip(overrides, parsed):
            if "=" not in override or not name:
                raise ValueError(
                    f"received the override {override!r}; expected name=value, such as "
                    "'system.guidance.guidance_scale=50'"
                )
            self._drop(name)
            self.values |= (
                dict(_leaves(value, name)) if isinstance(value, Mapping) else {name: value}
            )
        self.values = {name: self._resolved(name) for name in self.values}
        self._read: set[str] = set()

    def take(self, name: str, default: Any = None) -> Any:
        """The value of a setting, which is marked as read; `default` if the file lacks it."""
        self._read.add(name)
        return self.values.get(name, default)

    def skip(self, pattern: str) -> None:
        """Mark the settings whose whole name matches a regular expression as read."""
        self._read |= {name for name in self.values if re.fullmatch(pattern, name)}

    def number(self, name: str, default: float) -> float:
        """The value of a setting that is a number.

        Raises:
            ValueError: The value is not a number.
        """
        value = self.take(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"received {name}={value!r}; expected a number")
        return value

    def pair(self, name: str, default: tuple[float, float]) -> tuple[float, float]:
        """The value of a setting that is a range [lowest, highest].

        Raises:
            ValueError: The value is not a pair of numbers.
        """
        value = self.take(name, list(default))
        numbers = isinstance(value, list) and all(isinstance(x, (int, float)) for x in value)
        if not numbers or len(value) != 2:
            raise ValueError(f"received {name}={value!r}; expected [lowest, highest]")
        return float(value[0]), float(value[1])

    def schedule(self, name: str, default: float, steps: int) -> Schedule:
        """A number, or `[start_step, first, last, end_step]`, as threestudio's `C` reads it.

        Three entries begin at step 0. Beyond the end of the run the ramp is cut off there.

        Raises:
            ValueError: The value is something else, or a ramp over epochs (last entry a float).
        """
        value = self.take(name, default)
        if not isinstance(value, list):
            return Schedule.constant(float(self.number(name, default)))
        points = [0, *value] if len(value) == 3 else value
        numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in points)
        if len(points) != 4 or not numbers or not isinstance(points[3], int):
            raise ValueError(
                f"received {name}={value!r}; expected a number or [start_step, first, last, "
                "end_step], with a whole number at the end"
            )
        start, first, last, end = points
        if end <= start or start >= steps:
            return Schedule.constant(float(first))
        if end > steps:
            first_to_last = (steps - start) / (end - start)
            last, end = first + (last - first) * first_to_last, steps
        return Schedule(((start / steps, float(first)), (end / steps, float(last))))

    def milestones(self, name: str, default: int, at: Sequence[int], steps: int) -> Schedule:
        """The value of a setting: a whole number, or a list of one per interval of milestones.

        Raises:
            ValueError: The value is something else.
        """
        value = self.take(name, default)
        several = value if isinstance(value, list) else [value]
        if not all(isinstance(x, int) for x in several) or len(several) not in (1, len(at) + 1):
            raise ValueError(
                f"received {name}={value!r} with {len(at)} milestones; expected a whole number, or "
                f"{len(at) + 1} of them"
            )
        later = [(step / steps, x) for step, x in zip(at, several[1:]) if step < steps]
        return Schedule.steps(several[0], *later)

    def left(self) -> dict[str, Any]:
        """The settings that have not been read."""
        return {name: value for name, value in self.values.items() if name not in self._read}

    def _drop(self, name: str) -> None:
        inside = [key for key in self.values if key == name or key.startswith(f"{name}.")]
        for key in inside:
            del self.values[key]

    def _resolved(self, name: str, seen: tuple[str, ...] = ()) -> Any:
        value = self.values[name]
        if isinstance(value, str) and (found := _REFERENCE.fullmatch(value.strip())):
            target = found[1]
            if target not in self.values or target in (*seen, name):
                raise ValueError(
                    f"received {name}={value!r}; expected a reference to a setting of the file"
                )
            return self._resolved(target, (*seen, name))
        # YAML 1.1 takes 1e-3 for a text
        return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from _leaves(value, name)
        else:
            yield name, value
