"""The folders of runs: how far they are, and whether two runs ended alike."""

import json
from pathlib import Path

import torch

from vlmreward_3d.training.checkpoint import load_checkpoint


def lines(out: Path) -> int:
    """The steps in a run's log."""
    file = out / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def assert_same_end(out: Path, reference: Path, steps: int) -> None:
    """Both runs ended after these steps with the same bits, but for the time that they took."""
    ours = load_checkpoint(out / "checkpoint.safetensors")
    theirs = load_checkpoint(reference / "checkpoint.safetensors")
    assert ours.step == theirs.step == steps
    assert ours.state.keys() == theirs.state.keys()
    for name, value in ours.state.items():
        assert torch.equal(value, theirs.state[name]), name
    assert ours.notes == theirs.notes
    for name in ("metrics.jsonl", "config.json"):
        assert (out / name).read_bytes() == (reference / name).read_bytes()
    ours, theirs = (json.loads((run / "state.json").read_text()) for run in (out, reference))
    assert ours.pop("seconds") > 0
    assert theirs.pop("seconds") > 0
    assert ours == theirs
