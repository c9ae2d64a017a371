"""Progress in a file: few lines, and plain ones."""

import io
import sys

import pytest

from vlmreward.utils import progress
from vlmreward.utils.progress import progress_bar


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_every_ten_seconds_and_at_the_end(clock, capsys):
    with progress_bar(total=100, desc="training", unit="step") as bar:
        for step in range(100):
            clock[0] += 0.25
            bar.update()
            bar.set_postfix_str(f"reward {step}")
    said = capsys.readouterr().err
    assert "\r" not in said
    numbers = [line.split()[2] for line in said.splitlines()]
    assert numbers == ["0/100", "40/100", "80/100", "100/100"]
    assert said.splitlines()[-1].endswith("reward 99]")
    assert all(line.startswith("training: ") for line in said.splitlines())


def test_what_is_to_vanish_is_not_written(capsys):
    assert list(progress_bar(range(3), leave=False)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    list(progress_bar(range(3), desc="training"))
    assert sys.stderr.getvalue().count("\r") > 1
    assert "training: 100%|" in sys.stderr.getvalue()


def test_without_standard_error_nothing_is_said(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress_bar(range(3))) == [0, 1, 2]
