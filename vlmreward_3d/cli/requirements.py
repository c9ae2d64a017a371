"""Checks of the packages that a run needs beyond those of `pip install vlmreward`."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["OF_A_RUN", "require_extra"]

OF_A_RUN = (
    *("diffusers", "nerfacc"),  # guidance and rendering
    *("imageio", "imageio_ffmpeg", "matplotlib"),  # pictures, turntable, curves
    *("scipy", "skimage", "trimesh", "xatlas"),  # meshes
    "yaml",  # configurations of threestudio
)
"""Names of the modules that the extra `3d` brings."""


def require_extra() -> None:
    """Check that all packages of the extra `3d` are installed, before a run begins.

    A run would otherwise end at its export, after all of its steps.

    Raises:
        ImportError: Some are missing; the message names them and says how to get them.
    """
    missing = [name for name in OF_A_RUN if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"not installed: {', '.join(missing)}; expected the packages of the extra 3d: "
            "python -m pip install 'vlmreward[3d]'"
        )
