"""Parts of a scene with prompts of their own."""

from __future__ import annotations

from dataclasses import dataclass

from vlmreward_3d.config._checks import Rule, are, check, is_number, is_text, require

__all__ = ["RegionConfig"]

_CORNER = Rule(lambda value: are(value, is_number, 3), "three finite numbers")


@dataclass(frozen=True, kw_only=True)
class RegionConfig:
    """A box of the world and what is in it, for the rule "semantic-sds".

    Attributes:
        prompt: Text prompt of the box.
        low: Lowest x, y and z of the box, world units.
        high: Highest x, y and z.

    Raises:
        ValueError: A setting has the wrong type, or the box is empty.
    """

    prompt: str
    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def __post_init__(self) -> None:
        check(self, prompt=Rule(is_text, "a prompt"), low=_CORNER, high=_CORNER)
        expected = f"numbers above those of low, {self.low!r}, so that the box is not empty"
        require(all(a < b for a, b in zip(self.low, self.high)), self, "high", expected)

    @property
    def center(self) -> tuple[float, ...]:
        """The middle (x, y, z) of the box."""
        return tuple((a + b) / 2 for a, b in zip(self.low, self.high))

    def reaches(self, bound: float) -> bool:
        """True if the box has a part in [-bound, bound]^3."""
        return all(a < bound and b > -bound for a, b in zip(self.low, self.high))
