"""Numbers that change over a run, written relative to its length."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from vlmreward.utils.arguments import number

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """A piecewise-linear function of a run's progress, constant beyond its first and last point.

    Attributes:
        points: (progress, value) pairs, progress in [0, 1] ascending. Two points at one progress
            make a jump; the later one counts from there on.

    Raises:
        TypeError: Not pairs of numbers.
        ValueError: There are no points, a number is not finite, or progress is outside [0, 1] or
            descending.

    Examples:
        The paper's weight of the reward (Sec. 5.1: 300 to 1 over 10,000 of 15,000 steps):

        >>> weight = Schedule.ramp(300, 1, until=2 / 3)
        >>> [round(weight(p), 6) for p in (0, 1 / 3, 2 / 3, 1)]
        [300.0, 150.5, 1.0, 1.0]

        Images of 64 pixels, and of 256 from a quarter of the run on:

        >>> resolution = Schedule.steps(64, (0.25, 256))
        >>> [resolution(p) for p in (0, 0.2, 0.25, 1)]
        [64.0, 64.0, 256.0, 256.0]
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not isinstance(self.points, (tuple, list)) or not all(
            isinstance(point, (tuple, list)) and len(point) == 2 for point in self.points
        ):
            raise TypeError(
                f"received points {self.points!r}; expected (progress, value) pairs, such as "
                "((0.0, 1.0), (1.0, 0.5))"
            )
        points = tuple(
            (number("a progress", at), number("a value of a schedule", value))
            for at, value in self.points
        )
        object.__setattr__(self, "points", points)
        positions = [at for at, _ in points]
        if not points or positions != sorted(positions) or positions[0] < 0 or positions[-1] > 1:
            raise ValueError(
                f"received points {points}; expected (progress, value) pairs with progress "
                "ascending within [0, 1]; divide steps by the length of the run"
            )

    @classmethod
    def constant(cls, value: float) -> Schedule:
        """The same value throughout."""
        return cls(((0.0, value),))

    @classmethod
    def ramp(cls, start: float, end: float, *, until: float = 1.0) -> Schedule:
        """From `start` to `end` over the share `until` of the run, then `end`."""
        return cls(((0.0, start), (until, end)))

    @classmethod
    def steps(cls, first: float, *later: tuple[float, float]) -> Schedule:
        """Step function: `first`, then each value of `later`, (progress, value), from there on."""
        schedule = cls(((0.0, first), *later))
        points, value = [(0.0, schedule.points[0][1])], schedule.points[0][1]
        for at, following in schedule.points[1:]:
            points += [(at, value), (at, following)]
            value = following
        return cls(tuple(points))

    def ending(self, value: float) -> Schedule:
        """This schedule with `value` at the end of the run, reached linearly from its last point.

        Examples:
            >>> print(Schedule.ramp(0.98, 0.5, until=0.4).ending(0.15))
            0.98 at 0%, 0.5 at 40%, 0.15 at 100%
        """
        before = tuple(point for point in self.points if point[0] < 1)
        return Schedule((*before, (1.0, value)))

    @property
    def is_stepwise(self) -> bool:
        """True if the value is constant between jumps."""
        pairs = zip(self.points, self.points[1:])
        return all(low == high or left == right for (left, low), (right, high) in pairs)

    @property
    def jumps(self) -> tuple[float, ...]:
        """The progress of each jump."""
        pairs = zip(self.points, self.points[1:])
        return tuple(left for (left, low), (right, high) in pairs if left == right and low != high)

    def __str__(self) -> str:
        """Levels for readers, such as "300 at 0%, 1 at 67%", or "64, then 256 from 25% on"."""
        first = f"{self.points[0][1]:g}"
        if self.is_stepwise:
            later = [f", then {self(at):g} from {at:.0%} on" for at in self.jumps]
            return first + "".join(later)
        return ", ".join(f"{level:g} at {at:.0%}" for at, level in self.points)

    def __call__(self, progress: float) -> float:
        """The value at a progress in [0, 1]; step i of n is at i / n."""
        after = bisect_right([at for at, _ in self.points], progress)
        if after == 0:
            return self.points[0][1]
        if after == len(self.points):
            return self.points[-1][1]
        (left, low), (right, high) = self.points[after - 1], self.points[after]
        return low + (high - low) * (progress - left) / (right - left)
