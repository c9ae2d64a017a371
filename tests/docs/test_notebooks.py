"""The notebooks of the tutorials: their code runs, and their outputs are those of such a run."""

import json
import re

import pytest
from fences import ROOT
from run_notebooks import code_of

NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_runs(path, offline, monkeypatch, tmp_path):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    code = "\n".join(code_of(path))
    shortened, count = re.subn(r"^STEPS = \d+$", "STEPS = 2", code, flags=re.MULTILINE)
    assert count == 1 or path.stem == "first_reward"
    names = {"__name__": "notebook"}
    exec(compile(shortened, path.name, "exec"), names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_those_of_a_whole_run(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "display_data" in kinds
    assert "error" not in kinds


def test_all_notebooks_are_there():
    assert len(NOTEBOOKS) >= 6
