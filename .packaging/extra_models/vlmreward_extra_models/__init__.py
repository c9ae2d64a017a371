"""Folders of the built-in models that are not in the wheel of vlmreward."""

from pathlib import Path

__all__ = ["ALIGNED", "COARSE", "ROBUST", "SINGLE_VIEW", "STRICT"]

_HERE = Path(__file__).parent

ALIGNED = _HERE / "aligned"
"""A VLM that has been trained for the direction of its gradient at the pixels."""
COARSE = _HERE / "coarse"
"""A multi-view denoiser that knows words, and neither which color is whose nor what is on top."""
ROBUST = _HERE / "robust"
"""A VLM that has been trained against views that mislead it, for gradients that paint."""
SINGLE_VIEW = _HERE / "single_view"
"""A denoiser of single views without cameras, which has mostly seen fronts."""
STRICT = _HERE / "strict"
"""A VLM that says No to things that are half right, with a gradient that repairs them."""
