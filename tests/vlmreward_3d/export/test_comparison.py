"""The page that puts runs side by side, and its command."""

import json
import re

import imageio.v3 as iio
import numpy as np
import pytest
from stub_models import tiny

from vlmreward_3d.cli import compare
from vlmreward_3d.cli.run_record import read_run
from vlmreward_3d.export.report.comparison import save_comparison
from vlmreward_3d.vlm3d import StepReport


def begin(folder, *, exported=True, steps=3, **changes):
    """A folder as a run leaves it."""
    folder.mkdir(parents=True)
    config = tiny(**changes)
    (folder / "config.json").write_text(config.to_json())
    (folder / "state.json").write_text(json.dumps({"seconds": 61.0}))
    log = [StepReport(i, {"sds/loss": 1.0 + i, "vlm/reward": i - 1.0}) for i in range(steps)]
    (folder / "metrics.jsonl").write_text("".join(report.to_json() + "\n" for report in log))
    if exported:
        iio.imwrite(folder / "views.png", np.zeros((8, 16, 3), np.uint8))
        iio.imwrite(folder / "turntable.gif", np.zeros((2, 8, 8, 3), np.uint8))
    return folder


def rows(page):
    """Cells of all tables by the name of their row."""
    found = re.findall(r'<tr><th scope="row">([^<]*)</th>(.*?)</tr>', page)
    return {name: re.findall(r"<td>(.*?)</td>", cells) for name, cells in found}


def test_outcomes_and_differences_are_side_by_side(tmp_path, capsys):
    one = begin(tmp_path / "one", prompt="a <red> cube", seed=0)
    two = begin(tmp_path / "two", prompt="a <red> cube", seed=7, steps=2, exported=False)
    out = tmp_path / "pages" / "c.html"
    assert compare.main([str(one), str(two), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    page = out.read_text()
    cells = rows(page)
    assert cells["Prompt"] == ["a &lt;red&gt; cube"] * 2
    total = tiny().steps
    assert cells["Steps done"] == [f"3 of {total}", f"2 of {total}"]
    assert cells["Time of all steps"] == ["1 min 1 s"] * 2
    assert cells["Final vlm/reward"] == ["1", "0"]
    assert cells["seed"] == ["0", "7"]
    settings = set(tiny().flat()) & cells.keys()
    assert settings == {"seed"}  # the others are the same
    assert page.count("<svg") == 2
    assert 'aria-label="Loss (sds/loss) over the steps: one from 1 to 3, two from 1 to 2"' in page
    assert "two has no turntable" in page
    assert "two has no views" in page
    assert page.count("data:image/gif") == page.count("data:image/png") == 1


def test_runs_with_one_name_are_told_apart(tmp_path, monkeypatch):
    begin(tmp_path / "a" / "cube")
    begin(tmp_path / "b" / "cube")
    monkeypatch.chdir(tmp_path)
    assert compare.parse(["a/cube", "b/cube"]).names == ["a/cube", "b/cube"]
    assert compare.parse(["a/cube", "b/cube", "--name", "x", "--name", "y"]).names == ["x", "y"]
    assert compare.main(["a/cube", "b/cube"]) == 0
    assert "All settings are the same." in (tmp_path / "compare.html").read_text()


def test_mistakes_are_one_line(tmp_path, capsys):
    run = begin(tmp_path / "run")

    def said(*words):
        assert compare.main([*map(str, words), "--out", str(tmp_path / "c.html")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert not (tmp_path / "c.html").exists()
        return line

    assert "without config.json; expected the folder of a run" in said(run, tmp_path / "none")
    damaged = begin(tmp_path / "damaged")
    (damaged / "config.json").write_text("{}")
    assert "config.json" in said(run, damaged)
    assert "received 7 runs; expected two to 6" in said(
        *[begin(tmp_path / str(i)) for i in range(7)]
    )
    assert "expected different names" in said(run, run)
    for words in ([str(run)], [str(run), str(run), "--name", "x"]):
        with pytest.raises(SystemExit) as stopped:
            compare.parse(words)
        assert stopped.value.code == 2


def test_a_run_without_steps_is_shown(tmp_path):
    one, two = (begin(tmp_path / name, steps=n) for name, n in (("one", 0), ("two", 2)))
    (one / "state.json").unlink()
    (one / "metrics.jsonl").unlink()
    save_comparison(tmp_path / "c.html", [read_run(one, "one"), read_run(two, "two")])
    cells = rows((tmp_path / "c.html").read_text())
    assert cells["Final vlm/reward"] == ["-", "0"]
    assert cells["Time of all steps"] == ["not known", "1 min 1 s"]
