"""Contents of the distributions by hatchling's own rules, without building them."""

import importlib
import os
import re
import sys
from collections import Counter
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import vlmreward
from vlmreward.utils import built_in
from vlmreward_3d.cli import requirements

ROOT = Path(vlmreward.__file__).parents[1]
EXTRA = ROOT / ".packaging" / "extra_models"
WEIGHTS = "vlmreward_3d/blocks/weights/"
LIMIT = 20e6
"""Bytes of the wheel; its files are counted as they are before they are compressed."""
DEFAULT = {"denoiser", "vlm"}
"""The models of the default preset, and of `vlmreward` without --model."""
IMPORTED_AS = {
    "scikit-image": "skimage",
    "imageio-ffmpeg": "imageio_ffmpeg",
    "pyyaml": "yaml",
}


def contents(builder) -> dict[str, int]:
    """Sizes of the files in a distribution by their paths in it, its metadata left out."""
    files = list(builder.recurse_included_files())
    paths = Counter(file.distribution_path for file in files)
    assert max(paths.values()) == 1
    return {file.distribution_path: os.path.getsize(file.path) for file in files}


def models(paths, folder: str) -> set[str]:
    """The folders below this one in which there are weights."""
    weights = [p.removeprefix(folder) for p in paths if p.endswith(".safetensors")]
    assert not any(p.startswith("vlmreward") for p in weights)
    return {p.partition("/")[0] for p in weights}


@pytest.fixture(scope="module")
def wheel():
    return contents(WheelBuilder(str(ROOT)))


@pytest.fixture(scope="module")
def extra():
    return contents(WheelBuilder(str(EXTRA)))


def test_the_wheel_has_all_code_and_the_default_models_and_nothing_else(wheel):
    code = {str(p.relative_to(ROOT)) for p in ROOT.glob("vlmreward*/**/*.py")}
    assert len(code) > 200
    assert {p for p in wheel if p.endswith(".py")} == code
    assert {"vlmreward/py.typed", "vlmreward_3d/py.typed"} <= wheel.keys()
    assert {p.partition("/")[0] for p in wheel} == {"vlmreward", "vlmreward_3d"}
    assert models(wheel, WEIGHTS) == DEFAULT
    # what is no code is part of a model, with its card, or of the report's page
    rest = {p for p in wheel.keys() - code if not p.endswith(".typed")}
    places = (*(f"{WEIGHTS}{name}/" for name in DEFAULT), "vlmreward_3d/export/report/")
    assert {p for p in rest if not p.startswith(places)} == set()
    assert {f"{WEIGHTS}{name}/README.md" for name in DEFAULT} <= rest


def test_the_wheel_is_small(wheel):
    assert sum(wheel.values()) <= LIMIT


def test_every_model_of_the_checkout_is_in_one_of_the_two_wheels(extra):
    present = {p.name for p in (ROOT / WEIGHTS).iterdir() if (p / "README.md").exists()}
    others = models(extra, "vlmreward_extra_models/")
    assert others | DEFAULT == present
    assert not others & DEFAULT
    assert {"vlmreward_extra_models/__init__.py", "vlmreward_extra_models/LICENSE"} <= extra.keys()


def test_both_wheels_have_one_version():
    versions = {WheelBuilder(str(root)).metadata.version for root in (ROOT, EXTRA)}
    assert versions == {vlmreward.__version__}


def test_files_of_a_release_agree():
    def found(pattern: str, file: str) -> list[str]:
        return re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)

    (cited,) = found(r"^version: (\S+)$", "CITATION.cff")
    (date,) = found(r'^date-released: "(\S+)"$', "CITATION.cff")
    latest = found(r"^## \[(\d\S*)\] - (\S+)$", "CHANGELOG.md")[0]
    assert latest == (vlmreward.__version__, date)
    assert cited == vlmreward.__version__


def test_the_hooks_have_the_releases_that_the_project_pins():
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    development = WheelBuilder(str(ROOT)).metadata.core.optional_dependencies["dev"]
    (pinned,) = (line for line in development if line.startswith("ruff=="))
    hooks = re.findall(r"ruff==([\d.]+)", text)
    assert len(set(hooks)) == 1
    assert len(hooks) == 2
    assert hooks[0].startswith(pinned.removeprefix("ruff==").removesuffix("*"))


def test_the_source_distribution_is_the_checkout(wheel):
    source = contents(SdistBuilder(str(ROOT)))
    assert wheel.keys() <= source.keys()
    assert models([p for p in source if p.startswith(WEIGHTS)], WEIGHTS) > DEFAULT
    for path in (
        "README.md",
        "LICENSE",
        "tests/test_distribution.py",
        ".packaging/extra_models/README.md",
    ):
        assert path in source
    assert not any(p.split("/")[0] in (".git", ".ci-venv", "outputs", "dist") for p in source)


def announced(root: Path, folder: str) -> dict[tuple[str, str], str]:
    """Models that a distribution announces: the folder of each by group and name."""
    module = importlib.import_module(folder)
    points = WheelBuilder(str(root)).metadata.core.entry_points
    return {
        (group, name): getattr(module, value.partition(":")[2]).name
        for group in (built_in.VLMS, built_in.DENOISERS)
        for name, value in points.get(group, {}).items()
    }


def test_models_have_the_same_names_in_both(monkeypatch):
    monkeypatch.syspath_prepend(str(EXTRA))
    whole = announced(ROOT, "vlmreward_3d.blocks.weights")
    others = announced(EXTRA, "vlmreward_extra_models")
    assert others == {key: name for key, name in whole.items() if name not in DEFAULT}
    assert len(others) == 5


def test_the_packages_that_a_run_needs_are_those_of_the_extra():
    lines = WheelBuilder(str(ROOT)).metadata.core.optional_dependencies["3d"]
    names = [re.match(r"[\w-]+", line)[0] for line in lines]
    assert sorted(IMPORTED_AS.get(n, n) for n in names) == sorted(requirements.OF_A_RUN)


def test_a_model_is_found_where_it_is_installed(monkeypatch, tmp_path):
    """The wheel of vlmreward announces folders that it does not carry."""
    module = type(sys)("announcing")
    module.ABSENT, module.PRESENT = tmp_path / "absent", tmp_path
    monkeypatch.setitem(sys.modules, "announcing", module)

    def install(*names):
        points = [EntryPoint("builtin/robust", f"announcing:{n}", built_in.VLMS) for n in names]
        monkeypatch.setattr(built_in, "entry_points", lambda **_: points)

    install("ABSENT", "PRESENT")
    assert built_in.built_in_folder("builtin/robust", built_in.VLMS) == tmp_path
    assert built_in.built_in_names(built_in.VLMS) == ["builtin/robust"]
    install("ABSENT")
    with pytest.raises(
        FileNotFoundError, match=r"'builtin/robust'.*pip install vlmreward-extra-mo"
    ):
        built_in.built_in_folder("builtin/robust", built_in.VLMS)
