"""Calibration curves of the built-in VLM."""

import json

import numpy as np
import pytest

from vlmreward_3d.blocks.training import calibrate_vlm
from vlmreward_3d.blocks.world import dataset


def test_the_calibration_error_is_the_distance_of_the_curve_to_the_diagonal():
    said = np.array([0.05, 0.05, 0.95, 0.95, 0.95, 0.95])
    true = np.array([0.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    bins = calibrate_vlm.curve(said, true)
    assert bins == {"at": [0.05, pytest.approx(0.95)], "mean": [0.5, 0.75], "n": [2, 4]}
    expected = (2 * 0.45 + 4 * 0.2) / 6
    assert calibrate_vlm.calibration_error(said, true) == pytest.approx(expected)


def test_curves_of_a_shipped_model(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "SHARD", 40)
    out = tmp_path / "curves.png"
    words = ["--data", str(tmp_path / "data"), "--scenes", "40", "--batches", "9"]
    calibrate_vlm.main([*words, "--models", "builtin/blocks", "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")
    measured = json.loads(out.with_suffix(".json").read_text())["builtin/blocks"]
    assert measured["accuracy"] > 0.85
    assert measured["calibration error"] < 0.15
    blends = measured["blends"]
    assert sum(blends["n"]) > 20
    assert blends["mean"][0] < 0.7 < blends["mean"][-1]
    assert blends["mean"][0] < blends["mean"][-1] - 0.2
    views = measured["views"]
    assert views["at"] == [0, 0.25, 0.5, 0.75, 1]
    assert views["mean"][0] < 0.2 < 0.8 < views["mean"][-1]
