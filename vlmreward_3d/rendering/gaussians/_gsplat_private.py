"""All private names of gsplat that this package uses.

`tests/vlmreward_3d/rendering/test_gsplat_private.py` fails if a release of gsplat moves one of
them, and says what to change here.
"""

from __future__ import annotations

__all__ = ["compiled_kernels"]


def compiled_kernels() -> object | None:
    """gsplat's kernels, compiled if they are not yet; None without a CUDA toolkit.

    gsplat has no public function for this. Any error of the compilation is raised.
    """
    from gsplat.cuda._backend import _C

    return _C
