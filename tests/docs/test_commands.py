"""Every command of the README, the documentation, docstrings and helps.

Those of fenced blocks run, with the changes of ``RUN``, or are parsed for a reason given in
``PARSED``; all others are parsed by the parsers that they are for.
"""

import argparse
import ast
import functools
import importlib
import re
import shlex
import sys

import pytest
from fences import ALL, PAGES, ROOT, spans_of

NOT_RUN = {
    "python -m pytest -n auto --dist loadfile": "would run the tests within a test",
    "python -m pytest tests/vlmreward -k KEY": "the same",
    "pre-commit install": "would change the hooks of the checkout",
    "python -m pytest tests/examples/test_arena_ratings.py --junitxml ratings.xml": "the same",
}
RUN = {
    'vlm3d "a red cube on top of a blue sphere"': (
        {},
        "--steps 1 --rule ism",
    ),
    'python examples/text_to_3d.py "a red cube" --field gaussians --grow blocks': ({}, "--steps 1"),
    'python examples/text_to_3d.py "a red cube" --preset rewardsds --builtin-models': (
        {},
        "--steps 1",
    ),
    'python examples/optimize_noise.py "a cat in a hat" --model Qwen/Qwen2.5-VL-3B-Instruct '
    "--diffusion stabilityai/sd-turbo --sampler-steps 1 --device cuda": (
        {"cuda": "cpu"},
        "--steps 2",
    ),
    "python examples/finetune_diffusion.py --prompts train.txt --held-out others.txt "
    "--diffusion stabilityai/sd-turbo --sampler-steps 2 --model Qwen/Qwen2.5-VL-3B-Instruct "
    "--device cuda": ({"cuda": "cpu"}, "--steps 1 --batch 1"),
    'python examples/text_to_3d.py "an orange cone next to a cyan sphere" '
    "--denoiser builtin/coarse --vlm builtin/strict --vlm-objective log-probability "
    "--vlm-weight 300 --vlm-max-grad-ratio 2 --vlm-transformations 2 --question yes-no "
    "--steps 200": ({}, "--steps 1"),
    "vlmreward doctor Qwen/Qwen2.5-VL-7B-Instruct": ({}, "--quick"),
    "vlmreward doctor Qwen/Qwen2.5-VL-7B-Instruct --meta --gpu H100": ({}, ""),
    'vlmreward score renders/ --prompt "a red cube" --prompt "a blue cube" '
    "--model Qwen/Qwen2.5-VL-7B-Instruct": ({}, ""),
    'vlmreward explain front.png back.png --prompt "a red cube" --out why.png': (
        {},
        "--steps 8",
    ),
}
"""Commands that run -> words that are replaced, and words that are added."""

SHOWN = {
    "vlmreward doctor builtin/blocks",
    'vlmreward score . --prompt "a red cube" --prompt "a blue cube"',
}
"""Commands that run as they are, and whose output is on the page."""

