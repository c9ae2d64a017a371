import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import generate_many
import psutil
import pytest
from PIL import Image

from vlmreward_3d.atomic_io import locked

PROMPTS = [f"thing number {i}" for i in range(4)]


def quickly(prompts, out, **options):
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1] / "support")
    return generate_many.make_all(prompts, out, [], module="quick_asset", workers=2, **options)


def kill_one(out, killed):
    """SIGKILL to the worker that is first seen at its third step."""
    for _ in range(4000):
        for pids in out.glob("*/pids"):
            lines = pids.read_text().split()
            if len(lines) >= 3:
                killed.append((pids.parent, int(lines[-1])))
                os.kill(killed[0][1], signal.SIGKILL)
                return
        time.sleep(0.05)


def listen(sockets, done):
    """The addresses on which this process and its children listen, until done."""
    mine = psutil.Process()
    while not done.wait(0.5):
        for process in (mine, *mine.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has ended in the meantime
                for one in process.net_connections(kind="inet"):
                    if one.status == psutil.CONN_LISTEN:
                        sockets.add((one.laddr.ip, one.laddr.port))


@pytest.mark.timeout(240)
def test_all_are_made_while_a_worker_is_killed_and_none_twice(tmp_path):
    killed = []
    killer = threading.Thread(target=kill_one, args=(tmp_path, killed))
    killer.start()
    sockets, done = set(), threading.Event()
    listener = threading.Thread(target=listen, args=(sockets, done))
    listener.start()
    outcomes = quickly(PROMPTS, tmp_path)
    done.set()
    listener.join()
    killer.join()
    assert len(sockets) >= 5  # the servers of the cluster, and workers
    outside = {ip for ip, _ in sockets} - {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert not outside, f"Ray listens on {outside}"
    assert [outcome.prompt for outcome in outcomes] == PROMPTS
    assert {outcome.status for outcome in outcomes} == {"made"}
    ((folder, pid),) = killed
    pids = (folder / "pids").read_text().split()
    assert str(pid) in pids
    assert len(set(pids)) == 2  # another process went on
    assert len(pids) <= 7  # from where the first one was, with one step at most done again
    for other in generate_many.folders(PROMPTS, tmp_path):
        assert (other / "steps").read_text() == "6"
        if other != folder:
            assert len((other / "pids").read_text().split()) == 6

    again = quickly([*PROMPTS, "one more", "a wrong one"], tmp_path, retries=1)
    assert [o.status for o in again] == ["there already"] * len(PROMPTS) + ["made", "failed"]
    assert again[-1].reason == "error: there is no such thing"
    assert len((Path(again[-1].folder) / "log.txt").read_text().splitlines()) == 2  # one retry


def test_prompts_of_a_file(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a red cube\n\n# not this\n a red cube \nZwölf Äpfel!\n…\n")
    prompts = generate_many.read_prompts(file)
    assert prompts == ["a red cube", "Zwölf Äpfel!", "…"]
    names = [folder.name for folder in generate_many.folders(prompts, tmp_path)]
    assert names == ["000-a-red-cube", "001-zw-lf-pfel", "002-asset"]


def test_a_file_of_windows_has_no_mark_in_its_first_prompt(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"\xef\xbb\xbfa red cube\r\nZw\xc3\xb6lf\r\n")
    assert generate_many.read_prompts(file) == ["a red cube", "Zwölf"]


def test_a_finished_run_is_one_whose_state_says_so(tmp_path):
    for state, expected in {
        '{"finished": true}': True,
        '{"finished": false}': False,
        '{"finished": "no"}': False,
        "[]": False,
        "null": False,
        "{": False,
        "\xff": False,
    }.items():
        (tmp_path / "state.json").write_text(state, encoding="latin-1")
        assert generate_many.finished(tmp_path) is expected


def test_the_sheet_has_a_picture_of_each(tmp_path):
    outcomes = []
    for i, color in enumerate(["red", "blue"]):
        (tmp_path / str(i)).mkdir()
        Image.new("RGB", (80, 40), color).save(tmp_path / str(i) / "views.png")
        outcomes.append(generate_many.Outcome(f"a {color} thing", str(tmp_path / str(i)), "made"))
    assert generate_many.sheet(outcomes[:0], tmp_path / "none.png") is None
    generate_many.sheet(outcomes, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 24)}
    assert {(255, 0, 0), (0, 0, 255)} <= colors


def test_failures_are_in_the_summary_and_in_the_exit_code(tmp_path, monkeypatch, refused):
    outcomes = [
        generate_many.Outcome("a", str(tmp_path / "a"), "made", 1.0),
        generate_many.Outcome("b", str(tmp_path / "b"), "failed", reason="out of memory"),
    ]
    monkeypatch.setattr(generate_many, "make_all", lambda *_, **__: outcomes)
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    line = refused(generate_many.main, tmp_path / "prompts.txt", "--out", tmp_path / "out")
    assert "1 of 2 failed" in line
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [entry["reason"] for entry in summary] == ["", "out of memory"]


def test_bad_input(tmp_path, refused, capsys):
    main = generate_many.main
    assert "cannot read" in refused(main, tmp_path / "none.txt", "--out", tmp_path)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    assert "has no prompts" in refused(main, tmp_path / "empty.txt", "--out", tmp_path)
    (tmp_path / "other.txt").write_bytes(b"a r\xf6d cube\n")
    assert "expected a text file in UTF-8" in refused(
        main, tmp_path / "other.txt", "--out", tmp_path
    )
    (tmp_path / "good.txt").write_text("a red cube\n")
    with locked(tmp_path):
        said = refused(main, tmp_path / "good.txt", "--out", tmp_path)
    assert f"another run is going on (process {os.getpid()} on" in said
    for words, message in (
        (["--", "--stepps", "3"], "unrecognized arguments: --stepps"),
        (["--", "--steps", "0"], "--steps: received '0'; expected a whole number >= 1"),
        (["--workers", "2", "--address", "auto"], "received --workers with --address"),
        (["--address", ""], "--address: received ''; expected some words"),
    ):
        with pytest.raises(SystemExit):
            main([str(tmp_path / "good.txt"), "--out", str(tmp_path / "o"), *words])
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path / "empty.txt"), "--", "--out", "elsewhere"])
    assert "--out is behind --" in capsys.readouterr().err
