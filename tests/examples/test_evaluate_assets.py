"""The evaluation of assets: prompts, runs, intervals, tables and sheets."""

import dataclasses
import math
import sys

import assets
import evaluate_assets
import imageio.v3 as iio
import numpy as np
import pytest
import torch
import trimesh
from assets import Asset, contact_sheet, views_of
from evaluate_assets import append, assets_of, load, sheet_rows, table
from experiments import EXPERIMENTS, HERE, Experiment
from intervals import bootstrap, formatted, interval, wilson
from judge import target, target_of_prompt
from measures import FRONT_MEASURES, MEASURES, describe, roughness

from vlmreward_3d.blocks.world.descriptions import caption
from vlmreward_3d.blocks.world.scenes import COLORS, COMPOUNDS, PRIMITIVES, sample_scene

sys.path.insert(0, str(HERE.parent))
import text_to_3d


def lines(name):
    return (HERE / name).read_text().splitlines()


def test_the_list_of_prompts_has_12_singles_and_8_pairs():
    prompts = lines("prompts.txt")
    assert len(set(prompts)) == len(prompts) == 20
    assert [target_of_prompt(p)[0] for p in prompts] == [0] * 12 + [1] * 4 + [2] * 4


def test_the_list_of_pairs_is_drawn_and_not_chosen():
    """The first forty pairs of unlike primitives in unlike colors that seed 504 draws."""
    rng, expected = np.random.default_rng(504), []
    while len(expected) < 40:
        scene = sample_scene(rng)
        words = [thing.words for thing in scene.things]
        unlike = len(words) == 2 and all(a != b for a, b in zip(*words))
        if unlike and {shape for _, shape in words} <= {*PRIMITIVES}:
            text = caption(scene)
            expected += [text] if text not in expected else []
    assert lines("pairs.txt") == expected


def test_the_list_of_fronts_has_five_of_each_object_with_a_front():
    prompts = lines("fronts.txt")
    assert len(set(prompts)) == 20
    assert [p.split()[-1] for p in prompts] == [shape for shape in COMPOUNDS for _ in range(5)]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_are_complete_commands(name):
    experiment = EXPERIMENTS[name]
    assert experiment.reference in experiment.arms
    for prompt in experiment.texts():
        words = describe(target_of_prompt(prompt)).split()
        assert sorted(words) == sorted(w for w in prompt.split() if w not in ("a", "an"))
    for flags in experiment.arms.values():
        text_to_3d.parse(["a red cube", *flags])


def test_every_asset_has_a_folder_of_its_own(tmp_path):
    for experiment in EXPERIMENTS.values():
        assets = assets_of(experiment)
        n = len(experiment.arms) * len(experiment.texts()) * experiment.seeds
        assert len({asset.folder(tmp_path) for asset in assets}) == len(assets) == n


def test_interval_of_a_bootstrap():
    rng = np.random.default_rng(1)
    values = (rng.random((400, 2)) < 0.7).astype(float)
    low, high = bootstrap(values)
    half = 1.96 * values.mean(1).std() / 400**0.5  # the normal limit
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert low < values.mean() < high
    # over prompts: seeds that always agree are not independent
    doubled = np.repeat(values[:, :1], 2, axis=1)
    assert bootstrap(doubled) == bootstrap(values[:, :1])
    assert bootstrap(np.ones((5, 2))) == (1.0, 1.0)


def test_wilson_interval():
    low, high = wilson(0.5, 20)
    assert low == pytest.approx(0.2993, abs=1e-4)
    assert high == pytest.approx(0.7007, abs=1e-4)
    assert wilson(1.0, 12) == (pytest.approx(0.7575, abs=1e-4), pytest.approx(1.0))
    assert wilson(0.0, 15)[0] == 0
    # as many draws as prompts, whatever the number of seeds
    assert interval(np.ones((12, 5)), share=True) == wilson(1.0, 12)
    assert formatted(np.eye(2), ".0%", share=True) == "50% [9%, 91%]"


def record(**changed):
    numbers = dict(zip(MEASURES, (1.0, 1.0, 0.002, 3.0, -1.0, 5.5)))
    words = {"network reads": "red cube", "templates read": "red cube"}
    return {**numbers, **words, **changed}


@pytest.fixture
def small(tmp_path):
    (tmp_path / "list").write_text("a red cube\na blue cone\n")
    arms = {"alone": ("--no-vlm",), "with": (), "half": ()}
    return Experiment(arms, "alone", tmp_path / "list")


