"""Which module of vlmreward_3d may import which."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import vlmreward_3d

ROOT = Path(vlmreward_3d.__file__).parent
ORDER = [
    {"atomic_io", "cameras", "errors", "losses", "schedule"},
    {"config"},
    {"rendering"},
    {"fields"},
    {"guidance"},
    {"presets", "vlm3d"},
    {"export"},
    {"training"},
    {"blocks"},
]
"""From the lowest to the highest; a module imports lower ones and those of its own package."""
ONLY_USERS = {
    "diffusers": ("guidance/", "blocks/training/"),
    "nerfacc": ("rendering/volume.py",),
    "gsplat": ("rendering/gaussians/rasterize_gsplat.py",),
    "viser": ("training/viewer.py",),
}
FILES = [p for p in sorted(ROOT.rglob("*.py")) if p != ROOT / "__init__.py"]
PACKAGES = sorted(
    ".".join(p.parent.relative_to(ROOT.parent).parts) for p in ROOT.rglob("__init__.py")
)


def nodes(tree: ast.AST):
    """All nodes but those that only a type checker sees."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from nodes(child)


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def height(layer: str) -> int:
    return next(i for i, layers in enumerate(ORDER) if layer in layers)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_import_what_is_below_them(path):
    inside = path.relative_to(ROOT)
    here = inside.parts[0].removesuffix(".py")
    for name in imported(path):
        package, _, rest = name.partition(".")
        there = rest.split(".")[0]
        if package == "vlmreward_3d" and there != here:
            assert height(there) < height(here), f"{inside} must not import {name}"
        if package in ONLY_USERS:
            users = ONLY_USERS[package]
            assert inside.as_posix().startswith(users), f"{inside} must not import {package}"


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


def test_the_package_is_imported_without_heavy_libraries():
    code = (
        "import sys; from vlmreward_3d import VLM3DConfig, presets; import vlmreward_3d; "
        "assert not {'diffusers', 'transformers', 'nerfacc'} & set(sys.modules); "
        "from vlmreward_3d import VLM3D; assert 'diffusers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
