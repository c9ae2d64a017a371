"""Who may import whom, in both packages."""

import shutil
from pathlib import Path

import import_graph
import pytest

import vlmreward
import vlmreward_3d

CORE = ["utils", "images", "processors", "models", "rewards", "wrappers"]
CORE += ["explain", "doctor", "integrations", "cli"]
THREE_D = ["config", "rendering", "fields", "guidance", "vlm3d", "export", "training", "blocks"]
"""The steps of each stair from the bottom to the top: one may import those before it."""
FOREIGN = {
    "vlmreward": {
        "transformers": {"processors", "models"},
        "diffusers": set(),
        "nerfacc": set(),
        "vlmreward_3d": set(),
    },
    "vlmreward_3d": {
        "transformers": {"guidance", "blocks"},
        "diffusers": {"guidance", "blocks"},
        "nerfacc": {"rendering"},
    },
}
"""Packages that only some steps may import."""
PACKAGES = [(vlmreward, CORE), (vlmreward_3d, THREE_D)]


def folder(package) -> Path:
    return Path(package.__file__).parent


def upward(package: Path, order: list[str]) -> list[str]:
    """Imports that run up the stair."""
    return [
        f"{above} imports {below}"
        for above, below in sorted(import_graph.edges(package))
        if above in order and below in order and order.index(below) > order.index(above)
    ]


def foreign(package: Path) -> list[str]:
    """Imports of other packages where they are not allowed."""
    found = []
    for path in import_graph.modules(package):
        here = path.relative_to(package).parts[0].removesuffix(".py")
        for name in import_graph.imported(path):
            allowed = FOREIGN[package.name].get(name.partition(".")[0])
            if allowed is not None and here not in allowed:
                found.append(f"{path.relative_to(package)} imports {name}")
    return found


@pytest.mark.parametrize(("package", "order"), PACKAGES)
def test_imports_run_down_the_stair(package, order):
    assert upward(folder(package), order) == []
    assert set(import_graph.floors(import_graph.edges(folder(package)))) >= set(order)


@pytest.mark.parametrize(("package", "order"), PACKAGES)
def test_foreign_packages_are_imported_in_their_places_alone(package, order):
    assert foreign(folder(package)) == []


@pytest.mark.parametrize(("package", "order"), PACKAGES)
def test_a_wrong_import_is_noticed(package, order, tmp_path):
    copy = tmp_path / package.__name__
    shutil.copytree(folder(package), copy, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    lowest, highest = order[0], order[-1]
    planted = copy / lowest / "planted.py" if (copy / lowest).is_dir() else copy / f"{lowest}.py"
    with planted.open("a") as file:
        file.write(f"\nfrom {package.__name__}.{highest} import anything\nimport nerfacc\n")
    assert upward(copy, order) == [f"{lowest} imports {highest}"]
    assert foreign(copy) == [f"{planted.relative_to(copy)} imports nerfacc"]
    with pytest.raises(ValueError, match="circle"):
        import_graph.floors(import_graph.edges(copy))


def test_the_drawn_graphs_are_those_of_the_code():
    assert import_graph.main(["--check"]) == 0


def test_public_surface():
    for package in (vlmreward, vlmreward_3d):
        for name in package.__all__:
            assert hasattr(package, name)
        assert (folder(package) / "py.typed").exists()
