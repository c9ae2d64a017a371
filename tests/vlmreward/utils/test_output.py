"""Files that are written: whole or not at all, through links, into what is no regular file."""

import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from PIL import Image

from vlmreward.cli import main
from vlmreward.utils.output import replacing, require_writable, write_atomically

posix = pytest.mark.skipif(os.name == "nt", reason="no such files there")
SCORE = ["--prompt", "a red cube", "--format", "json", "--out"]


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "red.png")
    return tmp_path / "red.png"


def reader(path) -> tuple[threading.Thread, list[bytes]]:
    """Reads a pipe until its writer closes it."""
    read: list[bytes] = []
    thread = threading.Thread(target=lambda: read.append(path.read_bytes()), daemon=True)
    thread.start()
    return thread, read


def test_a_new_file_has_the_contents_and_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new.txt", "Zwölf\r\n")
    finally:
        os.umask(before)
    assert (tmp_path / "new.txt").read_bytes() == "Zwölf\r\n".encode()
    assert stat.S_IMODE((tmp_path / "new.txt").stat().st_mode) == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["new.txt"]


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
def test_a_file_that_is_replaced_keeps_its_mode_and_owner(mode, tmp_path):
    file = tmp_path / "old.txt"
    file.write_text("old")
    file.chmod(mode)
    if os.geteuid() == 0:
        os.chown(file, 1234, 2345)
    owner = (file.stat().st_uid, file.stat().st_gid)
    write_atomically(file, b"new")
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert (file.stat().st_uid, file.stat().st_gid) == owner
    assert file.read_text() == "new"


def test_what_is_secret_is_so_while_it_is_written(tmp_path):
    file = tmp_path / "old.txt"
    file.write_text("old")
    file.chmod(0o600)
    with replacing(file) as draft:
        assert stat.S_IMODE(draft.stat().st_mode) == 0o600
        draft.write_text("new")


@pytest.mark.parametrize("dangling", [False, True])
def test_links_stay_and_their_targets_are_written(dangling, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "target.txt"
    if not dangling:
        target.write_text("old")
    (tmp_path / "second").symlink_to(target)
    (tmp_path / "first").symlink_to("second")
    write_atomically(tmp_path / "first", "new")
    assert os.readlink(tmp_path / "first") == "second"
    assert os.readlink(tmp_path / "second") == str(target)
    assert target.read_text() == "new"
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["target.txt"]


@posix
def test_a_pipe_is_written_into(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    thread, read = reader(pipe)
    write_atomically(pipe, "through")
    thread.join(timeout=10)
    assert read == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@posix
def test_a_device_is_written_into(tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.stat("/dev/null").st_rdev)
        device.write_bytes(b"")
    except OSError:
        pytest.skip("devices cannot be made here")
    before = device.stat().st_mode
    write_atomically(device, "away")
    assert device.stat().st_mode == before
    assert device.read_bytes() == b""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["null"]


@posix
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_keeps_its_place_in_a_file_that_the_shell_opened(name, tmp_path):
    (tmp_path / "link").symlink_to("/dev/stdout")
    program = (
        "import sys; from vlmreward.utils.output import *\n"
        "print('before'); write_atomically(sys.argv[1], 'between\\n'); print('after')"
    )
    with open(tmp_path / "out.txt", "w") as out:
        command = [sys.executable, "-c", program, name]
        done = subprocess.run(command, stdout=out, cwd=tmp_path, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.txt").read_text() == "before\nbetween\nafter\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "out.txt"]


@pytest.mark.parametrize("kind", ["regular", "pipe"])
def test_a_failure_leaves_what_was_there(kind, tmp_path):
    file = tmp_path / "file"
    file.write_text("old") if kind == "regular" else os.mkfifo(file)
    before = file.stat()

    def half():
        with replacing(file) as draft:
            draft.write_text("ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        half()
    assert file.stat() == before
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_longest_names_and_two_writers_at_once(tmp_path):
    longest = tmp_path / ("é" * 125 + ".json")
    with replacing(longest) as one, replacing(longest) as other:
        one.write_text("one")
        other.write_text("other")
    assert longest.read_text() == "one"  # which was finished last
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_written_is_noticed_before(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("none/x")
    for name in ("", "none/x", "file/x", "loop", "nowhere"):
        with pytest.raises(OSError, match=r"."):
            require_writable(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "loop", "nowhere"]


@posix
def test_permissions_count():
    """Another user, who is not root, meets the limits of file permissions."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    program = (
        "import os, sys; from vlmreward.utils.output import *\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for name in ('open.txt', 'closed.txt', 'new.txt'):\n"
        "    try: write_atomically(name, 'new'); print(name, 'written')\n"
        "    except PermissionError as error: print(name, error.strerror)\n"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)
        for file, mode in ((folder / "open.txt", 0o666), (folder / "closed.txt", 0o644)):
            file.write_text("old")
            file.chmod(mode)
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.stdout.splitlines() == [
            "open.txt written",
            "closed.txt permission denied",
            "new.txt the folder . is read-only",
        ], done.stderr
        assert (folder / "open.txt").read_text() == "new"
        assert (folder / "closed.txt").read_text() == "old"


@posix
@pytest.mark.parametrize("command", ["score", "doctor", "explain"])
def test_the_commands_write_into_pipes_and_through_links(command, picture, tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    (tmp_path / "link.png").symlink_to("target")
    (tmp_path / "target").write_text("old")
    (tmp_path / "target").chmod(0o600)
    words = {
        "score": [str(picture), *SCORE],
        "doctor": ["builtin/blocks", "--quick", "--json"],
        "explain": [
            *(str(picture), "--prompt", "a red cube", "--method", "gradient-norm", "--out"),
        ],
    }[command]
    assert main([command, *words, str(tmp_path / "link.png")]) == 0
    assert os.readlink(tmp_path / "link.png") == "target"
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o600
    whole = (tmp_path / "target").read_bytes()
    thread, read = reader(pipe)
    assert main([command, *words, str(pipe)]) == 0
    thread.join(timeout=10)
    assert len(read[0]) == pytest.approx(len(whole), rel=0.2)
    assert read[0][:8] == whole[:8]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
