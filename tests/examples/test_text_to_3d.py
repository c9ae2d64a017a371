"""The example script, which is the command vlm3d: its files, its messages and its exit codes."""

import argparse
import dataclasses
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stub_models import RandomDenoiser, redness, shrink_exports, tiny

from vlmreward_3d import presets
from vlmreward_3d.cli import run
from vlmreward_3d.cli.conflicts import ABOUT_THE_VLM
from vlmreward_3d.config import DENSIFICATIONS
from vlmreward_3d.guidance.loading import build_guidances
from vlmreward_3d.training.run_directory import RunDirectory
from vlmreward_3d.vlm3d import VLM3D

SCRIPT = Path(__file__).parents[2] / "examples" / "text_to_3d.py"
FILES = {
    "config.json",
    "metrics.jsonl",
    "views.png",
    "turntable.mp4",
    "mesh.glb",
    "mesh_textured.glb",
    "reward.png",
    "preview.png",
    "tensorboard",
    "report.html",
    "checkpoint.safetensors",
    "state.json",
}


@pytest.fixture
def script(monkeypatch):
    """The example with stub teachers and a small preset."""
    spec = importlib.util.spec_from_file_location("text_to_3d", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Small:
        """The preset "blocks", small."""

        uses_vlm = True
        fields = ("dense_grid", "hash_grid", "gaussians")

        def __call__(self, prompt, *, steps, seed, field, denoiser, vlm):
            changes = {"steps": steps or 3, "seed": seed, "field": field}
            if field == "hash_grid":
                changes |= {"field.levels": 3, "field.resolution_range": (4, 16)}
                changes["field.table_size"] = 2**10
            changes["vlm.model" if vlm else "vlm"] = "stub" if vlm == "default" else vlm
            return tiny(prompt=prompt, **changes)

    def guidances(config, options):
        return build_guidances(config, RandomDenoiser(), redness if config.vlm else None)

    shrink_exports(monkeypatch)
    monkeypatch.setitem(presets.PRESETS, "blocks", Small())
    monkeypatch.setattr(run, "load_guidances", guidances)
    return module


@pytest.fixture
def no_teachers(script, monkeypatch):
    """The same, where touching a model is a failure."""

    def forbidden(*_):
        raise AssertionError("a model was loaded before the mistake was noticed")

    monkeypatch.setattr(run, "load_guidances", forbidden)
    return script


def test_a_run_writes_its_files_into_a_folder_named_after_the_prompt(
    script, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert script.main(["A red  cube, on top!", "--steps", "2", "--threads", "1"]) == 0
    out = tmp_path / "outputs" / "a-red-cube-on-top"
    assert {p.name for p in out.iterdir()} == FILES
    assert json.loads((out / "state.json").read_text())["finished"] is True
    config = json.loads((out / "config.json").read_text())
    assert (config["prompt"], config["steps"]) == ("A red  cube, on top!", 2)
    assert "mesh.glb" in capsys.readouterr().out
    # resuming a finished run only writes its pictures again
    before = (out / "checkpoint.safetensors").read_bytes()
    assert script.main(["A red  cube, on top!", "--steps", "2", "--resume"]) == 0
    assert (out / "checkpoint.safetensors").read_bytes() == before


def test_no_vlm_leaves_the_reward_out(script, tmp_path):
    assert script.main(["a red cube", "--steps", "2", "--no-vlm", "--out", str(tmp_path)]) == 0
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert not any(name.startswith("vlm/") for name in line)
    assert json.loads((tmp_path / "config.json").read_text())["vlm"] is None


def test_the_teachers_schedule_is_set_on_the_command_line(script, tmp_path):
    words = "--vlm-interval 3 --vlm-cache-gradient --vlm-grad-ratio 0.5 --rays-per-chunk 512"
    words += " --vlm-device cpu --vlm-resolution 96 --no-collapse-detection --steps 5"
    words += " --t-max-end 0.2 --vlm-objective log-probability --vlm-views-per-question 2"
    words += " --rule sjc --noise-candidates 2 --noise-ranking preference --perp-neg"
    command = ["a red cube", "--out", str(tmp_path), *words.split()]
    assert script.main(command) == 0
    config = json.loads((tmp_path / "config.json").read_text())
    names = ("interval", "cache_gradient", "grad_ratio", "max_grad_ratio")
    assert [config["vlm"]["weighting"][name] for name in names] == [3, True, 0.5, None]
    assert config["field"]["rays"]["rays_per_chunk"] == 512
    assert config["recovery"]["patience"] is None
    assert config["vlm"]["resolution"] == 96
    assert config["vlm"]["objective"] == "log-probability"
    assert config["vlm"]["views_per_question"] == 2
    assert config["score_distillation"]["rule"] == "sjc"
    assert config["score_distillation"]["view_prompts"]
    assert config["score_distillation"]["perp_neg"]
    assert config["score_distillation"]["selection"]["ranking"] == "preference"
    t_max = config["score_distillation"]["t_max"]["points"]
    assert t_max == [[0.0, 0.98], [0.4, 0.5], [1.0, 0.2]]
    reports = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert ["vlm/reward" in r for r in reports] == [True, False, False, True, False]
    assert all(r["vlm/weight"] > 0 for r in reports)


def test_a_hash_grid_is_trained_and_exported(script, tmp_path):
    words = ["--steps", "2", "--field", "hash_grid", "--out", str(tmp_path)]
    assert script.main(["a red cube", *words]) == 0
    field = json.loads((tmp_path / "config.json").read_text())["field"]
    assert (field["kind"], field["levels"]) == ("hash_grid", 3)
    assert (tmp_path / "mesh_textured.glb").stat().st_size > 0
    assert "Finished: 2 steps" in (tmp_path / "report.html").read_text()


def test_gaussians_are_trained_and_exported(script, tmp_path, capsys):
    command = ["a red cube", "--steps", "2", "--field", "gaussians", "--out", str(tmp_path)]
    assert script.main(command) == 0
    field = json.loads((tmp_path / "config.json").read_text())["field"]
    assert field == {
        "kind": "gaussians",
        "n_gaussians": 2000,
        "radius": 0.5,
        "densification": None,
    }
    assert "splats.ply" in capsys.readouterr().out
    grow = ["--grow", "dreamgaussian", "--max-gaussians", "2100", "--overwrite"]
    assert script.main([*command, *grow]) == 0
    field = json.loads((tmp_path / "config.json").read_text())["field"]
    asked = dataclasses.replace(DENSIFICATIONS["dreamgaussian"], max_gaussians=2100)
    assert field["densification"] == dataclasses.asdict(asked)
    assert script.main([*command, "--overwrite", "--dry-run"]) == 0
    assert "0 to 2" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "much"])
