import json

import benchmark_paper_scale as benchmark
import pytest
import torch


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("scale")
    benchmark.main(["--size", "small", "--rounds", "2", "--out", str(out)])
    return out


def test_every_part_of_every_phase_is_measured(measured):
    found = json.loads((measured / "paper-scale.json").read_text())
    assert [(row["first"], row["steps"], row["views"]) for row in found["phases"]] == [
        (0, 5000, 8),
        (5000, 10000, 8),
    ]
    for row in found["phases"]:
        assert set(row["seconds"]) == set(benchmark.PARTS)
        assert all(len(times) == 2 and min(times) > 0 for times in row["seconds"].values())
        assert row["flops"]["UNet"] > row["flops"]["autoencoder"] > 0
        # value and gradient of a frozen model: twice the products of the forward pass
        assert row["flops"]["VLM"] > 1e9
    assert found["matrix_rate"] > 1e9


def test_a_count_from_shallow_models_is_that_of_the_whole(measured, tmp_path):
    rows = json.loads((measured / "paper-scale.json").read_text())["phases"]
    benchmark.main(["--count", "--size", "small", "--out", str(tmp_path)])
    text = (tmp_path / "paper-scale-operations.md").read_text()
    for row in rows:
        pixels = torch.rand(row["views"], 3, row["side"], row["side"])
        assert benchmark.vlm_operations("small", pixels, "a cat in a hat") == row["flops"]["VLM"]
        label = f"{row['views']} views of {row['side']} px, {row['steps']} steps"
        assert f"| {label} | VLM | {row['flops']['VLM'] / 1e12:.3f} |" in text
    # without its values a network is counted as with them
    counted = benchmark.teacher_operations("small", 8)
    assert counted["UNet"] == row["flops"]["UNet"]
    # but for attention's way back, which computes the scores again where there are values
    assert counted["autoencoder"] == pytest.approx(row["flops"]["autoencoder"], rel=0.01)


def test_table_adds_up():
    row = {
        "first": 0,
        "steps": 3600,
        "views": 8,
        "side": 64,
        "seconds": {"render": [0.5] * 3, "UNet": [0.25] * 3},
        "flops": {"render": 0, "UNet": 10**12},
    }
    text = benchmark.table(
        {"run": "a day", "matrix_rate": 8e12, "peak": 3 * 2**30, "phases": [row, row]}
    )
    assert "| 8 views of 64 px, 3600 steps | UNet | 250.0 [250.0, 250.0] | 1.000 | 50% |" in text
    assert "| 8 views of 64 px, 3600 steps | **all** | 750.0 | | |" in text
    assert "whole run: 1.50 h; peak memory 3.0 GiB" in text
