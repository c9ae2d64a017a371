from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from evaluate_assets import bootstrap, contact_sheet, describe, folder_of, table, views_of
from judge import Judge, target, target_of, target_of_prompt

from vlmreward_3d.blocks.language import caption
from vlmreward_3d.blocks.scenes import sample_scene

PROMPTS = Path(__file__).with_name("prompts.txt").read_text().splitlines()


def test_the_published_list_has_12_singles_and_8_pairs_of_this_world():
    kinds = [target_of_prompt(p)[0] for p in PROMPTS]
    assert len(set(PROMPTS)) == len(PROMPTS) == 20
    assert kinds == [0] * 12 + [1] * 4 + [2] * 4
    assert [describe(target_of_prompt(p)) for p in PROMPTS[:1]] == ["red cube"]


def test_targets_of_scenes_and_of_their_captions_agree():
    rng = np.random.default_rng(0)
    for _ in range(100):
        scene = sample_scene(rng)
        assert target_of(scene) == target_of_prompt(caption(scene))


def test_only_a_stack_has_an_order():
    a, b = ("red", "cube"), ("blue", "cone")
    assert target("next to", [a, b]) == target("next to", [b, a])
    assert target("on top of", [a, b]) != target("on top of", [b, a])


def test_a_reading_of_one_thing_has_no_second():
    torch.manual_seed(0)
    judge = Judge(width=4).eval()
    with torch.no_grad():
        judge.kind.bias[:] = torch.tensor([9.0, 0.0, 0.0])
        (single,) = judge.read(torch.rand(1, 8, 3, 64, 64))
        judge.kind.bias[:] = torch.tensor([0.0, 0.0, 9.0])
        (pair,) = judge.read(torch.rand(1, 8, 3, 64, 64))
    assert single[3:] == [-100, -100]
    assert min(pair) >= 0


def test_table_reads_the_shipped_pictures(tmp_path):
    torch.manual_seed(0)
    judge = Judge(width=4).eval()
    prompts = ["a red cube", "a blue sphere", "a red cube next to a blue sphere", "a pink car"]
    for prompt in prompts:
        folder = folder_of(tmp_path, "with the reward", prompt)
        folder.mkdir(parents=True)
        sheet = (torch.rand(512, 2048, 3) * 255).byte().numpy()
        iio.imwrite(folder / "views.png", sheet)
    views = views_of(folder)
    assert views.shape == (8, 3, 64, 64)
    first = torch.from_numpy(sheet[:4, :4]).float().mean((0, 1)) / 255
    torch.testing.assert_close(views[0, :, 0, 0], first)
    text = table(judge, tmp_path, prompts)
    (reading,) = judge.read(views[None])
    expected = "right" if reading == target_of_prompt(prompt) else f"wrong: {describe(reading)}"
    assert f"| a pink car | {expected} | not run |" in text
    contact_sheet(tmp_path, "with the reward", prompts, tmp_path / "sheet.png")
    assert iio.imread(tmp_path / "sheet.png").shape == (128, 4 * 256, 3)


def test_bootstrap_interval():
    low, high = bootstrap([True] * 10 + [False] * 10)
    assert 0.2 < low < 0.5 < high < 0.8
    assert bootstrap([True] * 5) == (1.0, 1.0)
