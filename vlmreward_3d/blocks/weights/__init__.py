"""Folders of the built-in models, which pyproject.toml announces to `vlmreward`."""

from pathlib import Path

__all__ = ["ALIGNED", "COARSE", "DENOISER", "ROBUST", "SINGLE_VIEW", "VLM"]

_HERE = Path(__file__).parent

VLM = _HERE / "vlm"
"""A VLM in the format of transformers."""
ROBUST = _HERE / "robust"
"""A VLM that has been trained against views that mislead it, for gradients that paint."""
ALIGNED = _HERE / "aligned"
"""A VLM that has been trained for the direction of its gradient at the pixels."""
DENOISER = _HERE / "denoiser"
"""A multi-view denoiser in the format of diffusers."""
COARSE = _HERE / "coarse"
"""A multi-view denoiser that knows words, and neither which color is whose nor what is on top."""
SINGLE_VIEW = _HERE / "single_view"
"""A denoiser of single views without cameras, which has mostly seen fronts."""
