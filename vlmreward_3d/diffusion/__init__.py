"""Diffusion models that act as score-distillation teachers."""
