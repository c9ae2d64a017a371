import imageio.v3 as iio
import numpy as np
import pytest
from evaluate_ablations import ARMS, VLM3D, bootstrap, folder_of, table
from evaluate_assets import contact_sheet


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


def test_table_pairs_arms_and_says_what_is_missing():
    prompts = ["a", "b"]
    marks = {arm: {(p, s): (1.0, 0.002) for p in prompts for s in (0, 1)} for arm in ARMS}
    marks["SDS alone"]["a", 0] = (0.0, 0.006)
    del marks["single view"]["b", 1]
    lines = table(marks, prompts, 2).splitlines()
    rows = {line.split(" | ")[0].strip("| "): line for line in lines[2:]}
    assert rows[VLM3D] == f"| {VLM3D} | 4/4 [100%, 100%] |  | 0.20% [0.20%, 0.20%] |  |"
    assert rows["SDS alone"] == (
        "| SDS alone | 3/4 [50%, 100%] | -25% [-50%, +0%] | 0.30% [0.20%, 0.40%] "
        "| +0.10% [+0.00%, +0.20%] |"
    )
    assert rows["single view"] == "| single view | 1 of 4 not run | | | |"


def test_every_run_has_a_folder_of_its_own(tmp_path):
    folders = {
        folder_of(tmp_path, arm, p, s) for arm in ARMS for p in ("a b", "a-c") for s in (0, 1)
    }
    assert len(folders) == len(ARMS) * 4


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
