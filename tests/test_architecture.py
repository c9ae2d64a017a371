"""Import rules of both packages."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import import_graph
import pytest

import vlmreward
import vlmreward_3d

CORE = ["utils", "images", "processors", "models", "rewards", "wrappers"]
CORE += ["explain", "doctor", "integrations", "cli"]
THREE_D = ["config", "rendering", "fields", "guidance", "vlm3d", "export", "training", "blocks"]
THREE_D += ["cli"]
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


def positional_booleans(source: str) -> Iterator[str]:
    """Calls that pass True or False by position beside other arguments."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = ast.unparse(call.func).rpartition(".")[2]
        several = len(call.args) + len(call.keywords) > 1
        constants = [x.value for x in call.args if isinstance(x, ast.Constant)]
        if several and any(isinstance(x, bool) for x in constants) and name not in UNNAMED:
            yield f"line {call.lineno}: {ast.unparse(call)}"


def lengths(source: str) -> Iterator[tuple[str, int, int]]:
    """The module and its classes: name, number of lines, and how many there may be."""
    yield "module", len(source.splitlines()), LINES_OF_A_MODULE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            yield node.name, (node.end_lineno or 0) - node.lineno + 1, LINES_OF_A_CLASS


UNNAMED = {"setdefault", "apply"}
"""Functions of others that take no names."""
LINES_OF_A_MODULE, LINES_OF_A_CLASS = 300, 200


@pytest.mark.parametrize(("package", "order"), PACKAGES)
def test_no_boolean_is_passed_by_position(package, order):
    for path in folder(package).rglob("*.py"):
        assert not [*positional_booleans(path.read_text(encoding="utf-8"))], path
    assert [*positional_booleans("f(1, True)\ng(x=True)\nx.train(False)")] == ["line 1: f(1, True)"]


@pytest.mark.parametrize(("package", "order"), PACKAGES)
def test_modules_and_classes_are_small(package, order):
    found = [
        f"{path.relative_to(folder(package))}: {name} has {count} lines, more than {most}"
        for path in folder(package).rglob("*.py")
        for name, count, most in lengths(path.read_text(encoding="utf-8"))
        if count > most
    ]
    assert found == []
    assert [*lengths("class A:\n    x = 1\n")] == [("module", 2, 300), ("A", 2, 200)]


def test_the_drawn_graphs_are_those_of_the_code():
    assert import_graph.main(["--check"]) == 0


def test_public_surface():
    for package in (vlmreward, vlmreward_3d):
        for name in package.__all__:
            assert hasattr(package, name)
        assert (folder(package) / "py.typed").exists()
