"""A folder belongs to one process at a time, until that process ends, however it does."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from vlmreward_3d.atomic_io import InUse, locked, require_free

HOLD = (
    "import sys, pathlib, time\n"
    "from vlmreward_3d.atomic_io import locked\n"
    "with locked(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.readline()\n"
)
RACE = (
    "import sys, pathlib\n"
    "from vlmreward_3d.atomic_io import InUse, locked\n"
    "folder = pathlib.Path(sys.argv[1])\n"
    "sys.stdin.readline()\n"
    "for _ in range(300):\n"
    "    try:\n"
    "        with locked(folder):\n"
    "            (folder / 'inside').mkdir()\n"
    "            (folder / 'inside').rmdir()\n"
    "    except InUse: pass\n"
)


def process(program, folder):
    command = [sys.executable, "-c", program, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **pipes)


@pytest.fixture
def holder(tmp_path):
    started = process(HOLD, tmp_path)
    assert started.stdout.readline() == "held\n"
    yield started
    started.kill()
    started.communicate()


def test_who_has_it_is_said(holder, tmp_path):
    who = json.loads((tmp_path / "in-use.lock").read_text())
    said = rf"another run is going on \(process {holder.pid} on {who['host']}, since 20..-..-.. "
    with pytest.raises(InUse, match=said) as raised, locked(tmp_path):
        pass
    assert "\n" not in str(raised.value)
    with pytest.raises(InUse, match=said):
        require_free(tmp_path)


def test_it_is_free_after_its_holder_and_nothing_is_left(holder, tmp_path):
    holder.communicate("\n")
    assert list(tmp_path.iterdir()) == []
    require_free(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path):
        assert json.loads((tmp_path / "in-use.lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_keeps_nothing(number, holder, tmp_path):
    holder.send_signal(number)
    holder.wait(timeout=10)
    assert (tmp_path / "in-use.lock").exists()
    require_free(tmp_path)
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_another_thread_is_another(tmp_path):
    failures = []

    def work():
        try:
            with locked(tmp_path):
                pass
        except InUse as error:
            failures.append(str(error))

    with locked(tmp_path):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(failures) == 1
    assert f"process {os.getpid()} on" in failures[0]


def test_two_are_never_in_at_once(tmp_path):
    """A deleted file and its successor are two locks: the window in between must be closed."""
    racers = [process(RACE, tmp_path) for _ in range(3)]
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    assert [racer.communicate(timeout=60)[1] for racer in racers] == [""] * 3
    assert list(tmp_path.iterdir()) == []
