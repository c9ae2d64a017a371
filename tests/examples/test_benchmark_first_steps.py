"""The stop-watch: what it measures, prints, and says where a step fails."""

import os
import sys
from pathlib import Path

import benchmark_first_steps as first
import pytest

import vlmreward


def python(code, name="a step"):
    return first.Step(name, [sys.executable, "-c", code])


def test_a_step_is_run_in_the_folder_without_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(vlmreward.__file__).parents[1]))
    code = "import os; open('seen', 'w').write(os.environ.get('PYTHONPATH', 'nothing'))"
    code += "; sum(range(10**7))"  # processor time is counted in hundredths of a second
    timing = first.timed(python(code), tmp_path)
    assert (tmp_path / "seen").read_text() == "nothing"
    assert timing.cpu_seconds > 0
    assert timing.seconds > 0


def test_a_failure_is_named_with_the_end_of_what_was_said(tmp_path):
    with pytest.raises(first.StepError, match=r"a step ended with exit code 1: b \| c \| d$"):
        first.timed(python("import sys; sys.exit('a\\nb\\nc\\nd')"), tmp_path)
    with pytest.raises(first.StepError, match=r"a step: .*No such file"):
        first.timed(first.Step("a step", [str(tmp_path / "none")]), tmp_path)


@pytest.mark.parametrize("installer", first.INSTALLERS)
def test_the_steps_go_from_an_environment_to_an_asset(installer, tmp_path):
    wheel = tmp_path / "vlmreward.whl"
    plan = {s.name: s for s in first.steps(wheel, installer, "a mug", tmp_path / "environment")}
    names = ["environment", "installer", "installation", "first picture", "first reward"]
    names += ["first asset"]
    if installer == "pip":
        names.remove("installer")
    assert list(plan) == names
    words = plan["installation"].words
    assert words[-1] == f"{wheel}[3d]"
    assert {"--no-cache-dir", "--no-cache"} & {*words}
    inside = [Path(step.words[0]).parent for step in list(plan.values())[1:]]
    assert set(inside) == {tmp_path / "environment" / ("Scripts" if os.name == "nt" else "bin")}
    assert Path(words[0]).name == ("python" if installer == "pip" else "uv")


def test_the_whole_prints_what_was_measured(monkeypatch, capsys):
    make = "import os; os.makedirs('outputs/a'); open('outputs/a/report.html', 'w')"
    plan = [python("", "reward"), python(make, "asset")]
    monkeypatch.setattr(first, "steps", lambda *_: plan)
    monkeypatch.setattr(first, "about", lambda python: f"a machine with {python.name}")
    assert first.main([]) == 0
    date, machine, head, *rows = capsys.readouterr().out.splitlines()
    assert date.endswith(" UTC")
    assert machine == "a machine with python"
    assert [row.split()[0] for row in rows] == ["reward", "asset"]
    assert head.split() == ["step", "seconds", "of", "CPUs", "since", "the", "start"]
    plan[1] = python("", "asset")
    assert first.main([]) == 1
    assert "has no report.html; expected one" in capsys.readouterr().err


def test_times_add_up():
    timings = [first.Timing("a", 60.4, 10), first.Timing("b", 0.2, 0.1)]
    assert [line.split()[1:] for line in first.table(timings).splitlines()[1:]] == [
        ["60", "10", "60"],
        ["0", "0", "61"],
    ]


def test_mistakes_are_one_line_before_any_step(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(first, "timed", lambda *_: pytest.fail("a step was run"))
    assert first.main(["--install", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.endswith("none; expected a checkout or a wheel\n")
    with pytest.raises(SystemExit) as stopped:
        first.main(["--prompt", " "])
    assert stopped.value.code == 2
    assert "received --prompt ' '; expected some words" in capsys.readouterr().err


def test_the_machine_is_told_by_the_environment():
    lines = first.about(Path(sys.executable)).splitlines()
    assert "threads" in lines[0]
    assert f"Python {sys.version.split()[0]}" in lines[2]
    assert "torch " in lines[2]
