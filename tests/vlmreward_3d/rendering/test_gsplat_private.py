"""The private names of gsplat are where `_gsplat_private.py` expects them."""

import ast
import importlib.util
from pathlib import Path

import pytest

import vlmreward_3d

WHAT_TO_DO = (
    "gsplat has moved a private name: adapt "
    "vlmreward_3d/rendering/gaussians/_gsplat_private.py, the only file that uses it"
)


def test_gsplat_keeps_its_kernels_where_they_are_looked_for():
    """The source is read, because importing the module would compile the kernels."""
    pytest.importorskip("gsplat")
    found = importlib.util.find_spec("gsplat.cuda._backend")
    assert found is not None, f"{WHAT_TO_DO}: there is no gsplat.cuda._backend"
    tree = ast.parse(Path(str(found.origin)).read_text(encoding="utf-8"))
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    assert "_C" in names, f"{WHAT_TO_DO}: gsplat.cuda._backend has no _C"


def test_no_other_file_uses_private_names():
    package = Path(vlmreward_3d.__file__).parent
    found = [p.name for p in package.rglob("*.py") if "gsplat.cuda._" in p.read_text("utf-8")]
    assert found == ["_gsplat_private.py"]
