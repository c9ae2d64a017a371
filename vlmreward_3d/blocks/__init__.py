"""The built-in world: coloured primitives and small objects, and the models trained on it."""
