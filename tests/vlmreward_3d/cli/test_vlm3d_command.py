"""The command's entry points, and its messages about missing packages.

Its options, files and messages are tested through the example, in tests/examples.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stub_models import RandomDenoiser, build_vlm3d, tiny

import vlmreward
from vlmreward_3d.cli import main, requirements
from vlmreward_3d.cli.invocation import program_name, program_words
from vlmreward_3d.training.tensorboard_logger import TensorBoardLogger

ROOT = Path(vlmreward.__file__).parents[1]


@pytest.mark.parametrize(
    ("called", "words"),
    [
        ("/usr/local/bin/vlm3d", ["vlm3d"]),
        ("/lib/vlmreward_3d/__main__.py", ["python", "-m", "vlmreward_3d"]),
        ("examples/text_to_3d.py", ["python", "examples/text_to_3d.py"]),
    ],
)
def test_the_words_to_type_again_are_those_that_were_typed(called, words, monkeypatch):
    monkeypatch.setattr(sys, "argv", [called, "a red cube"])
    assert program_words() == words
    assert program_name() == Path(words[-1]).name


def test_the_module_is_the_command_and_needs_no_torch_to_answer():
    code = (
        "import runpy, sys; sys.argv = ['x', '--version']\n"
        "try: runpy.run_module('vlmreward_3d', run_name='__main__')\n"
        "finally: assert 'torch' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"vlm3d (vlmreward) {vlmreward.__version__}\n")


def hide(monkeypatch, *names):
    """Make modules look as if they were not installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(requirements, "find_spec", lambda n: None if n in names else found(n))
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_all_packages_that_are_missing_are_named_before_any_work(monkeypatch, tmp_path, capsys):
    hide(monkeypatch, "diffusers", "xatlas")
    assert main(["a red cube", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == (
        "error: not installed: diffusers, xatlas; expected the packages of the extra 3d: "
        "python -m pip install 'vlmreward[3d]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_tensorboard_goes_on_and_says_so_once(monkeypatch, tmp_path):
    hide(monkeypatch, "torch.utils.tensorboard")
    model = build_vlm3d(tiny(steps=1), RandomDenoiser())
    with pytest.warns(UserWarning, match=r"not installed: .*'vlmreward\[tensorboard\]'") as warned:
        logger = TensorBoardLogger(tmp_path, 0)
    assert len(warned) == 1
    logger.report(model.step())
    logger.show(model)
    logger.close()
    assert [path.name for path in tmp_path.iterdir()] == ["preview.png"]
