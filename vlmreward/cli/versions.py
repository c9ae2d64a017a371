"""Versions of the software that a report was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from vlmreward import __version__

__all__ = ["versions"]

_PACKAGES = (
    *("torch", "torchvision", "transformers", "tokenizers", "safetensors", "kornia"),
    *("diffusers", "nerfacc"),
)


def versions() -> dict[str, str]:
    """Versions by name: vlmreward, Python, the platform, and the packages that are installed."""
    found = {
        "vlmreward": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # the extra 3d is not installed
            continue
    return found