def test_table_pairs_arms_and_leaves_out_what_is_missing(small):
    measured = {asset: record() for asset in assets_of(small)}
    other = record(network=0.0, roughness=7.5, **{"network reads": "blue cube"})
    measured[Asset("with", "a red cube", 0)] = other
    counted, means, differences, readings = table(small, measured).rstrip().split("\n\n")
    assert counted == "Prompts: 2 of 2. Seeds: 2."
    rows = {line.split(" | ")[0].strip("| "): line for line in means.splitlines()}
    assert rows["with"] == (
        "| with | 75% [20%, 97%] | 100% [34%, 100%] | 0.20% [0.20%, 0.20%] | 3.00 [3.00, 3.00] "
        "| -1.00 [-1.00, -1.00] | 6.00 [5.50, 6.50] |"
    )
    rows = {line.split(" | ")[0].strip("| "): line for line in differences.splitlines()}
    assert rows.keys() & {*small.arms} == {"with", "half"}
    assert rows["with"].startswith("| with | -25% [-50%, +0%] | +0% [+0%, +0%] | +0.00%")
    assert rows["with"].endswith("| +0.50 [+0.00, +1.00] |")
    assert "| a red cube, 0 | right | blue cube / right | right |" in readings

    del measured[Asset("half", "a red cube", 1)]
    text = table(small, measured)
    assert text.startswith("Prompts: 1 of 2. Seeds: 2.")
    assert "| a red cube, 1 | right | right | not made |" in text
    measured[Asset("half", "a red cube", 1)] = record()
    for arm in small.arms:
        measured.pop(Asset(arm, "a blue cone", 1), None)
    assert "| a blue cone, 0 |" in table(small, measured)
    assert "| a blue cone, 1 |" not in table(small, measured)


def test_gaussians_have_no_roughness_and_costs_are_in_the_table_where_asked(small, tmp_path):
    assert math.isnan(roughness(tmp_path))
    measured = {
        asset: record(**{"CPU seconds": 50.0, "memory": 900.0}) for asset in assets_of(small)
    }
    for asset, values in measured.items():
        if asset.arm == "half":
            values["roughness"] = math.nan
    del measured[Asset("with", "a red cube", 0)]["CPU seconds"]  # of one prompt in two
    assert "CPU seconds" not in table(small, measured)
    text = table(dataclasses.replace(small, costs=True), measured)
    assert "| roughness | CPU seconds | memory |" in text
    rows = [line for line in text.splitlines() if line.startswith("| half |")]
    assert rows[0].endswith(" | – | 50 [50, 50] | 900 [900, 900] |")
    assert rows[1].endswith(" | – | +0 [+0, +0] | +0 [+0, +0] |")


def test_time_and_memory_of_an_asset_are_its_own(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\n"
        "if sys.argv[sys.argv.index('--seed') + 1] == '1':\n"
        "    held = b'1' * (100 * 2**20)\n"
        "    time.sleep(1)\n"
        "    sys.exit('error: no room\\nerror: none at all')\n"
        "while time.process_time() < 0.5: pass\n"
        "time.sleep(0.5)\n"
    )
    monkeypatch.setattr(assets, "EXAMPLE", script)

    def make(seed, folder):
        return assets.make(Asset("arm", "a cube", seed), folder, (), steps=None, threads=1)

    assert assets.resources(tmp_path / "small") == {}
    assert make(0, tmp_path / "small") is None
    assert make(1, tmp_path / "large") == "error: none at all"
    small, large = (assets.resources(tmp_path / name) for name in ("small", "large"))
    assert large["memory"] > 100 > small["memory"] > 1
    assert make(0, tmp_path / "large") is None  # goes on, with less
    again = assets.resources(tmp_path / "large")
    assert again["memory"] == large["memory"]
    assert small["CPU seconds"] > 0.4
    assert again["CPU seconds"] > large["CPU seconds"] + 0.4


def test_fronts_are_in_the_table_of_an_experiment_that_counts_them(small, monkeypatch, capsys):
    counts = dict.fromkeys(FRONT_MEASURES, 0.0) | {"one front, templates": 1.0}
    measured = {asset: record(**counts) for asset in assets_of(small)}
    assert "one front" not in table(small, measured)
    text = table(dataclasses.replace(small, fronts=True), measured)
    assert "| arm | one front, network | one front, templates | several, network |" in text
    assert "| alone | 0% [0%, 66%] | 100% [34%, 100%] | 0% [0%, 66%] |" in text
    words = ["single-view", "--judge", "J", "--out", "O"]
    monkeypatch.setattr(sys, "argv", ["x", *words])
    with pytest.raises(SystemExit):
        evaluate_assets.main()
    assert "--front-judge: this experiment counts fronts" in capsys.readouterr().err


