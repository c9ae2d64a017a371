"""Messages of all examples about devices, folders, files and Ctrl-C."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import common
import finetune_diffusion
import finetune_easy_vqa
import optimize_image
import optimize_noise
import pytest
import score_images
import torch
from PIL import Image

EXAMPLES = Path(common.__file__).parent
MAINS = [
    m.main
    for m in (finetune_diffusion, finetune_easy_vqa, optimize_image, optimize_noise, score_images)
]


@pytest.mark.parametrize("main", MAINS, ids=lambda main: main.__module__)
@pytest.mark.parametrize("device", ["gpu", "", "meta", "cuda:77"])
def test_a_device_that_is_not_there_is_one_line_before_any_work(
    main, device, refused, tmp_path, monkeypatch
):
    monkeypatch.setattr(common, "load_reward", lambda *_: pytest.fail("a model was loaded"))
    said = refused(main, "--device", device, "--out", tmp_path / "run")
    assert said.startswith(f"error: received --device {device!r}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("main", MAINS, ids=lambda main: main.__module__)
def test_names_that_are_empty_or_in_the_way(main, refused, tmp_path, capsys):
    for word in ("--out", "--model"):
        with pytest.raises(SystemExit) as raised:
            main([word, ""])
        assert raised.value.code == 2
        assert f"argument {word}: received ''; expected" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert "(File exists); expected a folder" in refused(main, "--out", tmp_path / "file")


def test_no_memory_and_defects_are_told_apart(tmp_path, capsys):
    options = score_images.parse(["--out", str(tmp_path)])

    def fail(error):
        def work(_):
            raise error

        return common.run(work, options)

    assert fail(torch.OutOfMemoryError("CUDA out of memory")) == 2
    assert fail(MemoryError()) == 2
    assert capsys.readouterr().err.count("error: no memory left") == 2
    assert fail(ModuleNotFoundError("No module named 'ray'")) == 2
    assert "'ray'; expected the packages of the examples" in capsys.readouterr().err
    assert fail(KeyboardInterrupt()) == 130
    with pytest.raises(RuntimeError, match="a defect"):
        fail(RuntimeError("a defect"))


def test_one_at_a_time_in_a_folder(tmp_path, refused):
    with common.locked(tmp_path):
        said = refused(score_images.main, "--out", tmp_path)
    assert "another run is going on" in said


def test_what_means_nothing_together(tmp_path, refused, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(SystemExit):
        optimize_image.main(["--start", str(tmp_path / "a.png"), "--size", "32"])
    assert "received --size with the file" in capsys.readouterr().err
    said = refused(finetune_easy_vqa.main, "--out", tmp_path, "--resume")
    assert "holds nothing to resume" in said


@pytest.mark.parametrize(
    "name", ["optimize_image", "generate_many", "benchmarks/benchmark_processors"]
)
def test_ctrl_c_while_an_example_starts_is_one_line(name, tmp_path):
    """Nearly all of them import torch at their head, with what takes as long."""
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES.parent)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    words = ["none.txt"] if name == "generate_many" else ["--help"]
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *words]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)
    assert process.stderr.readline() == "loading torch and models' libraries ...\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, "", "stopped")


def test_a_package_that_is_not_installed_is_one_line(tmp_path):
    (tmp_path / "peft.py").write_text("raise ModuleNotFoundError('No module named peft')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{EXAMPLES.parent}"}
    command = [sys.executable, str(EXAMPLES / "finetune_diffusion.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    loading, said = done.stderr.splitlines()
    assert (done.returncode, loading.startswith("loading ")) == (1, True)
    assert said.startswith("error: No module named peft; expected the packages of the examples")


def test_every_example_answers_while_it_starts():
    for file in EXAMPLES.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        if "__main__" in text and file.name != "text_to_3d.py":  # which imports after parsing
            assert "import common\n" in text or "import starting" in text, file.name
