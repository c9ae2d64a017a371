"""The comparison of growing and fixed numbers of Gaussians, with stub teachers."""

import json
import types

import evaluate_growth
import pytest
import torch
from stub_models import RandomDenoiser, redness, tiny

from vlmreward_3d.config import DENSIFICATIONS, DensificationConfig
from vlmreward_3d.guidance.loading import build_guidances


@pytest.fixture
def words(monkeypatch, tmp_path):
    """A command that takes seconds."""
    quick = DensificationConfig(
        interval=2, grad_threshold=1e-3, split_size=0.2, min_opacity=0.01, max_gaussians=60
    )

    def blocks(prompt, *, steps, seed, field):
        return tiny(prompt=prompt, steps=steps, seed=seed, field=field)

    def reward(model, *, question):
        assert (model, question) == ("builtin/robust", "yes-no")
        return lambda views, prompt: redness(views[:, None], prompt)

    monkeypatch.setitem(DENSIFICATIONS, "quick", quick)
    monkeypatch.setattr(evaluate_growth, "presets", types.SimpleNamespace(blocks=blocks))
    monkeypatch.setattr(evaluate_growth, "YesNoReward", reward)
    monkeypatch.setattr(
        evaluate_growth,
        "load_guidances",
        lambda config: build_guidances(config, RandomDenoiser(), redness),
    )
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red cube\na blue cube\n")
    numbers = ["--steps", "4", "--gaussians", "30", "--limit", "1", "--seeds", "1"]
    return ["--out", str(tmp_path / "out"), "--grow", "quick", "--prompts", str(prompts), *numbers]


def test_arms_are_compared_and_those_that_are_made_are_not_made_again(
    words, tmp_path, monkeypatch, capsys
):
    assert evaluate_growth.main(words) == 0
    out = tmp_path / "out"
    rows = [json.loads(line) for line in (out / "measurements.jsonl").read_text().splitlines()]
    grown, few, many = rows
    assert [row["arm"] for row in rows] == ["grows", "few", "many"]
    assert few["Gaussians"] == 30 < grown["Gaussians"] == many["Gaussians"] <= 60
    assert grown["steps"] == 4
    assert all(row["steps"] >= 1 for row in rows)
    assert all(0 < row["P(Yes)"] < 1 for row in rows)
    table = (out / "table.md").read_text()
    assert f"torch {torch.__version__}; settings `quick`; 1 runs an arm." in table
    ahead = int(grown["log-odds"] > few["log-odds"])
    line = next(line for line in table.splitlines() if line.startswith("| few"))
    assert line.endswith(f"| {ahead} of 1 |")
    assert (out / "sheet.png").stat().st_size > 0

    # as if it had been stopped before the last arm was measured
    lines = (out / "measurements.jsonl").read_text().splitlines(keepends=True)
    (out / "measurements.jsonl").write_text("".join(lines[:2]))
    monkeypatch.setattr(evaluate_growth, "fixed", None)
    assert evaluate_growth.main(words) == 0
    again = [json.loads(line) for line in (out / "measurements.jsonl").read_text().splitlines()]
    assert again == rows
    capsys.readouterr()


def test_another_comparison_in_the_folder_is_refused(words, refused):
    assert evaluate_growth.main(words) == 0
    words[words.index("--steps") + 1] = "5"
    assert "steps: 4 -> 5" in refused(evaluate_growth.main, *words)