def test_measurements_are_kept_line_by_line(small, tmp_path):
    path = tmp_path / "measurements.jsonl"
    assert load(path) == {}
    for asset in assets_of(small):
        append(path, asset, record())
    assert load(path) == {asset: record() for asset in assets_of(small)}
    append(path, assets_of(small)[0], record(roughness=math.nan))
    assert "NaN" not in path.read_text()
    assert "roughness" not in load(path)[assets_of(small)[0]]


def test_an_asset_with_a_measurement_is_not_made_again(small, tmp_path, monkeypatch, capsys):
    made = []

    def make(asset, folder, flags, **_):
        made.append(asset)
        folder.mkdir(parents=True)
        (folder / "state.json").write_text('{"finished": true}')

    monkeypatch.setattr(evaluate_assets, "make", make)
    monkeypatch.setattr(evaluate_assets, "Measuring", lambda *_: lambda *_: record())
    monkeypatch.setitem(EXPERIMENTS, "coarse", small)
    words = ["coarse", "--judge", "J", "--out", str(tmp_path / "o"), "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", ["x", *words])
    first = Asset("with", "a blue cone", 0)
    (tmp_path / "o").mkdir()
    append(tmp_path / "o" / "measurements.jsonl", first, record())
    for extra, count in ((["--arms", "with"], 1), ([], 5)):
        monkeypatch.setattr(sys, "argv", ["x", *words, *extra])
        evaluate_assets.main()
        assert len(made) == count
    assert {*made} == {*assets_of(dataclasses.replace(small, seeds=1))} - {first}
    assert len(load(tmp_path / "o" / "measurements.jsonl")) == 6
    assert (tmp_path / "o" / "table.md").read_text() in capsys.readouterr().out
    evaluate_assets.main()
    assert len(made) == 5
    monkeypatch.setattr(sys, "argv", ["x", *words, "--arms", "without"])
    with pytest.raises(SystemExit):
        evaluate_assets.main()
    assert "no 'without'; expected some of ['alone', 'with', 'half']" in capsys.readouterr().err


def test_sheets_have_the_arms_of_a_prompt_below_each_other(small, tmp_path):
    def folders(*prompts):
        return [[Asset(arm, p, 0).folder(tmp_path) for p in prompts] for arm in small.arms]

    assert sheet_rows(small, tmp_path) == folders("a red cube", "a blue cone")
    for arm in small.arms:
        folder = Asset(arm, "a blue cone", 0).folder(tmp_path)
        folder.mkdir(parents=True)
        (folder / "state.json").write_text('{"finished": true}')
    assert sheet_rows(small, tmp_path) == folders("a blue cone")
    many = tmp_path / "many"
    many.write_text("\n".join(f"a {color} cube" for color in COLORS))
    rows = sheet_rows(dataclasses.replace(small, prompts=many), tmp_path)
    assert [len(row) for row in rows] == [4] * 6
    assert rows[3] == [Asset("alone", f"a {c} cube", 0).folder(tmp_path) for c in list(COLORS)[4:]]


def test_describe():
    assert describe(target("on top of", [("red", "cube"), ("blue", "cone")])) == (
        "red cube on top of blue cone"
    )
    assert describe(None) == "nothing"


def test_roughness_is_the_angle_between_faces(tmp_path):
    # 12 edges of a cube turn by a right angle; its 6 diagonals lie within a plane
    trimesh.creation.box().export(tmp_path / "mesh.glb")
    assert roughness(tmp_path) == pytest.approx(90 * 12 / 18)


def test_views_are_read_from_the_picture_of_a_run(tmp_path):
    sheet = (torch.rand(512, 2048, 3) * 255).byte().numpy()
    iio.imwrite(tmp_path / "views.png", sheet)
    views = views_of(tmp_path)
    assert views.shape == (8, 3, 64, 64)
    first = torch.from_numpy(sheet[:4, :4]).float().mean((0, 1)) / 255
    torch.testing.assert_close(views[0, :, 0, 0], first)


def test_contact_sheet_puts_assets_in_their_places(tmp_path):
    views = np.repeat(np.arange(8, dtype=np.uint8) + 10, 256)  # a shade for every view
    for run in (0, 1):
        (tmp_path / str(run)).mkdir()
        sheet = np.broadcast_to((views + 100 * run)[None, :, None], (512, 2048, 3))
        iio.imwrite(tmp_path / str(run) / "views.png", sheet)
    contact_sheet(
        [[tmp_path / "none", tmp_path / "0"], [tmp_path / "1"]], 2, tmp_path / "sheet.png"
    )
    made = iio.imread(tmp_path / "sheet.png")
    assert made.shape == (256, 512, 3)
    shades = made.reshape(2, 128, 4, 128, 3)
    assert (shades.min((1, 3, 4)) == shades.max((1, 3, 4))).all()
    assert shades[:, 0, :, 0, 0].tolist() == [[255, 255, 10, 11], [110, 111, 255, 255]]
