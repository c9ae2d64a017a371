"""Errors of a run."""

__all__ = ["DivergenceError", "RunError"]


class DivergenceError(RuntimeError):
    """The optimization cannot go on; the parameters are those before the failing step."""


class RunError(ValueError):
    """The folder of a run cannot be used as asked."""
