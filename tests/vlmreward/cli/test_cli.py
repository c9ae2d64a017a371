"""The command line: what it prints and writes, its exit codes, and that it starts at once."""

import csv
import json
import os
import runpy
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

import vlmreward
from vlmreward import YesNoReward, explain
from vlmreward.cli import main
from vlmreward.images.io import load_image

PAPER = "paper/selected"


def run(*arguments):
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


@pytest.fixture(scope="module")
def blocks():
    return YesNoReward("builtin/blocks", pixel_mode="uint8")


@pytest.fixture
def pictures(tmp_path):
    """Squares that the built-in model takes for cubes; and files that are none."""
    for name in ("red", "blue"):
        image = Image.new("RGB", (64, 64), (160, 160, 160))
        color = {"red": (200, 30, 30), "blue": (30, 30, 200)}[name]
        ImageDraw.Draw(image).rectangle((18, 18, 46, 46), fill=color)
        image.save(tmp_path / f"{name}.png")
    return tmp_path


# --- start


def test_help_imports_nothing_heavy():
    program = (
        "import sys\n"
        "from vlmreward.cli import main\n"
        "for words in (['--help'], ['doctor', '-h'], ['score', '-h'], ['explain', '-h']):\n"
        "    try: main(words)\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'transformers', 'numpy', 'PIL', 'tqdm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for taught in ("exit codes:", "examples:", "log-odds", "log P(Yes) - log P(No)"):
        assert taught in done.stdout


def test_the_package_is_lazy_and_complete():
    program = "import sys, vlmreward; assert 'torch' not in sys.modules; dir(vlmreward)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
    assert set(vlmreward.__all__) <= set(dir(vlmreward))
    assert vlmreward.YesNoReward is YesNoReward
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = vlmreward.nonsense
    with pytest.raises(ImportError):
        from vlmreward import nonsense  # noqa: F401


def test_both_ways_to_start(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vlmreward", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("vlmreward", run_name="__main__")
    assert stop.value.code == 0
    assert "score" in capsys.readouterr().out
    project = Path(vlmreward.__file__).parents[1] / "pyproject.toml"
    assert 'vlmreward = "vlmreward.cli:main"' in project.read_text(encoding="utf-8")


# --- score


def test_score_table(pictures, blocks, capsys):
    images = [pictures / "red.png", pictures / "blue.png"]
    assert run("score", *images, "--prompt", "a red cube", "--prompt", "a blue cube") == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["image", "prompt", "log-odds", "P(Yes)"]
    with torch.no_grad():
        expected = torch.cat(
            [
                blocks([load_image(image).image] * 2, prompt=["a red cube", "a blue cube"])
                for image in images
            ]
        )
    assert [row.split()[-2:] for row in rows] == [
        [f"{float(z):+.2f}", f"{float(z.sigmoid()):.1%}"] for z in expected
    ]
    assert [z > 0 for z in expected.tolist()] == [True, False, False, True]


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"vlmreward {vlmreward.__version__}\n"


def test_score_csv_and_json_agree(pictures):
    words = ("score", pictures, "--prompt", 'a "red", cube', "--batch", 1)
    assert run(*words, "--format", "csv", "--out", pictures / "out.csv") == 0
    assert run(*words, "--format", "json", "--out", pictures / "out.json") == 0
    with open(pictures / "out.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    report = json.loads((pictures / "out.json").read_text(encoding="utf-8"))
    assert (report["model"], report["question"]) == ("builtin/blocks", "yes-no")
    assert [row["image"] for row in rows] == [s["images"][0] for s in report["scores"]]
    assert [Path(row["image"]).name for row in rows] == ["blue.png", "red.png"]
    for row, score in zip(rows, report["scores"]):
        assert row["prompt"] == score["prompt"] == 'a "red", cube'
        assert float(row["log_odds"]) == score["log_odds"]
        assert float(row["p_yes"]) == score["p_yes"]
    assert [path.name for path in pictures.glob(".*")] == []


def test_score_views(pictures, blocks, capsys):
    images = [pictures / "red.png", pictures / "blue.png"]
    words = ("--prompt", "a red cube", "--question", PAPER, "--format", "json")
    assert run("score", *images, "--views", *words) == 0
    (score,) = json.loads(capsys.readouterr().out)["scores"]
    with torch.no_grad():
        views = torch.stack([load_image(image).image for image in images])[None]
        asked = YesNoReward((blocks.backbone.vlm, blocks.backbone.processor), question=PAPER)
        expected = asked(views, prompt="a red cube")
    assert score["images"] == [str(image) for image in images]
    assert score["log_odds"] == pytest.approx(float(expected), abs=0.02)


def test_score_says_what_it_converts_and_skips(pictures, capsys):
    Image.open(pictures / "red.png").convert("RGBA").save(pictures / "red.png")
    (pictures / "broken.png").write_bytes((pictures / "blue.png").read_bytes()[:50])
    assert run("score", pictures, "--prompt", "a red cube") == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4
    assert "red.png: RGBA to RGB, transparency over white" in err
    assert "skipped: cannot read" in err
    assert "broken.png" in err


def test_score_a_prompt_without_text(pictures, capsys):
    question = "Is there a red cube? Answer Yes or No."
    assert run("score", pictures / "red.png", "--question", question) == 0
    assert "P(Yes)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "red.png"], "--prompt is missing; expected what to ask about"),
        (["score", "red.png", "--prompt", " "], "--prompt: received ' '; expected some words"),
        (["score", "none.png", "--prompt", "x"], "no such file; expected"),
        (["score", "q*.png", "--prompt", "x"], "nothing matches 'q*.png'"),
        (["score", "red.png", "--prompt", "x", "--question", "paper/C"], "expected one of yes-no"),
        (["score", "red.png", "--prompt", "x", "--question", "{prompt"], "malformed"),
        (
            ["score", "red.png", "--prompt", "x", "--question", "{a}{prompt}"],
            "has the placeholders a, prompt",
        ),
        (["score", "red.png", "--prompt", "x", "--model", "none"], "cannot load 'none'"),
        (["score", "red.png", "--prompt", "x", "--out", "none/x.csv"], "no folder none"),
        (["score", "red.png", "--prompt", "x", "--out", "."], "is a folder"),
        (
            ["score", "red.png", "--prompt", "x", "--batch", "0"],
            "--batch: received '0'; expected a whole",
        ),
        (["score", "red.png", "--prompt", "<|im_end|>"], "is markup to this model"),
        (
            ["score", "red.png", "--prompt", "x", "--answers", "No", "No way"],
            "begins with the answer",
        ),
        (["score", "red.png", "--prompt", "x", "--device", "gpu"], "expected cpu, cuda or cuda:N"),
        (
            ["score", "red.png", "--prompt", "x", "--device", ""],
            "received --device ''; expected cpu",
        ),
        (["doctor", "builtin/blocks", "--device", "meta"], "received --device 'meta'; expected"),
        (["doctor", "builtin/blocks", "--device", "cuda:77"], "expected a device of this machine"),
        (
            ["explain", "red.png", "--prompt", "x", "--out", "x.png", "--device", "xpu:9"],
            "device of",
        ),
        (["score", "red.png", "--prompt", "x", "--out", ""], "received an empty --out"),
        (["score", "red.png", "--prompt", "a \udcff cube"], "which is not UTF-8; expected text"),
        (["score", "red.png", "--prompt", "x", "--batch", "9" * 5000], "9...'; expected a whole"),
        (["score", "red.png", "none.png", "--views", "--prompt", "x"], "none is left out"),
        (["explain", "red.png", "--prompt", "x"], "required: --out"),
        (["doctor", "builtin/blocks", "--answers", "a cat", "a dog"], "answers of one token"),
        (["explain", "red.png", "--prompt", "x", "--out", "x.txt"], "expected a file ending in"),
        (
            ["explain", "red.png", "--prompt", "x", "--out", "x.png", "--steps", "1"],
            "whole number >= 4",
        ),
        (
            ["explain", "red.png", "--prompt", "x", "--out", "x.png", "--baseline", "2"],
            "expected a gray level from 0 to 1, or mean",
        ),
        (["explain", "none.png", "--prompt", "x", "--out", "x.png"], "no such file"),
        (["doctor", "builtin/nothing"], "cannot load 'builtin/nothing'"),
        (["doctor", "builtin/blocks", "--json", "none/x"], "no folder none"),
        ([], "required: COMMAND"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_bad_usage(pictures, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(pictures)
    before = sorted(pictures.iterdir())
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert "Traceback" not in err
    assert sorted(pictures.iterdir()) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("command", ["score", "doctor", "explain"])
def test_a_missing_gpu_is_one_line_before_anything_is_read(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(YesNoReward, "__init__", lambda *_, **__: pytest.fail("a model was loaded"))
    words = {
        "score": ["none.png", "--prompt", "x"],
        "doctor": ["builtin/blocks"],
        "explain": ["none.png", "--prompt", "x", "--out", tmp_path / "x.png"],
    }[command]
    assert run(command, *words, "--device", "cuda") == 2
    assert capsys.readouterr().err == (
        f"vlmreward {command}: error: received --device 'cuda', but torch sees no GPU; expected a "
        "device of this machine; pass --device cpu, or leave it out\n"
    )


def test_names_and_texts_beyond_ascii_where_locale_and_streams_know_none(pictures):
    """Names as bytes that are not even UTF-8, on systems that allow them."""
    name = os.fsencode(pictures) + b"/r\xc3\xb6t \xff.png"
    (pictures / "red.png").rename(os.fsdecode(name))
    out = os.fsencode(pictures) + "/größe.json".encode()
    program = (
        "import sys; from vlmreward.cli import main\n"
        "*words, out = sys.argv[1:]\n"
        "sys.exit(main(words) or main([*words, '--format', 'json', '--out', out]))\n"
    )
    words = [b"score", name, b"--prompt", "a röd cube".encode(), out]
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = os.environ | ascii_only | {"PYTHONIOENCODING": "ascii:strict"}
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"r\\udcc3\\udcb6t \\udcff.png  a r\\xf6d cube" in done.stdout
    (score,) = json.loads(Path(os.fsdecode(out)).read_text(encoding="utf-8"))["scores"]
    assert score["prompt"] == "a röd cube"


def test_ctrl_c_while_it_starts_is_one_line(pictures):
    command = [sys.executable, "-m", "vlmreward", "score", "red.png", "--prompt", "x"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=pictures, **pipes)
    first = process.stderr.readline()
    assert first.startswith("loading ")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, "", "stopped")


def test_the_first_line_comes_at_once(pictures):
    """Long before torch is there."""
    program = (
        "import runpy, sys\n"
        "class Watch:\n"
        "    def write(self, text): assert 'torch' not in sys.modules; raise SystemExit(77)\n"
        "    def flush(self): pass\n"
        "sys.stderr = Watch()\n"
        "sys.argv = ['vlmreward', 'score', 'red.png', '--prompt', 'x']\n"
        "runpy.run_module('vlmreward', run_name='__main__')\n"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=pictures).returncode == 77


def test_interruption_and_memory(pictures, monkeypatch, capsys):
    def run_into(error):
        def forward(*arguments, **placeholders):
            raise error

        monkeypatch.setattr(YesNoReward, "forward", forward)
        return run("score", pictures / "red.png", "--prompt", "x")

    assert run_into(KeyboardInterrupt()) == 130
    assert run_into(torch.OutOfMemoryError()) == 2
    assert "error: no GPU memory left" in capsys.readouterr().err
    allocation = "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."
    assert run_into(RuntimeError(f"[enforce fail] {allocation}\nBuy more")) == 2
    assert "error: no memory left" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="a defect"):
        run_into(RuntimeError("a defect"))


# --- explain


def test_explain(pictures, blocks, capsys):
    images = [pictures / "red.png", pictures / "blue.png"]
    words = ("--prompt", "a red cube", "--question", PAPER, "--method", "gradient-x-input")
    assert run("explain", *images, *words, "--out", pictures / "why.png") == 0
    first, *views, last = capsys.readouterr().out.splitlines()
    asked = YesNoReward((blocks.backbone.vlm, blocks.backbone.processor), question=PAPER)
    stacked = torch.stack([load_image(image).image for image in images])[None]
    why = explain.attribute(asked, stacked, "a red cube", method="gradient-x-input")
    assert first.startswith(f"log-odds {float(why.reward):+.2f}, P(Yes) ")
    assert views == [
        f"{image}: left out, the log-odds change by {-float(effect):+.2f}"
        for image, effect in zip(images, why.views[0])
    ]
    assert last == str(pictures / "why.png")
    with Image.open(pictures / "why.png") as picture:
        assert min(picture.size) > 300


def test_explain_passes_its_options_on(pictures, monkeypatch):
    seen = {}

    def attribute(reward, images, prompt, **options):
        seen.update(options, shape=tuple(images.shape), prompt=prompt)
        raise ValueError("far enough")

    monkeypatch.setattr(explain, "attribute", attribute)
    words = ("--prompt", "x", "--steps", 8, "--baseline", "mean", "--method", "gradient-norm")
    assert run("explain", pictures / "red.png", *words, "--out", pictures / "x.png") == 2
    assert seen == {
        "method": "gradient-norm",
        "baseline": "mean",
        "steps": 8,
        "shape": (1, 1, 3, 64, 64),
        "prompt": "x",
    }


def test_explain_wants_one_size(pictures, capsys):
    Image.new("RGB", (80, 64)).save(pictures / "wide.png")
    words = ("--prompt", "x", "--out", pictures / "x.png")
    assert run("explain", pictures / "red.png", pictures / "wide.png", *words) == 2
    assert "the images are 64x64, 64x80; expected one size" in capsys.readouterr().err


# --- doctor


def test_doctor(family_folder, tmp_path, capsys):
    assert run("doctor", family_folder("paligemma"), "--quick", "--json", tmp_path / "x.json") == 0
    lines = capsys.readouterr().out.splitlines()
    report = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    printed = [line for line in lines if line[:4].strip() in {"OK", "WARN"}]
    assert [line[6:26].strip() for line in printed] == [f["name"] for f in report["findings"]]
    assert lines[-1] == "12 of 13 checks passed, 0 failed, 1 to be looked at"
    assert report["question"].endswith("Answer Yes or No.")
    assert report["versions"]["vlmreward"] == vlmreward.__version__
    assert report["versions"]["torch"] == version("torch")


def test_doctor_fails(family_folder, monkeypatch, capsys):
    forward = YesNoReward.forward
    monkeypatch.setattr(YesNoReward, "forward", lambda *a, **k: forward(*a, **k).detach())
    assert run("doctor", family_folder("llava"), "--quick") == 1
    out = capsys.readouterr().out
    assert "\nFAIL  gradient" in out
    assert "-> something between the pixels and the answer leaves the graph" in out