PARSED = {
    "python examples/text_to_3d.py PROMPT [--steps N] [--seed S] [--out DIR] [--resume] "
    "[--no-vlm]": "a synopsis",
    'python examples/text_to_3d.py "a red cube" --rule ism': "runs with other words above",
    'python examples/text_to_3d.py "a red cube" --rule cfd': "runs in test_cfd.py",
    'python examples/text_to_3d.py "a red cube on top of a blue sphere" --rule semantic-sds '
    '--region "a red cube: -0.4,-0.4,0 to 0.4,0.4,0.7" '
    '--region "a blue sphere: -0.4,-0.4,-0.7 to 0.4,0.4,0"': "runs with other words in "
    "test_text_to_3d.py",
    "python examples/finetune_easy_vqa.py --out outputs/easy_vqa": "runs in "
    "test_finetune_easy_vqa.py",
    'python examples/optimize_image.py "a red car"': "runs in test_optimize_image.py",
    "python examples/arena.py --mode pointwise": "runs in test_arena.py",
    'python examples/text_to_3d.py "a red cube" --viewer-port': "serves a page; see test_view.py",
    'python examples/text_to_3d.py "a cat in a hat" --preset paper --device cuda '
    "--denoiser sd-v2.1-base-4view.pt --vlm Qwen/Qwen2.5-VL-7B-Instruct": "takes hours; see "
    "test_paper_presets.py",
    "vlm3d-compare outputs/with outputs/without --out compare.html": "runs in test_comparison.py",
    "python examples/evaluation/evaluate_assets.py coarse --out RUNS": "takes hours",
    "python examples/evaluation/evaluate_assets.py presets --out RUNS": "takes hours",
    'vlm3d "an orange cone next to a cyan sphere" --denoiser builtin/coarse --vlm builtin/strict': (
        "runs above, with more options"
    ),
    "python examples/generate_many.py prompts.txt --out outputs/many": "starts Ray; see "
    "test_generate_many.py",
    "python examples/generate_many.py prompts.txt --gpus 1 --address auto -- --preset paper "
    "--device cuda": "needs a Ray cluster; see test_generate_many.py",
    "python -m vlmreward_3d.blocks.training.train_vlm --data DATA --out VLM": "takes hours; see "
    "test_training.py",
    "python -m vlmreward_3d.blocks.training.train_vlm --data DATA --out ROBUST "
    "--start builtin/blocks --radius 1.5 --steps 1000 --batch 8 --lr 5e-4 --matrix-lr 2e-3": (
        "the same"
    ),
    "python -m vlmreward_3d.blocks.training.train_denoiser --data DATA --out DENOISER": "the same",
    "python -m vlmreward_3d.blocks.training.measure_denoiser --denoiser builtin/coarse": "takes a "
    "minute; see test_denoiser_weights.py",
    'python examples/text_to_3d.py "a blue car" --preset dreamfusion --device cuda --perp-neg': (
        "takes an hour on a GPU; see test_perp_neg.py"
    ),
    'python examples/text_to_3d.py "a blue car" --preset latent_nerf --device cuda': (
        "takes hours on a GPU; see test_latent_presets.py"
    ),
    'python examples/text_to_3d.py "a blue car" --preset dreamfusion --device cuda --rule rfds-rev '
    "--denoiser stabilityai/stable-diffusion-3.5-medium": "takes an hour on a GPU; see "
    "test_flow.py",
    'python examples/text_to_3d.py "a cat in a hat" --preset mvadapter --device cuda '
    "--denoiser stabilityai/stable-diffusion-xl-base-1.0 "
    "--adapter huanngzh/mv-adapter/mvadapter_t2mv_sdxl.safetensors": "takes hours; see "
    "test_mv_adapter.py",
    "python examples/evaluation/evaluate_growth.py --out outputs/growth": "takes hours; see "
    "test_evaluate_growth.py",
    "python examples/evaluation/evaluate_rules.py": "runs in test_rules_on_gaussians.py",
    "python -m vlmreward_3d.blocks.training.train_vlm --data DATA_OF_PAIRS --scenes 6000 --out "
    "ALIGNED --start builtin/robust --mixtures 0.35 --alignment 1 --steps 800 --batch 12 --lr 5e-4 "
    "--matrix-lr 2e-3": "takes an hour",
    "python -m vlmreward_3d.blocks.training.train_vlm --data DATA_OF_PAIRS --scenes 6000 --out "
    "STRICT --start builtin/aligned --mixtures 0.75 --alignment 1 --steps 900 --batch 12 --lr 5e-4 "
    "--matrix-lr 2e-3 --no-bf16": "takes half an hour",
    "python -m vlmreward_3d.blocks.training.measure_alignment --data HELD_OUT_BLENDS": "takes a "
    "minute; see test_measure_alignment.py",
    "python -m vlmreward_3d.blocks.training.measure_blends --data HELD_OUT_BLENDS": "takes "
    "minutes; see test_measure_blends.py",
    "python -m vlmreward_3d.blocks.training.calibrate_vlm --data HELD_OUT_BLENDS --out "
    "calibration.png": "renders scenes; see test_calibration.py",
    "python -m vlmreward_3d.blocks.training.evaluate_vlm --data HELD_OUT --out table": (
        "renders scenes"
    ),
    "python examples/evaluation/judge.py --data JUDGE_DATA --out JUDGE": "takes half an hour",
    "python examples/evaluation/front_judge.py --data FRONTS_DATA --out FRONTS": (
        "takes ten minutes"
    ),
    "python examples/evaluation/evaluate_assets.py single-view "
    "--out FRONT_RUNS --front-judge FRONTS/front_judge.safetensors --seeds 1 "
    '--arms "score distillation alone"': "takes half an hour",
    "python examples/evaluation/evaluate_image_optimization.py "
    "--out OUT --model builtin/robust --pictures 50 --arms augmented": "takes ten minutes",
    "python examples/evaluation/evaluate_guided_sampling.py --out SAMPLES --seeds 2": (
        "takes twenty minutes; see test_sampling.py"
    ),
    "python examples/evaluation/evaluate_assets.py default --out RUNS": "takes half an hour",
    "python examples/evaluation/evaluate_assets.py twenty --out RUNS": "takes an hour",
    "python examples/evaluation/evaluate_assets.py ablations --out RUNS": "takes two hours",
    "python examples/arena.py GPTEVAL3D --judge Qwen/Qwen2.5-VL-7B-Instruct --mode pairwise "
    "--show both --device cuda": "needs renders; see test_arena.py",
    "python examples/arena.py GPTEVAL3D --judge MODEL --mode pairwise --endpoint "
    "http://127.0.0.1:8000/v1 --jobs 8": "needs a server; see test_arena_endpoint.py",
    "python examples/arena_export.py RUN --out TOURNAMENT --method ours": "needs a run; see "
    "test_arena_export.py",
}
"""Commands that are only parsed, and why."""