def test_a_gradient_ratio_is_a_number_above_nothing(no_teachers, value, capsys):
    with pytest.raises(SystemExit):
        no_teachers.main(["a red cube", f"--vlm-grad-ratio={value}"])
    assert f"received '{value}'; expected a number > 0" in capsys.readouterr().err


def test_a_dry_run_chooses_the_rays_at_a_time(script, tmp_path, monkeypatch, capsys):
    def in_chunks(prompt, **settings):
        return tiny(prompt=prompt, field__rays__rays_per_chunk=100, seed=settings["seed"])

    in_chunks.uses_vlm, in_chunks.fields = True, ("dense_grid",)
    monkeypatch.setitem(presets.PRESETS, "blocks", in_chunks)
    assert script.main(["a red cube", "--dry-run", "--out", str(tmp_path / "run")]) == 0
    # 4 views of 16 px are fewer rays than the smallest number that is tried
    assert "with --rays-per-chunk 1024:" in capsys.readouterr().out


def test_a_dry_run_is_printed_and_nothing_is_written(script, tmp_path, capsys):
    words = ["a red cube", "--steps", "3", "--dry-run", "--out", str(tmp_path / "run")]
    assert script.main(words) == 0
    assert "0 to 3" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_flags_of_the_ablations_reach_the_configuration(script, tmp_path):
    words = ["a red cube", "--steps", "1", "--single-view", "--separate-questions"]
    assert script.main([*words, "--out", str(tmp_path), "--vlm", "other"]) == 0
    config = json.loads((tmp_path / "config.json").read_text())
    vlm = config["vlm"]
    assert vlm["question"] == ["paper/content", "paper/geometry"]
    assert (vlm["weighting"]["n_views"], vlm["model"]) == (1, "other")
    assert script.main([*words, "--out", str(tmp_path), "--vlm", "other", "--resume"]) == 0


def test_the_mesh_comes_in_the_formats_that_are_asked_for(script, tmp_path):
    words = ["a red cube", "--steps", "1", "--out", str(tmp_path), "--export", "obj,ply"]
    assert script.main(words) == 0
    expected = FILES - {"mesh.glb", "mesh_textured.glb"} | {"mesh.obj", "mesh.ply"}
    assert {p.name for p in tmp_path.iterdir()} == expected


