"""Errors of a run."""

__all__ = ["DivergenceError"]


class DivergenceError(RuntimeError):
    """The optimization cannot go on; the parameters are those before the failing step."""
