"""Tournaments over folders of renders: see ``examples/arena.py``."""