def test_ctrl_c_says_how_to_go_on_and_that_works(script, tmp_path, monkeypatch, capsys):
    step = VLM3D.step

    def interrupted(self):
        if self.step_index == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    words = ["a red cube", "--steps", "4", "--out", str(tmp_path)]
    monkeypatch.setattr(VLM3D, "step", interrupted)
    monkeypatch.setattr(sys, "argv", ["examples/text_to_3d.py"])
    assert script.main(words) == 130
    said = capsys.readouterr().err
    assert "stopped after step 2 of 4, state saved; to go on: python examples/text_to_3d.py" in said
    assert said.rstrip().endswith(f"'a red cube' --steps 4 --out {tmp_path} --resume")
    monkeypatch.setattr(VLM3D, "step", step)
    assert script.main([*words, "--resume"]) == 0
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a cube", "--steps", "0"], "received '0'; expected a whole number >= 1"),
        (["a cube", "--steps", "many"], "received 'many'; expected a whole number >= 1"),
        (["a cube", "--seed", "-1"], "received '-1'; expected a whole number >= 0"),
        (["a cube", "--threads", "0"], "expected a whole number from 1 to 1024"),
        (["a cube", "--threads", "9" * 11], "expected a whole number from 1 to 1024"),
        (["a cube", "--steps", "9" * 5000], "9...'; expected a whole number >= 1"),
        (
            ["a cube", "--viewer-port", "99999"],
            "received '99999'; expected a whole number from 0 to 65535",
        ),
        (["a cube", "--out", ""], "--out: received ''; expected a path"),
        (["a cube", "--vlm", ""], "--vlm: received ''; expected some words"),
        (["a \udcff cube"], "which is not UTF-8; expected text"),
        (["a cube", "--no-vlm", "--vlm", "x"], "received --vlm, which means nothing with --no-vlm"),
        (["a cube", "--no-vlm", "--question", "A"], "received --question, which"),
        (["a cube", "--no-vlm", "--vlm-device", "cpu"], "received --vlm-device, which means"),
        (["a cube", "--preset", "mvdream", "--vlm", "x"], "means nothing with --preset mvdream"),
        (["a cube", "--vlm-cache-gradient"], "expected --vlm-interval K with K > 1"),
        (
            ["a cube", "--vlm-weight", "3", "--vlm-grad-ratio", "2"],
            "received --vlm-weight with --vlm-grad-ratio, which chooses lambda",
        ),
        (
            ["a cube", "--noise-ranking", "softmax"],
            "received --noise-ranking without --noise-candidates K",
        ),
        (["a cube", "--t-max-end", "1.5"], "expected a number in [0, 1]"),
        (
            ["a cube", "--field", "gaussians", "--export", "obj"],
            "received --export with --field gaussians",
        ),
        (
            ["a cube", "--field", "gaussians", "--rays-per-chunk", "9"],
            "received --rays-per-chunk with --field gaussians, which are not sampled along rays",
        ),
        (["a cube", "--grow", "3dgs"], "received --grow with --field dense_grid, which does not"),
        (["a cube", "--field", "gaussians", "--grow", "all"], "invalid choice: 'all'"),
        (
            ["a cube", "--field", "gaussians", "--max-gaussians", "9"],
            "received --max-gaussians without --grow",
        ),
        (
            [
                *("a cube", "--field", "gaussians", "--grow", "3dgs"),
                *("--vlm-interval", "2", "--vlm-cache-gradient"),
            ],
            "received --vlm-cache-gradient with --grow, which changes the shapes",
        ),
        (
            ["a cube", "--export", "glb,stl"],
            "received 'stl'; expected some of glb, texture, obj, ply",
        ),
        (["a cube", "--preset", "huge"], "invalid choice: 'huge'"),
        (["!!"], "received the prompt '!!'; expected some words"),
        (["a cube", "--resume", "--overwrite"], "not allowed with argument"),
        ([], "the following arguments are required: PROMPT"),
    ],
)
def test_mistakes_in_the_command_are_named(no_teachers, words, message, capsys):
    with pytest.raises(SystemExit) as raised:
        no_teachers.main(words or ["--no-vlm"])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def complain(script, capsys, *words) -> str:
    """The one line that a refused command prints."""
    assert script.main(["a red cube", *map(str, words)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    return said[0]


def test_bad_folders_are_one_line_before_any_work(no_teachers, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("in the way")
    assert "cannot write to" in complain(no_teachers, capsys, "--out", file / "run")
    assert "nothing to resume" in complain(
        no_teachers, capsys, "--out", tmp_path / "new", "--resume"
    )
    out = tmp_path / "run"
    RunDirectory(out, tiny(steps=3)).initialize()
    assert "already holds a run" in complain(no_teachers, capsys, "--out", out)
    mismatch = complain(no_teachers, capsys, "--out", out, "--seed", 5, "--resume")
    assert "(seed: 0 -> 5)" in mismatch
    assert {p.name for p in out.iterdir()} == {"config.json"}


def test_a_rule_that_is_not_there_is_one_line_before_any_work(no_teachers, tmp_path, capsys):
    line = complain(no_teachers, capsys, "--rule", "vds", "--out", tmp_path / "run")
    assert line.startswith("error: --rule: received 'vds'; expected one of x0, sds, sjc, csd,")
    assert not (tmp_path / "run").exists()


def test_regions_are_set_on_the_command_line(script, tmp_path):
    words = ["--rule", "semantic-sds", "--steps", "2", "--no-vlm", "--out", str(tmp_path)]
    boxes = [
        "--region",
        "a cube: -.5,-.5,0 to .5,.5,.5",
        "--region",
        "a torus: -.5,-.5,-1 to .5,.5,0",
    ]
    assert script.main(["a cube on top of a torus", *words, *boxes]) == 0
    config = json.loads((tmp_path / "config.json").read_text())["score_distillation"]
    assert config["rule"] == "semantic-sds"
    assert config["regions"] == [
        {"prompt": "a cube", "low": [-0.5, -0.5, 0.0], "high": [0.5, 0.5, 0.5]},
        {"prompt": "a torus", "low": [-0.5, -0.5, -1.0], "high": [0.5, 0.5, 0.0]},
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rule", "semantic-sds"], "received --rule semantic-sds without regions"),
        (["--region", "a cube: 0,0,0 to 1,1,1"], "--region without --rule semantic-sds"),
        (["--rule", "semantic-sds", "--region", "a cube: 0,0,0 to 1,1"], "three finite numbers"),
        (["--rule", "semantic-sds", "--region", "a cube"], 'expected "PROMPT: X,Y,Z to X,Y,Z"'),
        (
            ["--rule", "semantic-sds", "--region", "a cube: 0,0,0 to 1,1,1", "--perp-neg"],
            "received --perp-neg with --region",
        ),
    ],
)
def test_regions_that_mean_nothing_end_at_once(words, message, no_teachers, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        no_teachers.main(["a cube", *words, "--out", str(tmp_path / "run")])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_region_outside_the_field_is_one_line_before_any_work(no_teachers, tmp_path, capsys):
    box = "a cube: 2,2,2 to 3,3,3"
    line = complain(
        no_teachers, capsys, "--rule", "semantic-sds", "--region", box, "--out", tmp_path / "run"
    )
    assert "boxes that have a part in the field's, [-1, 1]^3" in line


def test_a_method_without_builtin_models_is_one_line_before_any_work(no_teachers, tmp_path, capsys):
    out = tmp_path / "run"
    line = complain(no_teachers, capsys, "--preset", "sjc", "--builtin-models", "--out", out)
    assert line.startswith("error: received a preset that needs latents")
    assert not out.exists()


@pytest.mark.parametrize("option", ["--device", "--vlm-device"])
@pytest.mark.parametrize("name", ["gpu", "", "meta", "cuda:77", "xpu:3"])
def test_devices_that_are_not_there_are_one_line_before_any_work(
    option, name, no_teachers, tmp_path, capsys
):
    out = tmp_path / "run"
    line = complain(no_teachers, capsys, option, name, "--out", out)
    assert line.startswith(f"error: received {option} {name!r}")
    assert f"pass {option} cpu" in line
    assert not out.exists()


def test_presets_without_a_vlm_are_known(script):
    real = {**presets.PRESETS, "blocks": presets.blocks}
    config = {name: preset("a cube") for name, preset in real.items()}
    without = {
        "mvdream",
        "mvadapter",
        "dreamreward",
        "dreamfusion",
        "prolificdreamer",
        "dreamgaussian",
        "sjc",
        "latent_nerf",
    }
    assert {name for name, c in config.items() if c.vlm is None} == without
    assert {name for name, preset in real.items() if not preset.uses_vlm} == without
    every = {a.dest for a in vlm_options(script)}
    assert every == {*ABOUT_THE_VLM} | {"no_vlm"}


def vlm_options(script):
    """Those whose help or name is about the VLM."""
    seen = []

    def keep(parser, *_):
        seen.extend(parser._actions)
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", keep)
        with pytest.raises(SystemExit):
            script.parse([])
    names = ("vlm", "single_view", "question", "noise_candidates", "noise_ranking")
    return [action for action in seen if any(name in action.dest for name in names)]


@pytest.mark.timeout(60)
def test_a_port_that_is_taken_is_one_line_before_any_work(no_teachers, tmp_path, capsys):
    pytest.importorskip("viser")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = complain(no_teachers, capsys, "--viewer-port", port, "--out", tmp_path)
    assert f"received port {port} of 127.0.0.1 for the view" in line
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_come_as_often_as_is_asked(script, tmp_path, monkeypatch):
    saved = []
    save = RunDirectory.save
    monkeypatch.setattr(
        RunDirectory, "save", lambda s, m, w: (saved.append(m.step_index), save(s, m, w))
    )
    words = ["a red cube", "--steps", "5", "--checkpoint-every", "2", "--out", str(tmp_path)]
    assert script.main(words) == 0
    assert saved == [0, 2, 4, 5]


def test_ctrl_c_before_anything_is_saved_says_nothing_of_going_on(
    script, tmp_path, monkeypatch, capsys
):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "load_guidances", interrupted)
    words = ["a red cube", "--steps", "5", "--out", str(tmp_path)]
    assert script.main(words) == 130
    assert capsys.readouterr().err == "stopped\n"
    monkeypatch.undo()


def test_ctrl_c_while_it_starts_is_one_line(tmp_path):
    command = [sys.executable, str(SCRIPT), "a cube", "--out", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, **pipes)
    assert process.stderr.readline().startswith("loading ")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, "", "stopped")
    assert not (tmp_path / "run").exists()


WHOLE = """
import contextlib, importlib.util, sys
sys.path[:0] = [sys.argv[1]]
spec = importlib.util.spec_from_file_location("text_to_3d", sys.argv[2])
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)
from vlmreward.cli import process

@contextlib.contextmanager
def loading_and_shrinking(loading=process.loading):
    with loading():
        yield
    import stub_models
    patch = type("Patch", (), {"setattr": staticmethod(setattr)})
    stub_models.shrink_exports(patch, frames=120)

process.loading = loading_and_shrinking
sys.exit(script.main(sys.argv[3:]))
"""


def test_a_good_run_says_what_it_does_and_where_its_files_are_and_nothing_else(tmp_path):
    """The real teachers, in a process of its own, where streams and locale know ASCII alone."""
    out = os.fsencode(tmp_path) + "/größe".encode() + b"\xff"
    support = Path(__file__).parents[1] / "support"
    words = [str(support), str(SCRIPT), "a red cube", "--steps", "2", "--out", out]
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = os.environ | ascii_only | {"PYTHONIOENCODING": "ascii:strict"}
    environment["PYTHONPATH"] = str(SCRIPT.parents[1])
    command = [sys.executable, "-c", WHOLE, *words]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    folder = Path(os.fsdecode(out))
    printed = done.stdout.decode("ascii").splitlines()
    assert [Path(line).name for line in printed] == [
        *("views.png", "turntable.mp4", "mesh.glb", "mesh_textured.glb", "reward.png"),
        "report.html",
    ]
    assert all((folder / Path(line).name).stat().st_size for line in printed)
    number = r"[\d.]+(s/step|step/s|part/s|s/part)"
    expected = [
        r"loading torch and models' libraries \.\.\.",
        r"loading builtin/blocks \.\.\.",
        r"warning: '.*gr\\udcc3.*/tensorboard' is no UTF-8 name: .* without TensorBoard's curves",
        r"0% 0/2 \[00:00<\?, \?step/s\]",
        rf"100% 2/2 \[.*{number}, sds/loss \S+ vlm/reward \S+ vlm/prob_yes \S+\]",
        r"exporting:   0% 0/131 \[00:00<\?, \?part/s\]",
        rf"exporting: 100% 131/131 \[.*{number}, report\]",
    ]
    said = [line.strip() for line in done.stderr.decode("ascii").splitlines()]
    # bitsandbytes says so on CPUs with bfloat16, where an optional package is missing
    said = [line for line in said if "kernels-community" not in line]
    # on a slow machine there is a line of progress every few seconds
    between = re.compile(rf"(exporting: )? *[1-9]\d?% \d+/\d+ \[.*{number}.*\]")
    said = [line for line in said if not between.fullmatch(line)]
    # and the last one may come twice
    last = re.compile(r"(exporting: )?100% ")
    pairs = zip(said, [*said[1:], ""])
    said = [line for line, after in pairs if not (last.match(line) and last.match(after))]
    assert len(said) == len(expected), said
    for line, pattern in zip(said, expected):
        assert re.fullmatch(pattern, line), (line, pattern)


def test_the_number_of_threads_is_set(script, tmp_path):
    before = torch.get_num_threads()
    try:
        words = ["a red cube", "--steps", "1", "--threads", "1", "--out", str(tmp_path)]
        assert script.main(words) == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
