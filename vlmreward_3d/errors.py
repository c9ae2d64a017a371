"""Errors of a run."""

__all__ = ["DivergenceError", "RunError"]


class DivergenceError(RuntimeError):
    """Error: the optimization cannot go on; the parameters are those before the failing step."""


class RunError(ValueError):
    """Error: the folder of a run cannot be used as requested."""