PROGRAM = re.compile(r"(python|pip|vlmreward|vlm3d) [^\n]*\S")
NAME = re.compile(
    r"vlmreward \w+|python -m vlmreward(_3d)?|vlm3d PROMPT|(vlmreward|vlm3d) --version"
)
"""A command that is named, without words of its own."""


def plain(line):
    """A command without its comment and with single spaces."""
    return " ".join(re.sub(r"(^|\s)#.*", "", line).split())


def commands_of(text):
    """The commands of a text, a line each but for backslashes, those joined by && by themselves."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [part for line in lines if plain(line) for part in plain(line).split(" && ")]


IN_FENCES = [c for block in ALL if block.language == "bash" for c in commands_of(block.code)]
CONSOLES = [block for block in ALL if block.language == "text"]
IN_PROSE = [
    span
    for page in PAGES
    for span in spans_of(page)
    if PROGRAM.fullmatch(span) and not NAME.fullmatch(span)
]
IN_DOCSTRINGS = [
    command
    for folder in ("examples", "examples/benchmarks", "examples/evaluation")
    for file in sorted((ROOT / folder).glob("*.py"))
    for command in commands_of(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "")
    if PROGRAM.fullmatch(command) and not command.endswith(":")
]


def is_pip(command):
    return bool(re.match(r"(python -m |uv )?pip install ", command))


@functools.cache
def module_of(name):
    """A module by its name, or by the path of its file."""
    if name.endswith(".py"):
        file = ROOT / name
        if str(file.parent) not in sys.path:
            sys.path.append(str(file.parent))
        return importlib.import_module(file.stem)
    return importlib.import_module(name)


def target(command):
    """The module that a command runs, and the words that it is given."""
    words = shlex.split(command)
    if words[0] == "vlmreward":
        return module_of("vlmreward.cli.main"), words[1:]
    if words[0] == "vlm3d-compare":
        return module_of("vlmreward_3d.cli.compare"), words[1:]
    if words[0] == "vlm3d":
        return module_of("vlmreward_3d.cli"), words[1:]
    if words[1] == "-m":
        return module_of(words[2]), words[3:]
    return module_of(words[1]), words[2:]


class Parsed(Exception):
    """The words were understood."""


def parse(module, words, monkeypatch):
    """Parse the words as the module does on a machine with a GPU, and return its parser."""
    import torch

    whole = argparse.ArgumentParser.parse_args
    used = []

    def noted(parser, *arguments, **keywords):
        used.append(parser)
        return whole(parser, *arguments, **keywords)

    def noted_and_stopped(parser, *arguments, **keywords):
        noted(parser, *arguments, **keywords)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(sys, "argv", ["command", *words])
        check = getattr(module, "parse", None)
        stop = noted if check else noted_and_stopped
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        try:
            options = check(words) if check else module.main()
            if module.__name__ == "generate_many":  # hands the rest on
                module_of("examples/text_to_3d.py").parse(["a prompt", *options.words])
        except Parsed:
            pass
        except SystemExit as stopped:
            raise AssertionError(f"{' '.join(words)} is refused") from stopped
    return used[0]


# --- no command is left out


def test_every_command_is_run_or_listed_once():
    listed = [*RUN, *SHOWN, *PARSED, *NOT_RUN]
    assert len(set(listed)) == len(listed)
    shown = {block.code.splitlines()[0].removeprefix("$ ") for block in CONSOLES}
    assert {c for c in IN_FENCES if not is_pip(c)} | shown == set(listed)
    assert shown == SHOWN


def test_every_block_is_of_a_language_that_is_run():
    known = ("python", "bash", "text", "mermaid", "bibtex")
    others = [str(b) for b in ALL if b.language not in known]
    assert len(others) == 1
    assert others[0].startswith("docs/threestudio.md:")  # a configuration; see test_threestudio*


def test_commands_are_taken_apart():
    text = 'a "b c"  \\\n    --d # e\n\n# f\npip install x && g   h\n'
    assert commands_of(text) == ['a "b c" --d', "pip install x", "g h"]


# --- commands that are parsed


def filled(command):
    """A synopsis with all of its options, as a command."""
    for old, new in {" [": " ", "] ": " ", " ...": "", " N ": " 1 ", " S ": " 1 "}.items():
        command = command.replace(old, new)
    return command.removesuffix("]")


TO_PARSE = [c for c in [*PARSED, *IN_PROSE, *IN_DOCSTRINGS] if not is_pip(c)]


@pytest.mark.parametrize("command", dict.fromkeys(TO_PARSE))
def test_a_command_is_parsed(command, monkeypatch):
    parse(*target(filled(command)), monkeypatch)


def helps(monkeypatch):
    """The parsers of ``vlmreward`` and of its commands."""
    whole = parse(*target("vlmreward doctor MODEL"), monkeypatch)
    (commands,) = [a.choices for a in whole._actions if isinstance(a.choices, dict)]
    return [whole, *commands.values()]


def test_examples_of_the_helps_are_parsed(monkeypatch):
    texts = [parser.format_help() for parser in helps(monkeypatch)]
    found = [c for text in texts for c in commands_of(text) if PROGRAM.fullmatch(c)]
    assert len(found) >= 12
    for command in found:
        parse(*target(command), monkeypatch)


def test_options_in_the_text_exist(monkeypatch):
    commands = dict.fromkeys([*RUN, *TO_PARSE])
    parsers = [parse(*target(filled(command)), monkeypatch) for command in commands]
    parsers += helps(monkeypatch)
    known = {option for parser in parsers for option in parser._option_string_actions}
    for page in PAGES:
        for span in spans_of(page):
            if span.startswith("--"):
                assert span.split()[0] in known, f"{page}: {span}"


def test_packages_that_are_installed_exist():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^([\w-]+) = ", section, re.MULTILINE))
    commands = [command for command in IN_FENCES + IN_PROSE if is_pip(command)]
    assert len(commands) >= 6
    for command in commands:
        (package,) = shlex.split(command)[-1:]
        if package == "vlmreward-extra-models":
            assert (ROOT / ".packaging" / "extra_models").is_dir()
            continue
        if package in ("vlmreward", "uv"):
            continue
        found = re.fullmatch(r"(?:\.|vlmreward)\[([\w,]+)\]", package)
        assert found, command
        assert set(found[1].split(",")) <= extras, command


# --- commands that run


@pytest.fixture
def folder(offline):
    """A working directory with what the commands read."""
    from PIL import Image, ImageDraw

    def picture(name, color, alpha=255):
        """A square that the built-in model takes for a cube."""
        image = Image.new("RGB", (64, 64), (160, 160, 160))
        ImageDraw.Draw(image).rectangle((18, 18, 46, 46), fill=color)
        if alpha < 255:
            image.putalpha(alpha)
        image.save(offline / name)

    (offline / "renders").mkdir()
    for name in ("red.png", "front.png", "back.png", "renders/a.png"):
        picture(name, (200, 30, 30))
    for name in ("blue.png", "renders/b.png"):
        picture(name, (30, 30, 200))
    picture("alpha.png", (200, 30, 30), alpha=128)
    for name in ("train.txt", "others.txt"):
        (offline / name).write_text("a cube -> a red cube\na cone\n")
    return offline


@pytest.mark.parametrize("command", RUN)
def test_a_command_runs(command, folder, monkeypatch):
    from stub_models import shrink_exports

    replaced, added = RUN[command]
    module, words = target(command)
    assert replaced.keys() <= set(words)
    shrink_exports(monkeypatch)
    before = set(folder.rglob("*"))
    assert module.main([replaced.get(word, word) for word in words] + added.split()) == 0
    if "doctor" not in words and "score" not in words:
        assert any(file.suffix in (".png", ".pdf") for file in set(folder.rglob("*")) - before)


def numbers(line):
    """A line without its numbers; what varies by more than rounding: whole ones, and log-odds."""
    text = re.sub(r"[+-]?\d+(\.\d+)?(e[+-]\d+)?", "#", line)
    found = re.findall(r"(?<![\w.+-])[+-]?\d+(?:\.\d+)?(?![\w.%])", line)
    whole = [int(number) for number in found if "." not in number]
    odds = [float(number) for number in found if "." in number and number[0] in "+-"]
    return re.sub(r"[ -]+", " ", text), whole, odds


@pytest.mark.parametrize("block", CONSOLES, ids=str)
def test_output_is_as_shown(block, folder, capsys):
    for name in ("front.png", "back.png"):
        (folder / name).unlink()
    first, *shown = block.code.splitlines()
    module, words = target(first.removeprefix("$ "))
    assert module.main(words) == 0
    printed = capsys.readouterr()
    on_stderr = [line for line in printed.err.splitlines() if line in shown]
    given = on_stderr + printed.out.splitlines()
    assert len(given) == len(shown), given
    for expected, line in zip(map(numbers, shown), map(numbers, given)):
        assert line[:2] == expected[:2]
        assert line[2] == pytest.approx(expected[2], abs=0.02)
