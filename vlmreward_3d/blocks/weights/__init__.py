"""Folders of the built-in models, which pyproject.toml announces to `vlmreward`."""

from pathlib import Path

__all__ = ["ALIGNED", "COARSE", "DENOISER", "ROBUST", "SINGLE_VIEW", "STRICT", "VLM"]

_HERE = Path(__file__).parent

VLM = _HERE / "vlm"
"""Folder of a VLM in the format of transformers."""
ROBUST = _HERE / "robust"
"""Folder of a VLM trained on adversarial views, so that its gradients change visible content."""
ALIGNED = _HERE / "aligned"
"""Folder of a VLM trained with the alignment loss of its gradient at the pixels."""
STRICT = _HERE / "strict"
"""Folder of a VLM trained to say No to half-right content, with an aligned gradient."""
DENOISER = _HERE / "denoiser"
"""Folder of a multi-view denoiser in the format of diffusers."""
COARSE = _HERE / "coarse"
"""Folder of a multi-view denoiser that knows words but not attribute binding or order."""
SINGLE_VIEW = _HERE / "single_view"
"""Folder of a denoiser of single views without cameras, trained mostly on front views."""
