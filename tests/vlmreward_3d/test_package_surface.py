"""Public names of the packages of vlmreward_3d, and what importing them costs."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import vlmreward_3d

ROOT = Path(vlmreward_3d.__file__).parent
FILES = [p for p in sorted(ROOT.rglob("*.py")) if p != ROOT / "__init__.py"]
PACKAGES = sorted(
    ".".join(p.parent.relative_to(ROOT.parent).parts) for p in ROOT.rglob("__init__.py")
)


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_export_what_they_list(name):
    package = importlib.import_module(name)
    for public in package.__all__:
        if not hasattr(package, public):
            importlib.import_module(f"{name}.{public}")
    with pytest.raises(AttributeError):
        _ = package.nothing_of_the_kind


def test_nothing_asks_of_which_class_a_field_is():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"isinstance", "type"}:
                asked = "".join(ast.unparse(x) for x in node.args[1:])
                classes = ("Field", "Gauss", "Baked", "DenseGrid", "HashGrid")
                assert not any(name in asked for name in classes), f"{path}: {ast.unparse(node)}"


def test_heavy_libraries_come_with_what_needs_them_and_say_nothing():
    """Importing diffusers prints nothing, and loading shows no progress bars."""
    code = (
        "import sys; from vlmreward_3d import VLM3DConfig, presets; import vlmreward_3d; "
        "assert not {'diffusers', 'transformers', 'nerfacc'} & set(sys.modules); "
        "from vlmreward_3d import VLM3D; assert 'diffusers' not in sys.modules; "
        "from vlmreward_3d.guidance.loading import load_guidances; "
        "load_guidances(presets.blocks('a red cube'))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, timeout=300, check=True)
    assert done.stdout == done.stderr == b""
