"""Who may import whom."""

import ast
from pathlib import Path

import pytest

import vlmreward

ROOT = Path(vlmreward.__file__).parent
ORDER = ["arguments", "notices", "output", "progress", "lasting", "resample", "pixels"]
ORDER += ["templates", "vocabulary", "answers"]
ORDER += ["attention", "checkpointing"]
ORDER += ["last_tokens", "patch_projection", "processors", "rows", "packing", "families"]
ORDER += [
    "continued",
    "loading",
    "backbone",
    "queries",
    "one_by_one",
    "checklist",
    "prompted",
    "reward",
]
ORDER += ["scale", "micro_batched", "robust", "explain", "adapters", "files", "doctor", "cli"]
MAY_IMPORT_TRANSFORMERS = {"processors", "loading", "attention", "checkpointing"}


def files():
    return [p for p in sorted(ROOT.rglob("*.py")) if p != ROOT / "__init__.py"]


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_direction_of_imports(path):
    here = layer(path)
    for name in imported(path):
        package, _, rest = name.partition(".")
        assert package not in {"vlmreward_3d", "diffusers", "nerfacc"}
        if package == "transformers":
            assert here in MAY_IMPORT_TRANSFORMERS, f"{here} must not import transformers"
        if package == "vlmreward" and here in ORDER:
            there = rest.split(".")[0]
            assert there in ORDER, f"{here} must not import {there}"
            assert ORDER.index(there) <= ORDER.index(here), f"{here} must not import {there}"


def test_every_base_layer_is_listed():
    assert set(ORDER) <= {layer(path) for path in files()}


def test_public_surface():
    assert set(vlmreward.__all__) >= {"YesNoReward", "PromptTemplate", "processors"}
    for name in vlmreward.__all__:
        assert hasattr(vlmreward, name)
    assert (ROOT / "py.typed").exists()
