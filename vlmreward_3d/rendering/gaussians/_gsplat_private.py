"""The private names of gsplat that this package uses, all of them.

`tests/vlmreward_3d/rendering/test_gsplat_private.py` fails where a release of gsplat moves one of
them, and says what to change here.
"""

from __future__ import annotations

__all__ = ["compiled_kernels"]


def compiled_kernels() -> object | None:
    """Compile gsplat's kernels if they are not yet; None without a CUDA toolkit.

    gsplat has no public way to ask for them. Anything may go wrong while they are compiled, and is
    raised.
    """
    from gsplat.cuda._backend import _C

    return _C
