"""Folders of the built-in models, which pyproject.toml announces to `vlmreward`."""

from pathlib import Path

__all__ = ["DENOISER", "VLM"]

VLM = Path(__file__).parent / "vlm"
"""A VLM in the format of transformers."""
DENOISER = Path(__file__).parent / "denoiser"
"""A multi-view denoiser in the format of diffusers."""
