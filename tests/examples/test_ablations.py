import numpy as np
import pytest
import trimesh
from evaluate_ablations import ARMS, VLM3D, bootstrap, folder_of, roughness, table


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
    usual, other = (1.0, 0.002, 3.0, -1.0, 5.5), (0.0, 0.006, 2.0, -1.0, 7.5)
    marks = {arm: {(p, s): usual for p in prompts for s in (0, 1)} for arm in ARMS}
    marks["SDS alone"]["a", 0] = other
    del marks["single view"]["b", 1]
    means, differences = table(marks, prompts, 2).split("\n\n")
    rows = {line.split(" | ")[0].strip("| "): line for line in means.splitlines()}
    assert rows["arm"] == "| arm | correct | judge error | content | geometry | roughness |"
    assert rows["SDS alone"] == (
        "| SDS alone | 75% [50%, 100%] | 0.30% [0.20%, 0.40%] | 2.75 [2.50, 3.00] "
        "| -1.00 [-1.00, -1.00] | 6.00 [5.50, 6.50] |"
    )
    assert rows["single view"] == "| single view | 1 of 4 not run |  |  |  |  |"
    rows = {line.split(" | ")[0].strip("| "): line for line in differences.splitlines()}
    assert rows["SDS alone"] == (
        "| SDS alone | -25% [-50%, +0%] | +0.10% [+0.00%, +0.20%] | -0.25 [-0.50, +0.00] "
        "| +0.00 [+0.00, +0.00] | +0.50 [+0.00, +1.00] |"
    )
    assert rows.keys() & {*ARMS} == {*ARMS} - {VLM3D, "single view"}


def test_roughness_is_the_angle_between_faces(tmp_path):
    # 12 edges of a cube turn by a right angle; its 6 diagonals lie within a plane
    trimesh.creation.box().export(tmp_path / "mesh.glb")
    assert roughness(tmp_path) == pytest.approx(90 * 12 / 18)


def test_every_run_has_a_folder_of_its_own(tmp_path):
    folders = {
        folder_of(tmp_path, arm, p, s) for arm in ARMS for p in ("a b", "a-c") for s in (0, 1)
    }
    assert len(folders) == len(ARMS) * 4
