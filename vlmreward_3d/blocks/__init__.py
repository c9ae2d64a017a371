"""The built-in world of colored primitives and small objects, and the models trained on it."""

__all__ = [
    "training",
    "weights",
    "world",
]
